"""A small lineage with two batches and three trained stages, sealed through the real store.

What is true of it was worked out by hand:

- batch 1 lands a.py, copy_of_a.py (exact duplicate), near_a.py (near duplicate), broken.pdf (quarantine),
  short.txt (dropped by curation), held.py (test split), and one file with markup in its name;
- batch 2 lands b.py, and leak.md, which decontamination drops;
- pre-training sees a (300 tokens, steps 1 to 5, 3 epochs), b (40, step 2) and the marked-up one (20, step 3), and
  never the last one, unread.py, although it is in the training split;
- two examples (one of a, one of a and b) train the SFT model; one question of held.py only measures it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forge_pipeline.corpus import tables as corpus
from forge_pipeline.evaluation.results import RESULT_SCHEMA
from forge_pipeline.release.decision import StageCost, decide_release
from forge_pipeline.release.settings import ReleaseSettings, Threshold
from forge_pipeline.reporting import Check, Outcome, Plot, SilentProgress, Table
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Home, Record, fingerprint_of
from forge_pipeline.storage.store import Origin
from forge_pipeline.tokens.order import EXPOSURE_SCHEMA
from forge_pipeline.tokens.shards import INDEX_SCHEMA

Rows = Sequence[Mapping[str, Any]]
HOSTILE = "<script>alert('x')</script> & \"quoted\".md"
ITEMS = pa.schema([("example_id", pa.string()), ("doc_ids", pa.list_(pa.string()))])
QUESTIONS = pa.schema([("question_id", pa.string()), ("entry_id", pa.string())])


def doc_id(name: str) -> str:
    return fingerprint_of(name)[:32]


def table(schema: pa.Schema, rows: Rows) -> pa.Table:
    """Rows with every missing column empty or null."""
    blank = {field.name: "" if field.type == pa.string() else None for field in schema}
    return pa.Table.from_pylist([{**blank, **row} for row in rows], schema=schema)


def document(path: str, **more: Any) -> dict[str, Any]:
    facts = {"doc_id": doc_id(path), "path": path, "source": "lib", "format": "text", "text": f"text of {path}"}
    facts |= {"bytes": 100, "split_group": f"group {path}", "title": path, "licence": "PSF-2.0", "file_sha256": "ab"}
    return {**facts, "language": "en", "language_confidence": 0.5, "split": "train", "cluster_id": doc_id(path), **more}


@dataclass
class Sealer:
    """Seals synthetic artifacts: `seal(key, inputs, files, ...)`."""

    store: ArtifactStore

    def __call__(
        self,
        key: ArtifactKey,
        inputs: Sequence[Record] = (),
        files: Mapping[str, pa.Table | str] | None = None,
        *,
        outcome: Outcome | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Record:
        sources = {"inputs": tuple((record.key, record.fingerprint) for record in inputs)}
        fingerprint = fingerprint_of([str(key), [record.fingerprint for record in inputs], parameters])
        output = self.store.begin(key, fingerprint)
        for name, content in (files or {}).items():
            path = output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            else:
                pq.write_table(content, path)
        origin = Origin("1", parameters or {}, sources, "2026-11-22T12:00:00+00:00", 1.5, {"pyarrow": "25.0.1"})
        return self.store.seal(key, fingerprint, output, origin, outcome or Outcome())


def results(metric: str, value: float) -> pa.Table:
    row = {"metric": metric, "value": value, "low": value - 0.1, "high": value + 0.1, "n": 200, "unit": "questions"}
    return table(RESULT_SCHEMA, [row, {**row, "detail": "of one kind", "value": 0.0}])


@dataclass
class Lineage:
    store: ArtifactStore
    records: dict[str, Record]

    def __getitem__(self, name: str) -> Record:
        return self.records[name]


def seal_batch(
    seal: Sealer, batch: str, earlier: Sequence[Record], rows: Mapping[str, tuple[pa.Schema, Rows]]
) -> list[Record]:
    """The corpus stages of one batch, each from the one before; `unique_documents` also from ``earlier``."""
    stages = {
        "landing_files": ("files.parquet",),
        "documents": ("documents.parquet", "quarantine.parquet"),
        "curated_documents": ("documents.parquet", "decisions.parquet"),
        "unique_documents": ("membership.parquet",),
        "training_documents": ("documents.parquet", "decisions.parquet", "catalog.parquet"),
    }
    made: list[Record] = []
    for stage, names in stages.items():
        files: dict[str, pa.Table | str] = {name: table(*rows[f"{stage}/{name}"]) for name in names}
        inputs = made[-1:] + (list(earlier) if stage == "unique_documents" else [])
        made.append(seal(ArtifactKey("docs", stage, batch), inputs, files))
    return made


def landing(*paths: str) -> tuple[pa.Schema, Rows]:
    facts = {"source": "lib", "bytes": 100, "modified_ns": 1, "sha256": "ab", "licence": "PSF-2.0", "owner": "PSF"}
    return corpus.LANDING_SCHEMA, [{**facts, "path": path, "location": f"/data/{path}"} for path in paths]


def member(path: str, kind: str = "unique", first: str | None = None) -> dict[str, Any]:
    other = None if first is None else doc_id(first)
    similarity = 0.9 if kind == "near" else None
    facts = {"doc_id": doc_id(path), "path": path, "kind": kind, "kept": first is None, "similarity": similarity}
    return {**facts, "cluster_id": other or doc_id(path), "matched_doc_id": other}


def decision(path: str, step: str, rule: str, action: str, detail: str = "") -> dict[str, Any]:
    return {"doc_id": doc_id(path), "path": path, "step": step, "rule": rule, "action": action, "detail": detail}


def first_batch() -> dict[str, tuple[pa.Schema, Rows]]:
    copies = ("copy_of_a.py", "near_a.py")
    read = ("a.py", *copies, "short.txt", "held.py", HOSTILE, "unread.py")
    kept = ("a.py", "held.py", HOSTILE, "unread.py")
    training = [document(path, split="test" if path == "held.py" else "train") for path in kept]
    training[2]["title"] = "<img src=x onerror=alert(1)>"
    quarantined = {"source": "lib", "path": "broken.pdf", "format": "pdf", "bytes": 9, "reason": "no <b>pages</b>"}
    entry = {"entry_id": "entry of held", "name": "held", "doc_id": doc_id("held.py"), "split": "test"}
    return {
        "landing_files/files.parquet": landing(*read, "broken.pdf"),
        "documents/documents.parquet": (corpus.DOCUMENT_SCHEMA, [document_row(path) for path in read]),
        "documents/quarantine.parquet": (corpus.QUARANTINE_SCHEMA, [quarantined]),
        "curated_documents/documents.parquet": (
            corpus.CURATED_SCHEMA,
            [document_row(path, corpus.CURATED_SCHEMA) for path in read if path != "short.txt"],
        ),
        "curated_documents/decisions.parquet": (
            corpus.DECISION_SCHEMA,
            [
                decision("a.py", "sensitive", "email", "redact", "2 addresses"),
                decision("short.txt", "quality", "too_short", "drop") | {"value": 3.0, "threshold": 50.0},
            ],
        ),
        "unique_documents/membership.parquet": (
            corpus.MEMBERSHIP_SCHEMA,
            [*map(member, kept), member("copy_of_a.py", "exact", "a.py"), member("near_a.py", "near", "a.py")],
        ),
        "training_documents/documents.parquet": (corpus.TRAINING_SCHEMA, training),
        "training_documents/decisions.parquet": (corpus.DECISION_SCHEMA, []),
        "training_documents/catalog.parquet": (corpus.CATALOG_SCHEMA, [entry]),
    }


def second_batch() -> dict[str, tuple[pa.Schema, Rows]]:
    leak = decision("leak.md", "decontamination", "held_out_overlap", "drop", "13 words of entry of held")
    return {
        "landing_files/files.parquet": landing("b.py", "leak.md"),
        "documents/documents.parquet": (corpus.DOCUMENT_SCHEMA, [document_row("b.py"), document_row("leak.md")]),
        "documents/quarantine.parquet": (corpus.QUARANTINE_SCHEMA, []),
        "curated_documents/documents.parquet": (
            corpus.CURATED_SCHEMA,
            [document_row(path, corpus.CURATED_SCHEMA) for path in ("b.py", "leak.md")],
        ),
        "curated_documents/decisions.parquet": (corpus.DECISION_SCHEMA, []),
        "unique_documents/membership.parquet": (corpus.MEMBERSHIP_SCHEMA, [member("b.py"), member("leak.md")]),
        "training_documents/documents.parquet": (corpus.TRAINING_SCHEMA, [document("b.py")]),
        "training_documents/decisions.parquet": (corpus.DECISION_SCHEMA, [leak]),
        "training_documents/catalog.parquet": (corpus.CATALOG_SCHEMA, []),
    }


def document_row(path: str, schema: pa.Schema = corpus.DOCUMENT_SCHEMA) -> dict[str, Any]:
    row = document(path)
    return {name: row[name] for name in schema.names if name in row}


def token_index(*lengths: tuple[str, int, str]) -> dict[str, pa.Table | str]:
    rows = [
        {"doc_id": doc_id(path), "split": split, "source": "lib", "format": "text", "language": "en"}
        | {"shard": 0, "offset": 10 * place, "length": length, "bytes": 4 * length}
        for place, (path, length, split) in enumerate(lengths)
    ]
    return {"index.parquet": table(INDEX_SCHEMA, rows)}


def model_files(losses: Sequence[float], **tables: pa.Table) -> dict[str, pa.Table | str]:
    lines = "".join(json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in enumerate(losses, 1))
    return {"model/config.json": "{}", "metrics.jsonl": lines, **{f"{k}.parquet": v for k, v in tables.items()}}


def seal_decision(seal: Sealer, evaluations: Mapping[str, Record]) -> Record:
    """The real release gate over the synthetic evaluations, which it passes."""
    settings = ReleaseSettings(
        registered_model="assistant", thresholds=(Threshold(metric="accuracy", at_least=0.5, judged_by="interval"),)
    )
    with tempfile.TemporaryDirectory() as made:
        outcome = decide_release(
            settings,
            {stage: seal.store.read(record) for stage, record in evaluations.items()},
            {stage: StageCost(seconds=60.0, flops=1e12) for stage in evaluations},
            Path(made),
            SilentProgress(),
        )
        files: dict[str, pa.Table | str] = {"decision.json": (Path(made) / "decision.json").read_text()}
        files["evaluations.parquet"] = pq.read_table(Path(made) / "evaluations.parquet")
    return seal(ArtifactKey("assistant", "release_decision"), list(evaluations.values()), files, outcome=outcome)


EXPOSURE = [("a.py", 1, 5, 300, 3), ("b.py", 2, 2, 40, 1), (HOSTILE, 3, 3, 20, 1), ("unread.py", None, None, 0, 0)]


def build_lineage(store: ArtifactStore) -> Lineage:
    seal = Sealer(store)
    one = seal_batch(seal, "0001", [], first_batch())
    two = seal_batch(seal, "0002", [one[3]], second_batch())
    tokenizer = seal(ArtifactKey("docs", "tokenizer"), [one[4]])
    lengths = [("a.py", 100, "train"), ("held.py", 30, "test"), (HOSTILE, 20, "train"), ("unread.py", 7, "train")]
    shards = [
        seal(ArtifactKey("docs", "token_shards", "0001"), [one[4], tokenizer], token_index(*lengths)),
        seal(ArtifactKey("docs", "token_shards", "0002"), [two[4], tokenizer], token_index(("b.py", 40, "train"))),
    ]
    exposed = [
        {"doc_id": doc_id(path), "first_step": first, "last_step": last, "tokens": tokens, "epochs": epochs}
        for path, first, last, tokens, epochs in EXPOSURE
    ]
    base_report = Outcome(
        counts={"parameters": 1234, "final_loss": 2.5},
        checks=[Check("loss_falls", True, "the loss is lower at the end", 2.5, 8.0)],
        plots=[Plot("Loss $x_{", "line", "step", "nats", {"train": ([1, 2, 3], [8.0, 4.0, 2.5])})],
    )
    base = seal(
        ArtifactKey("assistant", "base_model"),
        [*shards, tokenizer],
        model_files([8.0, 4.0, 2.5], exposure=table(EXPOSURE_SCHEMA, exposed)),
        outcome=base_report,
        parameters={"engine": {"steps": 3, "optimizer": {"kind": "muon"}}},
    )
    items = [
        {"example_id": "ex1", "doc_ids": [doc_id("a.py")]},
        {"example_id": "ex2", "doc_ids": [doc_id("a.py"), doc_id("b.py")]},
    ]
    questions = table(QUESTIONS, [{"question_id": "q1", "entry_id": "entry of held"}])
    examples = seal(
        ArtifactKey("assistant", "sft_examples"),
        [one[4], two[4]],
        {"examples.parquet": pa.Table.from_pylist(items, schema=ITEMS), "questions.parquet": questions},
    )
    sft = seal(ArtifactKey("assistant", "sft_model"), [base, examples], model_files([2.0, 1.0]))
    base_evaluation = seal(
        ArtifactKey("assistant", "base_evaluation"), [base, examples], {"results.parquet": results("accuracy", 0.2)}
    )
    sft_evaluation = seal(
        ArtifactKey("assistant", "sft_evaluation"), [sft, examples], {"results.parquet": results("accuracy", 0.7)}
    )
    reward = Outcome(
        checks=[Check("silence_scores_nothing", True, "an agent that says nothing gets no reward", 0.0, 0.05)],
        tables=[Table.of("Degenerate policies", [{"policy": "silent", "mean reward": 0.0}])],
    )
    audited = seal(ArtifactKey("assistant", "reward_audit"), [one[4]], {"audit.json": "{}"}, outcome=reward)
    decision = seal_decision(seal, {"base_model": base_evaluation, "sft_model": sft_evaluation})
    names = ("one", "two", "base", "examples", "sft", "base_evaluation", "sft_evaluation", "reward_audit", "decision")
    made = (one[4], two[4], base, examples, sft, base_evaluation, sft_evaluation, audited, decision)
    return Lineage(store, dict(zip(names, made, strict=True)))


@pytest.fixture(scope="session")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    """Shared and read-only: what alters artifacts makes its own with `new_lineage`."""
    return build_lineage(ArtifactStore(Home(tmp_path_factory.mktemp("home with [brackets] and spaces"))))


@pytest.fixture
def new_lineage(tmp_path: Path) -> Callable[[], Lineage]:
    return lambda: build_lineage(ArtifactStore(Home(tmp_path / "home")))
