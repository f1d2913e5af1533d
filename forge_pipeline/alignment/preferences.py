"""Preference pairs from the corpus's catalog: the true answer, and one that goes wrong in a known way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from forge_pipeline.alignment.catalog import TEST, Entry, usable
from forge_pipeline.alignment.conversations import Problem, compact_json, texts_of
from forge_pipeline.alignment.corruptions import Pair, corrupt
from forge_pipeline.alignment.questions import QuestionMaker, digest
from forge_pipeline.alignment.reports import counts_by_kind, documents_of, enough, histogram, nothing_held_out, shown
from forge_pipeline.alignment.selection import Material, Refusals, Selection
from forge_pipeline.alignment.settings import PairSettings
from forge_pipeline.corpus.tables import write_table
from forge_pipeline.reporting import Outcome, Progress, Table

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
    material = Material.read(training, settings.excerpt_characters, settings.overlap_words, progress)
    refusals = Refusals()
    with progress.task("Writing preference pairs"):
        selection = Selection(material.held_out, refusals)
        pairs = _draw(settings, material.trainable(refusals), selection, settings.maximum_per_kind)
        pairs.sort(key=lambda row: row["pair_id"])
        tested = usable(material.entries, TEST)
        held_out_pairs = _balanced(_draw(settings, tested, Selection(), settings.held_out_pairs), settings)
    write_table(output / PAIRS, PAIR_SCHEMA, pairs)
    write_table(output / HELD_OUT_PAIRS, PAIR_SCHEMA, held_out_pairs)
    return _outcome(settings, material, pairs, held_out_pairs, refusals)


def _draw(settings: PairSettings, pool: list[Entry], selection: Selection, per_kind: int) -> list[dict[str, Any]]:
    """At most ``per_kind`` pairs of each kind, kind after kind, in the order they were drawn."""
    maker = QuestionMaker(pool, settings.seed)
    rows: list[dict[str, Any]] = []
    for kind in settings.kinds:
        pairs = (corrupt(maker, kind, entry) for entry in maker.order(f"pair {kind}"))
        made = ((_row(kind, pair), pair.question.prompt) for pair in pairs if pair)
        rows += islice((row for row, prompt in made if _passes(row, prompt, settings, selection)), per_kind)
    return rows


def _passes(row: dict[str, Any], prompt: str, settings: PairSettings, selection: Selection) -> bool:
    texts = (prompt, row["chosen"], row["rejected"])
    problem: Problem | None = None
    if not all(text.strip() for text in texts):
        problem = "malformed"
    elif len(prompt) + max(len(row["chosen"]), len(row["rejected"])) > settings.maximum_characters:
        problem = "too_long"
    return selection.passes(row["pair_id"], texts, problem)


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
    material: Material,
    pairs: list[dict[str, Any]],
    held_out_pairs: list[dict[str, Any]],
    refusals: Refusals,
) -> Outcome:
    shown_pairs = {row["kind"]: row for row in reversed(pairs)}
    return Outcome(
        counts={
            "entries": len(material.entries),
            "pairs": len(pairs),
            "held_out_pairs": len(held_out_pairs),
            "documents": documents_of(pairs),
            "refused": refusals.total,
        },
        checks=[
            enough("pairs", len(pairs), settings.minimum_pairs),
            nothing_held_out("pair", material.leaks(pairs, _texts)),
        ],
        tables=[
            counts_by_kind("Pairs by kind", {"pairs": pairs, "held-out pairs": held_out_pairs}),
            refusals.table(),
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


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    return (*texts_of(json.loads(row["messages"])), row["chosen"], row["rejected"])
