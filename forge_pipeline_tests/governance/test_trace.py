"""Lineage questions have the answers that were worked out by hand for a small lineage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forge_pipeline.errors import SourceError, StorageError
from forge_pipeline.governance.explain import why
from forge_pipeline.governance.facts import facts_of_model
from forge_pipeline.governance.lineage_view import LineageView, corpus_names, model_names
from forge_pipeline.governance.trace import Reach, documents_of_model, models_of_document
from forge_pipeline.reporting import Outcome
from forge_pipeline.storage import ArtifactKey
from forge_pipeline.storage.store import Origin
from forge_pipeline_tests.governance.conftest import HOSTILE, doc_id


@pytest.fixture
def view(lineage: Any) -> LineageView:
    return LineageView.of_entries(
        lineage.store, [(lineage[name].key, lineage[name].fingerprint) for name in ("sft", "sft_evaluation")]
    )


def test_documents_of_a_model_are_those_it_was_trained_on(view: LineageView) -> None:
    rows = documents_of_model(view).to_pylist()
    told = [
        (row["path"], row["tokens"], row["tokens_seen"], row["first_step"], row["last_step"], row["epochs"])
        for row in rows
    ]
    assert told == [("a.py", 100, 300, 1, 5, 3), ("b.py", 40, 40, 2, 2, 1), (HOSTILE, 20, 20, 3, 3, 1)]
    assert [row["examples"] for row in rows] == [2, 1, 0]
    assert {row["licence"] for row in rows} == {"PSF-2.0"}


def test_a_limit_keeps_the_documents_seen_most(view: LineageView) -> None:
    assert documents_of_model(view, limit=1)["path"].to_pylist() == ["a.py"]


def test_the_base_model_owes_nothing_to_later_examples(lineage: Any) -> None:
    rows = documents_of_model(LineageView.of_record(lineage.store, lineage["base"])).to_pylist()
    assert [(row["path"], row["examples"]) for row in rows] == [("a.py", 0), ("b.py", 0), (HOSTILE, 0)]


def reached(view: LineageView, document: str) -> list[tuple[Any, ...]]:
    def short(reach: Reach) -> tuple[Any, ...]:
        return reach.stage, reach.via, reach.item, reach.use, reach.relation, reach.trained

    return [short(reach) for reach in models_of_document([view], document)]


BASE, SFT = "assistant/base_model", "assistant/sft_model"


def test_a_document_reached_every_model_that_starts_from_weights_it_trained(view: LineageView) -> None:
    assert reached(view, doc_id("b.py")) == [
        ("base_model", "tokens", None, "training", "itself", (BASE, SFT)),
        ("sft_examples", "example", "ex2", "training", "itself", (SFT,)),
    ]


def test_a_dropped_duplicate_reached_models_through_the_document_kept_for_it(view: LineageView) -> None:
    for path, kind in (("copy_of_a.py", "exact"), ("near_a.py", "near")):
        found = reached(view, path)
        assert [(row[1], row[2], row[4]) for row in found] == [
            ("tokens", None, kind),
            ("example", "ex1", kind),
            ("example", "ex2", kind),
        ]


def test_a_held_out_document_only_measured(view: LineageView) -> None:
    assert reached(view, "held.py") == [("sft_examples", "question", "q1", "test", "itself", ())]


@pytest.mark.parametrize("path", ["unread.py", "short.txt", "leak.md", "broken.pdf", "no such file"])
def test_what_never_reached_a_model_has_no_answer(view: LineageView, path: str) -> None:
    assert reached(view, path) == []


def told(view: LineageView, subject: str) -> list[tuple[str, str, str]]:
    return [(event.stage, event.action, event.rule) for event in why(view, subject).events]


def test_a_dropped_document_says_by_which_rule_and_by_how_much(view: LineageView) -> None:
    events = why(view, "short.txt").events
    assert [(event.action, event.rule) for event in events] == [
        ("landed", ""),
        ("extracted", "text"),
        ("drop", "quality: too_short"),
    ]
    assert (events[-1].value, events[-1].threshold, events[-1].batch) == (3.0, 50.0, "0001")


def test_a_file_that_could_not_be_read_says_why(view: LineageView) -> None:
    for subject in ("broken.pdf", "/data/broken.pdf"):
        event = why(view, subject).events[-1]
        assert (event.action, event.detail) == ("quarantined", "no <b>pages</b>")


def test_a_duplicate_names_the_document_seen_first(view: LineageView) -> None:
    event = why(view, doc_id("near_a.py")).events[-1]
    assert event.action == "duplicate"
    assert event.value == pytest.approx(0.9)
    assert doc_id("a.py") in event.detail
    assert "(a.py)" in event.detail


def test_decontamination_is_told_with_its_stage(view: LineageView) -> None:
    assert told(view, "leak.md")[-1] == ("training_documents", "drop", "decontamination: held_out_overlap")


def test_a_kept_document_is_followed_to_the_steps_that_saw_it(view: LineageView) -> None:
    assert told(view, "/data/a.py") == [
        ("landing_files", "landed", ""),
        ("documents", "extracted", "text"),
        ("curated_documents", "redact", "sensitive: email"),
        ("curated_documents", "kept", ""),
        ("unique_documents", "kept", "unique"),
        ("training_documents", "split", "train"),
        ("token_shards", "tokenised", ""),
        ("base_model", "trained", ""),
        ("sft_examples", "used", "training"),
    ]
    trained = why(view, "a.py").events[-2]
    assert trained.detail == "300 tokens seen in steps 1 to 5, in 3 epochs"


def test_an_unknown_subject_is_an_error_that_says_what_to_give(view: LineageView) -> None:
    with pytest.raises(SourceError, match=r"no document or file here is 'nothing\.py'"):
        why(view, "nothing.py")


def test_a_corpus_explains_itself_before_any_model_is_trained(lineage: Any) -> None:
    assert told(LineageView.of_corpus(lineage.store, "docs"), "unread.py")[-1][:2] == ("token_shards", "tokenised")


def test_a_view_follows_records_and_not_what_is_newest(new_lineage: Callable[[], Any]) -> None:
    lineage = new_lineage()
    before = documents_of_model(LineageView.of_model(lineage.store, "assistant"))
    # A newer landing of the same batch, which nothing was made from yet.
    key = ArtifactKey("docs", "landing_files", "0001")
    newest = lineage.store.begin(key, "f" * 64)
    (newest / "files.parquet").write_bytes(b"not even a table")
    lineage.store.seal(key, "f" * 64, newest, Origin("2", {}, {}, "now", 0.0, {}), Outcome())
    view = LineageView.of_model(lineage.store, "assistant")
    assert documents_of_model(view) == before
    assert why(view, "a.py").events[0].action == "landed"


def test_a_missing_link_is_named(new_lineage: Callable[[], Any]) -> None:
    lineage = new_lineage()
    folder = lineage.store.read(lineage["one"])
    folder.rename(folder.with_name("moved"))
    with pytest.raises(StorageError, match=r"docs/training_documents\[0001\].*no longer in the store"):
        LineageView.of_record(lineage.store, lineage["sft"])


def test_an_unknown_model_is_an_error_that_names_the_known_ones(lineage: Any) -> None:
    assert model_names(lineage.store) == ["assistant"]
    assert corpus_names(lineage.store) == ["docs"]
    with pytest.raises(StorageError, match="name one of: assistant"):
        LineageView.of_model(lineage.store, "asistant")


def test_facts_count_what_the_tables_hold(view: LineageView) -> None:
    facts = facts_of_model(view, "assistant")
    assert (facts.corpus, facts.batches, facts.documents) == ("docs", 2, 5)
    assert (facts.training_tokens, facts.tokens_seen) == (100 + 20 + 7 + 40, 360)
    (source,) = facts.sources
    assert (source.landed, source.documents, source.licence, source.owner) == (10, 5, "PSF-2.0", "PSF")
    assert [stage.stage for stage in facts.stages] == ["base_model", "sft_model"]
    assert facts.stages[0].parameters == {"engine.steps": 3, "engine.optimizer.kind": "muon"}
