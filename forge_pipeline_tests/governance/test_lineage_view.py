"""Views walk long chains of batches, and large tables do not make questions slow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from forge_pipeline.corpus import tables as corpus
from forge_pipeline.governance.explain import why
from forge_pipeline.governance.lineage_view import LineageView
from forge_pipeline.governance.trace import documents_of_model, models_of_document
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Home, fingerprint_of
from forge_pipeline.storage.store import FOLDER_DIGITS
from forge_pipeline.tokens.order import EXPOSURE_SCHEMA
from forge_pipeline_tests.governance.conftest import Sealer, model_files


@pytest.fixture
def seal(tmp_path: Path) -> Sealer:
    return Sealer(ArtifactStore(Home(tmp_path)))


def test_a_chain_deeper_than_the_recursion_limit_is_walked_inputs_first(seal: Sealer) -> None:
    record = seal(ArtifactKey("docs", "unique_documents", "0000"))
    # Written as the store writes them, without its thousands of flushes to the disk.
    for batch in range(1, 1200):
        before = ((record.key, record.fingerprint),)
        key = ArtifactKey("docs", "unique_documents", f"{batch:04}")
        record = replace(record, key=key, fingerprint=f"{batch:064}", inputs={"earlier": before})
        folder = seal.store.home.artifacts / key.folder / record.fingerprint[:FOLDER_DIGITS]
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(record.to_json())
    view = LineageView.of_record(seal.store, record)
    assert [entry.key.batch for entry in view.records] == [f"{batch:04}" for batch in range(1200)]


def test_an_artifact_with_two_ways_to_it_appears_once_and_before_both(seal: Sealer) -> None:
    landing = seal(ArtifactKey("docs", "landing_files", "1"))
    left = seal(ArtifactKey("docs", "documents", "1"), [landing])
    right = seal(ArtifactKey("docs", "curated_documents", "1"), [left, landing])
    view = LineageView.of_record(seal.store, seal(ArtifactKey("m", "base_model"), [right, left], model_files([1.0])))
    assert [record.key.stage for record in view.records] == [
        *("landing_files", "documents", "curated_documents", "base_model")
    ]
    assert [record.key.stage for record in view.made_from(left)] == ["curated_documents", "base_model"]


def test_a_hundred_thousand_documents_are_traced_completely(seal: Sealer) -> None:
    number = 100_000
    ids = pa.array([fingerprint_of(place)[:32] for place in range(number)])
    paths = pa.array([f"folder/{place}.py" for place in range(number)])

    def filled(schema: pa.Schema, **columns: Any) -> pa.Table:
        blank = {field.name: pa.nulls(number, field.type) for field in schema}
        return pa.table({name: columns.get(name, blank[name]) for name in schema.names}, schema=schema)

    facts = {"doc_id": ids, "path": paths, "part": pa.array([""] * number), "source": pa.array(["lib"] * number)}
    facts["bytes"] = pa.array(range(number))
    read = seal(
        ArtifactKey("docs", "documents", "1"), [], {"documents.parquet": filled(corpus.DOCUMENT_SCHEMA, **facts)}
    )
    split = pa.array(["train"] * number)
    training = seal(
        ArtifactKey("docs", "training_documents", "1"),
        [read],
        {"documents.parquet": filled(corpus.TRAINING_SCHEMA, **facts, split=split)},
    )
    tokens = pa.array(range(1, number + 1))
    steps = pa.array([1] * number)
    exposure = filled(EXPOSURE_SCHEMA, doc_id=ids, tokens=tokens, first_step=steps, last_step=steps, epochs=steps)
    model = seal(ArtifactKey("m", "base_model"), [training], model_files([1.0], exposure=exposure))
    view = LineageView.of_record(seal.store, model)
    found = documents_of_model(view)
    assert found["tokens_seen"].to_pylist() == list(range(number, 0, -1))
    assert found["path"][0].as_py() == f"folder/{number - 1}.py"
    (reach,) = models_of_document([view], "folder/7.py")
    assert reach.tokens == 8
    assert [event.action for event in why(view, ids[7].as_py()).events] == ["extracted", "split", "trained"]
