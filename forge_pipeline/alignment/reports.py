"""Counts, checks, tables and plots that several stages of this room show."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forge_pipeline.reporting import Check, Plot, Table

SHOWN_CHARACTERS = 200
BINS = 24


def enough(things: str, count: int, minimum: int) -> Check:
    """Whether there are as many ``things`` (examples, pairs) as the recipe asks for."""
    return Check(
        f"enough_{things}",
        count >= minimum,
        f"{count} {things}; at least {minimum} are wanted. "
        "More documents with documented functions or titled sections give more",
        count,
        minimum,
    )


def nothing_held_out(thing: str, leaked: int) -> Check:
    """Whether no row of training data, each a ``thing`` (an example, a pair), gives a held-out entry away."""
    return Check(
        "nothing_held_out_trains",
        leaked == 0,
        f"no {thing} is about a held-out entry or repeats a run of its words",
        leaked,
        0,
    )


def documents_of(rows: Sequence[dict[str, Any]]) -> int:
    """How many documents the rows draw on."""
    return len({doc_id for row in rows for doc_id in row["doc_ids"]})


def counts_by_kind(title: str, groups: Mapping[str, Sequence[dict[str, Any]]]) -> Table:
    """How many rows of each kind a group has; ``groups`` maps the columns' names to rows."""
    counted = {name: Counter(row["kind"] for row in rows) for name, rows in groups.items()}
    kinds = sorted({kind for counts in counted.values() for kind in counts})
    return Table.of(
        title, [{"kind": kind, **{name: counts[kind] for name, counts in counted.items()}} for kind in kinds]
    )


def histogram(title: str, unit: str, values: Sequence[float]) -> Plot:
    """How the values are distributed, in BINS bins of equal width."""
    counts, edges = np.histogram(np.asarray(values, dtype=np.float64), bins=BINS)
    return Plot(title, "histogram", unit, "number", {unit: (edges[:-1].tolist(), counts.astype(float).tolist())})


def samples(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """The first conversation of each kind, as a person reads it."""
    first = {row["kind"]: row for row in reversed(rows)}
    return Table.of(
        title,
        [
            {"kind": kind, "conversation": shown(conversation(json.loads(first[kind]["messages"])))}
            for kind in sorted(first)
        ],
    )


def conversation(messages: Sequence[dict[str, Any]]) -> str:
    lines = []
    for message in messages:
        lines.append(f"{message['role']}: {message.get('content') or ''}")
        for call in message.get("tool_calls") or ():
            lines.append(f"  calls {call['function']['name']}({json.dumps(call['function']['arguments'])})")
    return "\n".join(lines)


def shown(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
