"""Which artifacts made an artifact: found by walking records back over their inputs, never by guessing the newest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from forge_pipeline.errors import StorageError
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Record
from forge_pipeline.storage.store import CURRENT_FILE

LANDING_FILES = "landing_files"
DOCUMENTS = "documents"
CURATED_DOCUMENTS = "curated_documents"
UNIQUE_DOCUMENTS = "unique_documents"
TRAINING_DOCUMENTS = "training_documents"
TOKENIZER = "tokenizer"
TOKEN_SHARDS = "token_shards"
# In the order of the lineage; the last one made so far is where a corpus's trail begins.
CORPUS_STAGES = (
    LANDING_FILES,
    DOCUMENTS,
    CURATED_DOCUMENTS,
    UNIQUE_DOCUMENTS,
    TRAINING_DOCUMENTS,
    TOKENIZER,
    TOKEN_SHARDS,
)
# The furthest of these that a model has is where its trail begins.
MODEL_STAGES = (
    "base_model",
    "sft_model",
    "aligned_model",
    "agent_model",
    "release_decision",
    "model_package",
    "registered_model",
)
WEIGHTS_CONFIG = "model/config.json"
METRICS_FILE = "metrics.jsonl"

Entry = tuple[ArtifactKey, str]


@dataclass(frozen=True)
class LineageView:
    """The records behind some artifacts, each after all of its inputs. Only a table that is asked for is read."""

    store: ArtifactStore
    records: tuple[Record, ...]

    @classmethod
    def of_entries(cls, store: ArtifactStore, roots: Iterable[Entry]) -> LineageView:
        """Everything that the artifacts ``roots`` (key, fingerprint) were made from, with themselves.

        Raises StorageError if one of them is not in the store.
        """
        found: dict[Entry, Record] = {}
        # An explicit stack: a corpus's chain of batches is deeper than Python's recursion.
        stack: list[tuple[Entry, bool]] = [(entry, False) for entry in reversed(list(roots))]
        visiting: dict[Entry, Record] = {}
        while stack:
            entry, inputs_done = stack.pop()
            if entry in found:
                continue
            if inputs_done:
                found[entry] = visiting[entry]
                continue
            if entry in visiting:
                continue
            visiting[entry] = _record(store, entry)
            stack.append((entry, True))
            stack.extend((source, False) for source in reversed(_inputs(visiting[entry])))
        return cls(store, tuple(found.values()))

    @classmethod
    def of_record(cls, store: ArtifactStore, record: Record) -> LineageView:
        return cls.of_entries(store, [(record.key, record.fingerprint)])

    @classmethod
    def of_model(cls, store: ArtifactStore, model: str) -> LineageView:
        """The lineage of a model's furthest stage. Raises StorageError if no stage of it was made."""
        for stage in reversed(MODEL_STAGES):
            record = store.current(ArtifactKey(model, stage))
            if record is not None:
                return cls.of_record(store, record)
        raise StorageError(
            f"there is no model {model!r} in this store",
            where=str(store.home.artifacts),
            fix=f"run it first, or name one of: {', '.join(model_names(store)) or 'none is there yet'}",
        )

    @classmethod
    def of_corpus(cls, store: ArtifactStore, corpus: str) -> LineageView:
        """The lineage of all that was made from each batch of a corpus so far, and of what only landed."""
        roots: dict[Entry, None] = {}
        for stage in CORPUS_STAGES:
            for batch in [*store.batches(corpus, stage), None]:
                record = store.current(ArtifactKey(corpus, stage, batch))
                if record is not None:
                    roots[(record.key, record.fingerprint)] = None
        if not roots:
            raise StorageError(
                f"there is no corpus {corpus!r} in this store",
                where=str(store.home.artifacts),
                fix="run its first stage, landing_files",
            )
        return cls.of_entries(store, roots)

    # -- which artifacts -----------------------------------------------------------------------------------

    @cached_property
    def by_entry(self) -> Mapping[Entry, Record]:
        return {(record.key, record.fingerprint): record for record in self.records}

    @cached_property
    def _descendants(self) -> Mapping[Entry, tuple[Record, ...]]:
        later: dict[Entry, dict[Entry, Record]] = {entry: {} for entry in self.by_entry}
        # Backwards, so that what was made from an artifact is complete before its inputs are told of it.
        for entry, record in reversed(list(self.by_entry.items())):
            for source in _inputs(record):
                later[source] |= {entry: record, **later[entry]}
        order = {entry: place for place, entry in enumerate(self.by_entry)}
        return {entry: tuple(made[key] for key in sorted(made, key=order.__getitem__)) for entry, made in later.items()}

    def stage(self, name: str) -> list[Record]:
        """The artifacts of one stage, in batch order."""
        return sorted((record for record in self.records if record.key.stage == name), key=lambda r: str(r.key))

    def made_from(self, record: Record) -> Sequence[Record]:
        """The artifacts of this view that ``record`` went into, directly or not, in lineage order."""
        return self._descendants[(record.key, record.fingerprint)]

    def inputs(self, record: Record) -> list[Record]:
        return [self.by_entry[entry] for entry in _inputs(record)]

    def trained_models(self) -> list[Record]:
        """The artifacts of training stages, in lineage order: those with weights and training metrics."""
        return [record for record in self.records if is_trained_model(record)]

    def with_file(self, name: str) -> list[Record]:
        """The artifacts that hold a file of this name, in lineage order."""
        return [record for record in self.records if has_file(record, name)]

    def tables(self, records: Iterable[Record], name: str) -> Iterator[tuple[Record, Path]]:
        """The table ``name`` of each of ``records`` that has it."""
        for record in records:
            if has_file(record, name):
                yield record, self.store.read(record) / name


def has_file(record: Record, name: str) -> bool:
    return any(entry.path == name for entry in record.files)


def is_trained_model(record: Record) -> bool:
    return has_file(record, WEIGHTS_CONFIG) and has_file(record, METRICS_FILE)


def model_names(store: ArtifactStore) -> list[str]:
    """Every owner in the store that has a trained model."""
    return _owners(store, MODEL_STAGES[:4])


def corpus_names(store: ArtifactStore) -> list[str]:
    """Every owner in the store that has landing files or documents."""
    return _owners(store, CORPUS_STAGES[:2])


def _owners(store: ArtifactStore, stages: Sequence[str]) -> list[str]:
    root = store.home.artifacts
    names = {path.relative_to(root).as_posix() for path in root.glob(f"*/*/*/{CURRENT_FILE}")}
    if store.remote is not None:
        names.update(name for name in store.remote.names() if name.endswith(f"/{CURRENT_FILE}"))
    return sorted({name.split("/")[0] for name in names if name.split("/")[1] in stages})


def _inputs(record: Record) -> list[Entry]:
    return [entry for name in sorted(record.inputs) for entry in record.inputs[name]]


def _record(store: ArtifactStore, entry: Entry) -> Record:
    key, fingerprint = entry
    record = store.find(key, fingerprint)
    if record is None:
        raise StorageError(
            f"{key} with fingerprint {fingerprint[:16]} is no longer in the store, so the trail ends here",
            where=str(store.home.artifacts / key.folder),
            fix="restore it from a backup, or run the stage again",
        )
    return record
