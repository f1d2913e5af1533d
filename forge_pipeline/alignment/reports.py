"""Tables and plots that several stages of this room show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from forge_pipeline.reporting import Plot, Table

SHOWN_CHARACTERS = 200
BINS = 24


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
