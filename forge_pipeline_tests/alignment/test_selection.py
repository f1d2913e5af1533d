from __future__ import annotations

from forge_pipeline.alignment.catalog import Entry, HeldOut
from forge_pipeline.alignment.selection import Refusals, Selection

HELD_OUT = Entry("1", "open_file", "function", "files", "", "Opens the file at a path.", "doc", "test", None)


def test_a_candidate_passes_once_and_is_refused_for_the_first_reason_that_speaks_against_it() -> None:
    selection = Selection(HeldOut([HELD_OUT], overlap_words=4))
    overlapping, free = ["It opens the file at dawn."], ["It closes the door at dawn."]
    assert selection.passes("free", free, None)
    assert not selection.passes("free", free, None)
    assert not selection.passes("free", overlapping, "too_long")
    assert not selection.passes("free", overlapping, "malformed")
    assert not selection.passes("overlapping", overlapping, None)
    # What was refused has not been seen: the next refusal has the same reason.
    assert not selection.passes("overlapping", overlapping, None)
    assert selection.refusals == Refusals(overlapping=2, duplicate=1, too_long=1, malformed=1)
    assert selection.refusals.total == 5


def test_what_is_held_out_itself_may_repeat_held_out_words() -> None:
    assert Selection().passes("overlapping", ["It opens the file at dawn."], None)
