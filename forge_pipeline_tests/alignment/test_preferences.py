from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forge_pipeline.alignment.preferences import HELD_OUT_PAIRS, PAIRS, build_pairs
from forge_pipeline.alignment.settings import PAIR_KINDS, PairSettings
from forge_pipeline.corpus.tables import CATALOG, read_table
from forge_pipeline.reporting import Outcome, SilentProgress


def build(folder: Path, output: Path, settings: PairSettings | None = None) -> Outcome:
    output.mkdir()
    return build_pairs(settings or PairSettings(), [folder], output, SilentProgress())


def rows(output: Path, name: str) -> list[dict[str, Any]]:
    return read_table(output, name).to_pylist()


def test_every_corruption_differs_from_the_true_answer(write_corpus: Any, tmp_path: Path) -> None:
    folder = write_corpus(modules=40, prose=24)
    outcome = build(folder, tmp_path / "out")
    pairs = rows(tmp_path / "out", PAIRS)
    assert outcome.counts["pairs"] == len(pairs) >= 1000
    assert all(check.passed for check in outcome.checks)
    assert {row["kind"] for row in pairs} == set(PAIR_KINDS)
    for row in pairs + rows(tmp_path / "out", HELD_OUT_PAIRS):
        assert row["chosen"].strip()
        assert row["rejected"].casefold().split() != row["chosen"].casefold().split()
        assert json.loads(row["messages"])[-1]["role"] == "user"


def test_the_chosen_answer_is_what_the_catalog_says(write_corpus: Any, tmp_path: Path) -> None:
    folder = write_corpus(modules=40, prose=24)
    build(folder, tmp_path / "out")
    catalog = {row["entry_id"]: row for row in rows(folder, CATALOG)}
    for row in rows(tmp_path / "out", PAIRS):
        if row["kind"] in ("sibling_summary", "sibling_section", "rambling"):
            assert row["chosen"] == catalog[row["entry_id"]]["summary"]
        elif row["kind"] == "changed_signature":
            assert row["chosen"] == catalog[row["entry_id"]]["signature"]


def test_pairs_keep_to_their_split_and_name_all_their_documents(write_corpus: Any, tmp_path: Path) -> None:
    folder = write_corpus(modules=40, prose=24)
    build(folder, tmp_path / "out")
    catalog = rows(folder, CATALOG)
    split = {row["entry_id"]: row["split"] for row in catalog}
    documents = {row["summary"]: row["doc_id"] for row in catalog}
    for name, expected in ((PAIRS, "train"), (HELD_OUT_PAIRS, "test")):
        found = rows(tmp_path / "out", name)
        assert {split[row["entry_id"]] for row in found} == {expected}
        for row in found:
            for summary, doc_id in documents.items():
                if summary in row["rejected"]:
                    assert doc_id in row["doc_ids"]


def test_held_out_pairs_are_spread_over_the_kinds(write_corpus: Any, tmp_path: Path) -> None:
    build(write_corpus(modules=40, prose=40), tmp_path / "out", PairSettings(held_out_pairs=140))
    kinds = [row["kind"] for row in rows(tmp_path / "out", HELD_OUT_PAIRS)]
    assert {kinds.count(kind) for kind in PAIR_KINDS} == {20}


def test_the_same_corpus_gives_the_same_pairs_and_a_tiny_one_fails_a_check(write_corpus: Any, tmp_path: Path) -> None:
    folder = write_corpus(modules=3)
    outcomes = [build(folder, tmp_path / name) for name in ("first", "second")]
    for name in (PAIRS, HELD_OUT_PAIRS):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert {check.name: check.passed for check in outcomes[0].checks}["enough_pairs"] is False
