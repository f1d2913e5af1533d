"""How well the tokenizer fits each language and format: bytes per token, tokens per word."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from forge_pipeline.reporting import Outcome, Plot, Progress, Table
from forge_pipeline.reporting.outcome import Scalar
from forge_pipeline.tokens.documents import Columns, choose, document_batches, total_bytes
from forge_pipeline.tokens.encoding import DocumentEncoder, drawn
from forge_pipeline.tokens.settings import TokenizerSettings

FERTILITY = "fertility.parquet"
_FERTILITY_FIELDS: list[tuple[str, pa.DataType]] = [
    ("language", pa.string()),
    ("format", pa.string()),
    ("split", pa.string()),
    ("documents", pa.int64()),
    ("bytes", pa.int64()),
    # Separated by white space: in scripts that write none, a "word" is a whole clause.
    ("words", pa.int64()),
    ("tokens", pa.int64()),
    ("bytes_per_token", pa.float64()),
    ("tokens_per_word", pa.float64()),
]
FERTILITY_SCHEMA = pa.schema(_FERTILITY_FIELDS)
_ROWS_SHOWN = 30
_BARS_SHOWN = 12
Group = tuple[str, str, str]


def measure_fertility(
    settings: TokenizerSettings, training: Sequence[Path], tokenizer_folder: Path, output: Path, progress: Progress
) -> Outcome:
    """Encode a sample of ``training`` and write `fertility.parquet`, a row for each language, format and split."""
    available = total_bytes(training)
    fraction = min(1.0, settings.fertility_bytes / max(available, 1))
    encoder = DocumentEncoder(tokenizer_folder)
    groups: dict[Group, Counter[str]] = defaultdict(Counter)
    with progress.task("measuring the tokenizer", available * fraction, "bytes") as task:
        for part in training:
            for rows in document_batches(part, ["doc_id", "split", "language", "format", "text", "bytes"]):
                sample = choose(rows, drawn(rows["doc_id"], fraction).tolist())
                _count(groups, sample, encoder)
                task.advance(sum(sample["bytes"]))
    table = _rows(groups)
    pq.write_table(pa.Table.from_pylist(table, FERTILITY_SCHEMA), output / FERTILITY, compression="zstd")
    return _outcome(groups)


def _count(groups: dict[Group, Counter[str]], sample: Columns, encoder: DocumentEncoder) -> None:
    lengths = encoder.encode(sample["text"]).lengths.tolist()
    names = zip(*(sample[column] for column in ("language", "format", "split")), strict=True)
    for group, size, text, tokens in zip(names, sample["bytes"], sample["text"], lengths, strict=True):
        groups[group].update(documents=1, bytes=size, words=len(text.split()), tokens=tokens)


def _rows(groups: dict[Group, Counter[str]]) -> list[dict[str, Scalar]]:
    def key(group: Group) -> tuple[str, ...]:
        return tuple(name or "" for name in group)

    return [
        {"language": group[0], "format": group[1], "split": group[2], **_figures(groups[group])}
        for group in sorted(groups, key=key)
    ]


def _figures(counts: Counter[str]) -> dict[str, Scalar]:
    return {
        **{name: counts[name] for name in ("documents", "bytes", "words", "tokens")},
        "bytes_per_token": counts["bytes"] / counts["tokens"] if counts["tokens"] else None,
        "tokens_per_word": counts["tokens"] / counts["words"] if counts["words"] else None,
    }


def _outcome(groups: dict[Group, Counter[str]]) -> Outcome:
    merged: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    for (language, kind, split), counts in groups.items():
        merged[language or "", kind or ""].update(counts)
        by_split["train" if split == "train" else "held_out"].update(counts)
    largest = sorted(merged, key=lambda group: (-merged[group]["bytes"], group))
    rows = [
        {
            "language": language,
            "format": kind,
            **{
                name: round(value, 3) if isinstance(value, float) else value
                for name, value in _figures(merged[language, kind]).items()
            },
        }
        for language, kind in largest[:_ROWS_SHOWN]
    ]
    bars = [group for group in largest if merged[group]["tokens"]][:_BARS_SHOWN]
    labels = [" ".join(name for name in group if name) or "?" for group in bars]
    heights = [merged[group]["bytes"] / merged[group]["tokens"] for group in bars]
    return Outcome(
        counts={
            f"bytes_per_token_{name}": round(counts["bytes"] / counts["tokens"], 4)
            for name, counts in sorted(by_split.items())
            if counts["tokens"]
        },
        tables=[Table.of("Fertility by language and format", rows)],
        plots=[Plot("Bytes per token", "bar", "language and format", "bytes per token", {"": (labels, heights)})],
    )
