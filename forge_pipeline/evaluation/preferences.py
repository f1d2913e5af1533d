"""Held-out preference pairs: does the model find the better answer likelier than the worse?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from forge_pipeline.corpus.tables import write_table
from forge_pipeline.evaluation.settings import PreferenceEvaluationSettings
from forge_pipeline.reporting.results import Result

if TYPE_CHECKING:
    from forge_pipeline.models.mistral import Mistral

PREFERENCE_RESULTS = "preference_results.parquet"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("pair_id", pa.string()),
    ("kind", pa.string()),
    ("messages", pa.string()),
    ("chosen", pa.string()),
    ("rejected", pa.string()),
    ("chosen_log_prob", pa.float64()),
    ("rejected_log_prob", pa.float64()),
    ("chosen_tokens", pa.int64()),
    ("rejected_tokens", pa.int64()),
    ("correct", pa.bool_()),
    ("correct_raw", pa.bool_()),
]
PREFERENCE_RESULT_SCHEMA = pa.schema(_COLUMNS)


def evaluate_preferences(
    settings: PreferenceEvaluationSettings,
    model: Mistral,
    tokenizer: Any,
    pairs: Sequence[dict[str, Any]],
    output: Path,
) -> list[Result]:
    """Score the pairs, write `preference_results.parquet` and return the figures.

    ``preference_accuracy`` compares mean log-probabilities per token, so that a short answer has no advantage;
    ``preference_accuracy_raw`` the log-probabilities of the whole answers, which is what DPO moves.
    """
    from forge_pipeline.inference.scoring import sequence_log_probs
    from forge_pipeline.tokens.chat import encode_chat

    pairs = pairs[: settings.maximum]
    window = model.config.context_length
    encoded = []
    for pair in pairs:
        prompt = json.loads(pair["messages"])
        for half in ("chosen", "rejected"):
            ids, mask = encode_chat(tokenizer, [*prompt, {"role": "assistant", "content": pair[half]}], [])
            # Only what the model can read at once: the end, which holds the answer.
            encoded.append((list(ids)[-window:], [False, *list(mask)[-window:][1:]]))
    sums = sequence_log_probs(model, [ids for ids, _ in encoded], [mask for _, mask in encoded])
    counts = [sum(mask) for _, mask in encoded]
    rows = []
    for place, pair in enumerate(pairs):
        chosen, rejected = 2 * place, 2 * place + 1
        rows.append(
            {
                **{name: pair[name] for name in ("pair_id", "kind", "messages", "chosen", "rejected")},
                "chosen_log_prob": sums[chosen],
                "rejected_log_prob": sums[rejected],
                "chosen_tokens": counts[chosen],
                "rejected_tokens": counts[rejected],
                "correct": sums[chosen] / counts[chosen] > sums[rejected] / counts[rejected],
                "correct_raw": sums[chosen] > sums[rejected],
            }
        )
    write_table(output / PREFERENCE_RESULTS, PREFERENCE_RESULT_SCHEMA, rows)
    if not rows:
        return []
    results = [
        Result.proportion("preference_accuracy", [row["correct"] for row in rows], "pairs"),
        Result.proportion("preference_accuracy_raw", [row["correct_raw"] for row in rows], "pairs"),
    ]
    for kind in sorted({row["kind"] for row in rows}):
        outcomes = [row["correct"] for row in rows if row["kind"] == kind]
        results.append(Result.proportion("preference_accuracy", outcomes, "pairs", f"kind {kind}"))
    return results
