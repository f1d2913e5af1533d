"""How the stages of a corpus show what they did: tables and histograms for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forge_pipeline.reporting import Plot, Table

ROWS = 20


def count_table(title: str, column: str, counts: Mapping[str, int], unit: str = "documents") -> Table:
    """Counts by name, the largest first; beyond some 20 rows, the rest is summed up in one."""
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    rows: list[tuple[str, int]] = ordered[:ROWS]
    if len(ordered) > ROWS:
        rows.append((f"{len(ordered) - ROWS} others", sum(count for _, count in ordered[ROWS:])))
    return Table(title, (column, unit), tuple(rows))


def length_histogram(title: str, lengths: Sequence[int]) -> Plot:
    """How many documents have which length: bins at powers of two characters."""
    edges = [0, *(2**power for power in range(6, 25))]
    counts, _ = np.histogram(np.minimum(lengths, edges[-1]), bins=[*edges, edges[-1] + 1])
    shown = list(zip(edges, counts.tolist(), strict=True))
    while shown and shown[-1][1] == 0:
        shown.pop()
    return Plot(
        title,
        "histogram",
        "characters (from)",
        "documents",
        {"documents": ([edge for edge, _ in shown], [float(count) for _, count in shown])},
    )


def bar_plot(title: str, label: str, counts: Mapping[str, int], unit: str = "documents") -> Plot:
    """The largest counts as bars."""
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:ROWS]
    return Plot(title, "bar", label, unit, {unit: ([name for name, _ in ordered], [float(n) for _, n in ordered])})


def share_histogram(title: str, label: str, values: Sequence[float], bins: int = 20) -> Plot:
    """How many values lie in each of ``bins`` equal parts of 0..1."""
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    return Plot(
        title,
        "histogram",
        label,
        "documents",
        {"documents": ([round(float(edge), 4) for edge in edges[:-1]], [float(count) for count in counts])},
    )


def prefixed(prefix: str, counts: Counter[str]) -> dict[str, Any]:
    """Counts under stable names: ``prefix`` and the name, sorted."""
    return {f"{prefix}{name}": counts[name] for name in sorted(counts)}
