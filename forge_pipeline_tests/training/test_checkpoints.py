"""A checkpoint is complete or it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_pipeline.training import checkpoints


def save(root: Path, step: int, content: str = "state") -> None:
    def write(folder: Path) -> None:
        (folder / "state").mkdir()
        (folder / "state" / "weights").write_text(content)

    checkpoints.save(root, step, rank=0, barrier=lambda: None, write=write)


def test_the_newest_is_found_and_old_ones_are_removed(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save(tmp_path, step)
    checkpoints.prune(tmp_path, keep=2)
    assert [found.step for found in checkpoints.published(tmp_path)] == [10, 100]
    newest = checkpoints.newest(tmp_path)
    assert newest is not None
    assert newest.step == 100


@pytest.mark.parametrize("damage", ["alter", "truncate", "remove", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    weights = tmp_path / "step-00000010" / "state" / "weights"
    if damage == "alter":
        weights.write_text("stote")
    elif damage == "truncate":
        weights.write_text("sta")
    elif damage == "remove":
        weights.unlink()
    else:
        (tmp_path / "step-00000010" / "manifest.json").unlink()
    newest = checkpoints.newest(tmp_path)
    assert newest is not None
    assert newest.step == 5


def test_a_writer_that_fails_half_way_publishes_nothing(tmp_path: Path) -> None:
    save(tmp_path, 5)

    def write(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(tmp_path, 10, rank=0, barrier=lambda: None, write=write)
    assert [found.step for found in checkpoints.published(tmp_path)] == [5]


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "nowhere") is None
