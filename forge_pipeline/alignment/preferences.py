"""Preference pairs from the corpus's catalog: the true answer, and one that goes wrong in a known way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from forge_pipeline.alignment.catalog import TEST, TRAIN, Entry, HeldOut, read_entries, usable
from forge_pipeline.alignment.corruptions import Pair, corrupt
from forge_pipeline.alignment.examples import Refusals, compact_json, texts_of
from forge_pipeline.alignment.questions import QuestionMaker, digest
from forge_pipeline.alignment.reports import histogram, shown
from forge_pipeline.alignment.settings import PairSettings
from forge_pipeline.corpus.tables import write_table
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import Check, Outcome, Progress, Table

CODE_VERSION = "1"

PAIRS = "pairs.parquet"
HELD_OUT_PAIRS = "held_out_pairs.parquet"
PAIR_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("kind", pa.string()),
        ("messages", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("doc_ids", pa.list_(pa.string())),
        ("entry_id", pa.string()),
    ]
)


def build_pairs(settings: PairSettings, training: Sequence[Path], output: Path, progress: Progress) -> Outcome:
    """Write `pairs.parquet` (train entries) and `held_out_pairs.parquet` (test entries), ordered by id.

    A row holds the prompt (``messages``, JSON) and the two answers. The same rules as for examples keep
    held-out entries out of the former. Too few pairs fail a check; SourceError only where there is no batch.
    """
    if not training:
        raise SourceError("no batch of training documents", fix="run the corpus's stages first")
    with progress.task("Reading the catalog"):
        entries = read_entries(training, settings.excerpt_characters)
        held_out = HeldOut(entries, settings.overlap_words)
    refusals = Refusals()
    with progress.task("Writing preference pairs"):
        trainable = usable(entries, TRAIN)
        pool = [entry for entry in trainable if not held_out.holds(entry)]
        refusals.held_out_entries = len(trainable) - len(pool)
        pairs = _draw(settings, pool, held_out, refusals, settings.maximum_per_kind)
        pairs.sort(key=lambda row: row["pair_id"])
        tested = usable(entries, TEST)
        held_out_pairs = _balanced(_draw(settings, tested, None, Refusals(), settings.held_out_pairs), settings)
    write_table(output / PAIRS, PAIR_SCHEMA, pairs)
    write_table(output / HELD_OUT_PAIRS, PAIR_SCHEMA, held_out_pairs)
    return _outcome(settings, entries, pairs, held_out_pairs, refusals, held_out)


def _draw(
    settings: PairSettings, pool: list[Entry], held_out: HeldOut | None, refusals: Refusals, per_kind: int
) -> list[dict[str, Any]]:
    """At most ``per_kind`` pairs of each kind, kind after kind, in the order they were drawn."""
    maker = QuestionMaker(pool, settings.seed)
    rows: dict[str, dict[str, Any]] = {}
    for kind in settings.kinds:
        taken = 0
        for entry in maker.order(f"pair {kind}"):
            if taken == per_kind:
                break
            pair = corrupt(maker, kind, entry)
            if pair is None:
                continue
            row = _row(kind, pair)
            if _passes(row, pair.question.prompt, settings, held_out, refusals, rows):
                rows[row["pair_id"]] = row
                taken += 1
    return list(rows.values())


def _passes(
    row: dict[str, Any],
    prompt: str,
    settings: PairSettings,
    held_out: HeldOut | None,
    refusals: Refusals,
    seen: dict[str, dict[str, Any]],
) -> bool:
    texts = (prompt, row["chosen"], row["rejected"])
    if not all(text.strip() for text in texts):
        refusals.malformed += 1
    elif len(prompt) + max(len(row["chosen"]), len(row["rejected"])) > settings.maximum_characters:
        refusals.too_long += 1
    elif row["pair_id"] in seen:
        refusals.duplicate += 1
    elif held_out is not None and held_out.overlaps(texts):
        refusals.overlapping += 1
    else:
        return True
    return False


def _row(kind: str, pair: Pair) -> dict[str, Any]:
    question = pair.question
    messages = compact_json([{"role": "user", "content": question.prompt}])
    return {
        "pair_id": digest(kind, messages, question.answer, pair.rejected)[:32],
        "kind": kind,
        "messages": messages,
        "chosen": question.answer,
        "rejected": pair.rejected,
        "doc_ids": list(dict.fromkeys(entry.doc_id for entry in pair.sources)),
        "entry_id": question.entry.entry_id,
    }


def _balanced(rows: list[dict[str, Any]], settings: PairSettings) -> list[dict[str, Any]]:
    """As many pairs of each kind as of the others, where there are enough, ordered by id."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    ranked = sorted((rank, place, row) for place, part in enumerate(by_kind.values()) for rank, row in enumerate(part))
    return sorted((row for _, _, row in ranked[: settings.held_out_pairs]), key=lambda row: row["pair_id"])


def _outcome(
    settings: PairSettings,
    entries: list[Entry],
    pairs: list[dict[str, Any]],
    held_out_pairs: list[dict[str, Any]],
    refusals: Refusals,
    held_out: HeldOut,
) -> Outcome:
    train_ids = {entry.entry_id for entry in entries if entry.split == TRAIN}
    leaked = sum(
        row["entry_id"] not in train_ids
        or held_out.overlaps((*texts_of(json.loads(row["messages"])), row["chosen"], row["rejected"]))
        for row in pairs
    )
    kinds, tested = Counter(row["kind"] for row in pairs), Counter(row["kind"] for row in held_out_pairs)
    shown_pairs = {row["kind"]: row for row in reversed(pairs)}
    return Outcome(
        counts={
            "entries": len(entries),
            "pairs": len(pairs),
            "held_out_pairs": len(held_out_pairs),
            "documents": len({doc_id for row in pairs for doc_id in row["doc_ids"]}),
            "refused": sum(vars(refusals).values()),
        },
        checks=[
            Check(
                "enough_pairs",
                len(pairs) >= settings.minimum_pairs,
                f"{len(pairs)} pairs; at least {settings.minimum_pairs} are wanted. "
                "More documents with documented functions or titled sections give more",
                len(pairs),
                settings.minimum_pairs,
            ),
            Check(
                "nothing_held_out_trains",
                leaked == 0,
                "no pair is about a held-out entry or repeats a run of its words",
                leaked,
                0,
            ),
        ],
        tables=[
            Table.of(
                "Pairs by kind",
                [
                    {"kind": kind, "pairs": kinds[kind], "held-out pairs": tested[kind]}
                    for kind in sorted(kinds | tested)
                ],
            ),
            Table.of(
                "Refused",
                [{"reason": name.replace("_", " "), "refused": count} for name, count in vars(refusals).items()],
            ),
            Table.of(
                "Pairs",
                [
                    {"kind": kind, **{name: shown(row[name]) for name in ("messages", "chosen", "rejected")}}
                    for kind, row in sorted(shown_pairs.items())
                ],
            ),
        ],
        plots=[
            histogram(
                "Chosen longer than rejected by", "characters", [len(r["chosen"]) - len(r["rejected"]) for r in pairs]
            )
        ],
    )
