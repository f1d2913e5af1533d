"""Splits follow content alone, and training text holds nothing that is evaluated."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.decontamination import Cut, EvaluationNgrams, find_cuts, moved, without
from forge_pipeline.corpus.inventory import INVENTORY, REASONS, data_inventory
from forge_pipeline.corpus.settings import DecontaminationSettings, InventorySettings, SplittingSettings
from forge_pipeline.corpus.shingles import word_hashes
from forge_pipeline.corpus.splitting import split_documents, split_of
from forge_pipeline.reporting import SilentProgress

Part = Callable[..., Path]
Output = Callable[[], Path]
SETTINGS = SplittingSettings()
LIMITS = DecontaminationSettings()


def _group(split: str) -> str:
    """A split group that falls into ``split``."""
    return next(name for name in map(str, range(10_000)) if split_of(name, SETTINGS) == split)


def _words(seed: int, count: int) -> str:
    generator = random.Random(seed)
    return " ".join(f"w{generator.randrange(10**8)}" for _ in range(count))


def _document(text: str, split: str, **fields: Any) -> dict[str, Any]:
    return {"text": text, "split_group": _group(split), **fields}


def _split(unique: Path, earlier: Sequence[Path], out: Path) -> Path:
    split_documents(SETTINGS, unique, earlier, out, SilentProgress(), workers=1)
    return out


def _rows(folder: Path, name: str = tables.DOCUMENTS) -> list[dict[str, Any]]:
    return tables.read_table(folder, name).to_pylist()


def test_splits_have_about_the_shares_asked_for() -> None:
    splits = [split_of(str(group), SETTINGS) for group in range(20_000)]
    # Five standard deviations of a binomial.
    assert abs(splits.count("train") - 18_800) < 5 * (20_000 * 0.94 * 0.06) ** 0.5
    assert abs(splits.count("test") - 600) < 5 * (20_000 * 0.03 * 0.97) ** 0.5


def test_shares_must_add_up() -> None:
    with pytest.raises(ValidationError, match="not 1"):
        SplittingSettings(train=0.9)


def test_documents_of_one_group_stay_together(part: Part, output: Output) -> None:
    rows = [{"text": _words(n, 30), "split_group": f"file{n // 3}"} for n in range(90)]
    placed = _rows(_split(part(rows, kept=True), [], output()))
    together: dict[str, set[str]] = {}
    for row in placed:
        together.setdefault(row["split_group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in together.values())


# -- decontamination ---------------------------------------------------------------------------------------------


def _cut_text(text: str, item: str, form: str = "text", copies: int = 0) -> str:
    evaluation = EvaluationNgrams(LIMITS)
    evaluation.add_item("held-out", item)
    documents = [{"doc_id": str(n), "text": text if n == 0 else item, "format": form} for n in range(copies + 1)]
    hashed = ((document, word_hashes(str(document["text"]))) for document in documents)
    return without(text, find_cuts(hashed, evaluation, LIMITS).get("0", []))


LONG, SHORT, TOO_SHORT = _words(1, 20), _words(2, 9), _words(3, 7)
BEFORE, AFTER = _words(4, 15), _words(5, 15)


@pytest.mark.parametrize("item", [LONG, SHORT])
def test_the_paragraph_with_an_evaluation_item_is_cut(item: str) -> None:
    text = f"{BEFORE}\n\nSo they say: {item.upper()}; well\nand more.\n\n{AFTER}\n"
    assert _cut_text(text, item) == f"{BEFORE}\n\n{AFTER}\n"


def test_in_code_only_the_lines_are_cut() -> None:
    first, second = LONG.split(" ", 1)
    text = f"a = 1\n# {first}\n# {second}\nb = 2\n"
    assert _cut_text(text, LONG, "python") == "a = 1\nb = 2\n"


@pytest.mark.parametrize(
    ("item", "inside"),
    [
        (TOO_SHORT, TOO_SHORT),
        (SHORT, SHORT.rsplit(" ", 1)[0]),
        (LONG, " ".join(LONG.split()[:12])),
        (LONG, " ".join(reversed(LONG.split()))),
    ],
)
def test_less_than_an_item_is_no_reason_to_cut(item: str, inside: str) -> None:
    text = f"{BEFORE}\n\n{inside}\n\n{AFTER}\n"
    assert _cut_text(text, item) == text


def test_boilerplate_stays() -> None:
    text = f"{BEFORE}\n\n{LONG}\n"
    assert _cut_text(text, LONG, copies=LIMITS.common_documents - 1) == f"{BEFORE}\n\n"
    assert _cut_text(text, LONG, copies=LIMITS.common_documents) == text


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60), st.data())
def test_after_cutting_no_item_is_left(before: int, shared: int, after: int, data: st.DataObject) -> None:
    item = _words(10, 60)
    start = data.draw(st.integers(0, 60 - shared))
    middle = " ".join(item.split()[start : start + shared])
    text = f"{_words(11, before)}\n\n{middle}\n\n{_words(12, after)}"
    left = _cut_text(text, item)
    assert (middle in left) == (shared < LIMITS.ngram_words)
    assert _words(11, before) in left
    assert _words(12, after) in left


@given(st.text(min_size=30, max_size=60), st.lists(st.integers(0, 30), min_size=4, max_size=4, unique=True), st.data())
def test_places_move_with_the_cuts(text: str, bounds: list[int], data: st.DataObject) -> None:
    a, b, c, d = sorted(bounds)
    cuts = [Cut(a, b, 13, ""), Cut(c, d, 13, "")]
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    place = moved(start, end, cuts)
    if place is None:
        assert any(cut.start < end and start < cut.end for cut in cuts)
    else:
        assert without(text, cuts)[slice(*place)] == text[start:end]


def test_training_documents_lose_what_is_held_out_and_say_so(part: Part, output: Output) -> None:
    held = _words(20, 60)
    rows = [
        _document(held, "test"),
        _document(f"{_words(21, 100)}\n\n{' '.join(held.split()[:20])}\n", "train"),
        _document(f"x\n\n{held}\n", "train"),
        _document(_words(22, 40), "train"),
    ]
    unique, out = part(rows, kept=True), output()
    ids = [row["doc_id"] for row in _rows(unique)]
    _split(unique, [], out)
    placed = {row["doc_id"]: row for row in _rows(out)}
    assert list(placed) == [ids[0], ids[1], ids[3]]
    assert placed[ids[1]]["text"] == f"{_words(21, 100)}\n\n"
    assert placed[ids[1]]["bytes"] == len(placed[ids[1]]["text"])
    assert placed[ids[0]]["text"] == held
    decided = {(row["doc_id"], row["rule"], row["action"]) for row in _rows(out, tables.DECISIONS)}
    assert decided == {(ids[1], "evaluation_overlap", "alter"), (ids[2], "contaminated", "drop")}
    assert all(ids[0] in row["detail"] for row in _rows(out, tables.DECISIONS))


def test_questions_about_held_out_functions_are_not_in_the_training_text(part: Part, output: Output) -> None:
    source = 'def turn_the_gear(gear, angle):\n    """Turn the given gear by that angle at once."""\n'
    copied = "# turn_the_gear(gear, angle): Turn the given gear by that angle at once.\n"
    kept = "".join(f"value_{n} = {n}\n" for n in range(40))
    rows = [
        _document(source, "test", format="python", path="gear.py"),
        _document(kept + copied + kept.upper(), "train", format="python", path="other.py"),
    ]
    out = _split(part(rows, kept=True), [], output())
    assert _rows(out)[1]["text"] == kept + kept.upper()
    (entry,) = _rows(out, tables.CATALOG)
    assert (entry["name"], entry["split"], entry["source"]) == ("turn_the_gear", "test", "source")
    assert source[entry["start"] : entry["end"]] == source.strip()


def test_catalog_entries_follow_the_cut_text(part: Part, output: Output) -> None:
    held = _words(30, 30)
    functions = "".join(f"def f{n}():\n    return '{_words(40 + n, 10)}'\n\n" for n in range(6))
    text = functions + f"def leak():\n    return '{held}'\n\n" + "def last():\n    return 1\n"
    rows = [_document(held, "validation"), _document(text, "train", format="python", path="m.py")]
    out = _split(part(rows, kept=True), [], output())
    cut = _rows(out)[1]["text"]
    assert held not in cut
    entries = _rows(out, tables.CATALOG)
    assert [entry["name"] for entry in entries] == [*(f"f{n}" for n in range(6)), "last"]
    assert all(cut[entry["start"] : entry["end"]].startswith(f"def {entry['name']}()") for entry in entries)


def test_later_batches_respect_earlier_ones(part: Part, output: Output) -> None:
    held, trained = _words(50, 60), _words(51, 400)
    first = _split(part([_document(held, "test"), _document(trained, "train")], kept=True), [], output())
    rows = [
        _document(f"{_words(52, 100)}\n\n{held}\n", "train"),
        _document(" ".join(trained.split()[:200]), "test"),
        _document(_words(53, 200), "test"),
    ]
    unique, out = part(rows, kept=True), output()
    ids = [row["doc_id"] for row in _rows(unique)]
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    _split(unique, [first], out)
    placed = {row["doc_id"]: row["text"] for row in _rows(out)}
    assert placed == {ids[0]: f"{_words(52, 100)}\n\n", ids[2]: _words(53, 200)}
    seen = next(row for row in _rows(out, tables.DECISIONS) if row["rule"] == "seen_in_training")
    assert (seen["doc_id"], seen["action"], seen["value"]) == (ids[1], "drop", 1.0)
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before


def test_the_number_of_workers_changes_no_byte(part: Part, output: Output) -> None:
    unique = part([f"Title {n}\n======\n\n{_words(n, 50)}\n" for n in range(150)], kept=True)
    one, two = output(), output()
    split_documents(SETTINGS, unique, [], one, SilentProgress(), workers=1)
    split_documents(SETTINGS, unique, [], two, SilentProgress(), workers=2)
    for path in sorted(one.iterdir()):
        assert path.read_bytes() == (two / path.name).read_bytes()


# -- inventory ---------------------------------------------------------------------------------------------------


def test_the_inventory_counts_every_stage(part: Part, output: Output, tmp_path: Path) -> None:
    landing, documents = tmp_path / "landing", part(["one two", "three"])
    landing.mkdir()
    files = [{"source": "a", "path": "x", "bytes": 5, "licence": "MIT", "owner": "o", "purpose": "training"}]
    tables.write_table(landing / tables.FILES, tables.LANDING_SCHEMA, files)
    reasons = [{"source": "a", "path": "y", "reason": "binary: a NUL byte"}]
    tables.write_table(documents / tables.QUARANTINE, tables.QUARANTINE_SCHEMA, reasons)
    unique = part([_words(1, 40)], kept=True)
    dropped = [{"doc_id": "d", "rule": "exact", "action": "drop"}] * 2
    tables.write_table(unique / tables.DECISIONS, tables.DECISION_SCHEMA, dropped)
    training, out = _split(unique, [], output()), output()
    outcome = data_inventory(
        InventorySettings(), [landing], [documents], [unique], [unique], [training], out, SilentProgress()
    )
    rows = _rows(out, INVENTORY)
    counted = {(row["stage"], row["dimension"], row["value"]): (row["items"], row["bytes"]) for row in rows}
    assert counted["landing_files", "licence", "MIT"] == (1, 5)
    assert counted["documents", "format", "text"] == (2, 12)
    assert counted["training_documents", "split", split_of(_rows(unique)[0]["split_group"], SETTINGS)][0] == 1
    assert outcome.counts["documents_bytes"] == 12
    stated = {(row["stage"], row["action"], row["rule"]): row["decisions"] for row in _rows(out, REASONS)}
    assert stated == {
        ("documents", "quarantine", "binary"): 1,
        ("curated_documents", "drop", "exact"): 2,
        ("unique_documents", "drop", "exact"): 2,
    }
