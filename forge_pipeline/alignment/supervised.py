"""Supervised fine-tuning on conversations: the loss is on what the assistant says, and on nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor
from torch.nn import functional as F

from forge_pipeline.alignment.examples import EXAMPLES, VALIDATION_EXAMPLES
from forge_pipeline.alignment.reports import histogram, shown
from forge_pipeline.alignment.sequences import IGNORED, SequenceStore, epoch_order, indices_of_step, lay_out, pack
from forge_pipeline.alignment.settings import SupervisedSettings
from forge_pipeline.corpus.tables import read_table, write_table
from forge_pipeline.errors import TrainingError
from forge_pipeline.models.architecture import ModelConfig
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Scalar, Table
from forge_pipeline.training.launch import TrainingSummary, train
from forge_pipeline.training.objective import Batch, Objective, TrainingContext
from forge_pipeline.training.report import training_counts
from forge_pipeline.training.run import TrainingRun

CODE_VERSION = "1"

PACKING = "packing.parquet"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("example_id", pa.string()),
    ("row", pa.int64()),
    ("length", pa.int64()),
    ("target_tokens", pa.int64()),
]
PACKING_SCHEMA = pa.schema(_COLUMNS)
SHOWN_EXAMPLES = 12


class SupervisedObjective(Objective):
    """Cross entropy over the target tokens of packed conversations.

    ``settings``: ``sequences`` and ``validation`` (files of SequenceStore, the latter may be absent),
    ``row_tokens``, ``rows_per_step``. Rows are packed once, in an order drawn from the seed; each epoch sees the
    rows in another order.
    """

    def __init__(self, settings: Mapping[str, Any], context: TrainingContext) -> None:
        super().__init__(settings, context)
        self.store = SequenceStore.read(Path(settings["sequences"]))
        self.rows = pack_rows(self.store, settings["row_tokens"], context.seed)
        validation = settings.get("validation")
        self.validation = SequenceStore.read(Path(validation)) if validation else None

    def micro_batches(self, step: int) -> list[Batch]:
        context = self.context
        per_step: int = self.settings["rows_per_step"]
        chosen = indices_of_step(len(self.rows), per_step, context.seed, step)
        mine = chosen[context.rank :: context.world_size]
        # Every rank makes as many micro-batches as the one with most rows; one that lacks a row gets one of
        # weight zero, because a forward and backward pass is a collective of all ranks.
        largest = -(-per_step // context.world_size)
        batches = []
        for start in range(0, largest, context.micro_batch):
            part = mine[start : start + context.micro_batch]
            tensors = lay_out(self.store, [self.rows[index] for index in part or chosen[:1]])
            if not part:
                tensors["labels"].fill_(IGNORED)
            batches.append(Batch(tensors, float((tensors["labels"] != IGNORED).sum())))
        return batches

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The sum of the cross entropy over target tokens, in nats, and how many were predicted exactly."""
        device = self.context.device
        tensors = {name: tensor.to(device) for name, tensor in batch.tensors.items()}
        logits = self.context.model(tensors["token_ids"], tensors["position_ids"])
        chosen = tensors["labels"] != IGNORED
        # Most positions are no targets: only the others are widened to float32.
        logits, labels = logits[chosen].float(), tensors["labels"][chosen]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return loss, {"accuracy": float((logits.detach().argmax(-1) == labels).sum())}

    def evaluate(self, step: int) -> dict[str, float]:
        """Mean loss (nats per target token) and token accuracy on the validation examples."""
        if self.validation is None or len(self.validation) == 0:
            return {}
        context = self.context
        rows = pack_rows(self.validation, self.settings["row_tokens"], 0)
        batches = [rows[start : start + context.micro_batch] for start in range(0, len(rows), context.micro_batch)]
        sums = {"loss": 0.0, "accuracy": 0.0}
        total = 0.0
        # Every rank runs all of them, so that none waits in a collective for one that has no share left.
        for part in batches:
            tensors = lay_out(self.validation, part)
            loss, extra = self.loss(Batch(tensors, 0.0))
            sums["loss"] += loss.item()
            sums["accuracy"] += extra["accuracy"]
            total += float((tensors["labels"] != IGNORED).sum())
        return {name: value / total for name, value in sums.items()}


def pack_rows(store: SequenceStore, row_tokens: int, seed: int) -> list[list[int]]:
    return pack(store.lengths, row_tokens, epoch_order(len(store), seed, 0))


def train_supervised(
    settings: SupervisedSettings,
    initial_model: Path,
    examples: Path,
    tokenizer: Path,
    output: Path,
    work: Path,
    progress: Progress,
) -> Outcome:
    """Fine-tune the model of ``initial_model`` on the examples; fills ``output`` with `model/` and its records.

    ``initial_model``, ``examples`` and ``tokenizer`` are sealed artifact folders. `packing.parquet` says which
    example lies in which row, from which the step of its first exposure follows. Resumes from ``work``. Raises
    TrainingError if there is no example that fits a row, or if training fails.
    """
    model_folder, tokenizer_folder = initial_model / "model", tokenizer / "tokenizer"
    row_tokens = settings.row_tokens or ModelConfig.read(model_folder).context_length
    work.mkdir(parents=True, exist_ok=True)
    with progress.task("Tokenising examples"):
        rows = read_table(examples, EXAMPLES).to_pylist()
        encoded = encode_examples(rows, tokenizer_folder)
        fitting = [index for index, (ids, _) in enumerate(encoded) if len(ids) <= row_tokens]
        if not fitting:
            raise TrainingError(
                f"none of {len(rows)} examples fits a row of {row_tokens} tokens",
                where=str(examples / EXAMPLES),
                fix="raise row_tokens (up to the model's context_length), or shorten the examples",
            )
        store = SequenceStore.of([encoded[index] for index in fitting])
        store.write(work / "sequences.safetensors")
        validation = [
            item
            for item in encode_examples(read_table(examples, VALIDATION_EXAMPLES).to_pylist(), tokenizer_folder)
            if len(item[0]) <= row_tokens
        ]
        SequenceStore.of(validation).write(work / "validation.safetensors")
    packed = pack_rows(store, row_tokens, settings.engine.seed)
    _write_packing(output, [rows[index] for index in fitting], store, packed)
    run = TrainingRun(
        objective="forge_pipeline.alignment.supervised:SupervisedObjective",
        objective_settings={
            "sequences": str(work / "sequences.safetensors"),
            "validation": str(work / "validation.safetensors"),
            "row_tokens": row_tokens,
            "rows_per_step": settings.rows_per_step,
        },
        initial_model=str(model_folder),
        tokenizer=str(tokenizer_folder),
        engine=settings.engine,
    )
    summary = train(run, work, output, progress)
    kept = [rows[index] for index in fitting]
    seen = settings.rows_per_step * summary.steps * row_tokens
    cost = training_counts(summary, ModelConfig.read(model_folder), seen, row_tokens)
    return _outcome(settings, summary, cost, rows, kept, store, packed, row_tokens, tokenizer_folder)


def encode_examples(rows: Sequence[Mapping[str, Any]], tokenizer_folder: Path) -> list[tuple[list[int], list[bool]]]:
    """Token ids and target mask of each conversation, by the tokenizer's own chat template."""
    from forge_pipeline.tokens.chat import encode_chat, load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder)
    return [encode_chat(tokenizer, json.loads(row["messages"]), json.loads(row["tools"])) for row in rows]


def _write_packing(
    output: Path, rows: Sequence[Mapping[str, Any]], store: SequenceStore, packed: list[list[int]]
) -> None:
    row_of = {index: number for number, indices in enumerate(packed) for index in indices}
    write_table(
        output / PACKING,
        PACKING_SCHEMA,
        (
            {
                "example_id": row["example_id"],
                "row": row_of[index],
                "length": int(store.lengths[index]),
                "target_tokens": int(store.tokens(index)[1].sum()),
            }
            for index, row in enumerate(rows)
        ),
    )


def _outcome(
    settings: SupervisedSettings,
    summary: TrainingSummary,
    cost: Mapping[str, Scalar],
    rows: Sequence[Mapping[str, Any]],
    kept: Sequence[Mapping[str, Any]],
    store: SequenceStore,
    packed: list[list[int]],
    row_tokens: int,
    tokenizer_folder: Path,
) -> Outcome:
    seen_rows = settings.rows_per_step * summary.steps
    counts = {
        "examples": len(kept),
        "examples_too_long": len(rows) - len(kept),
        "rows": len(packed),
        "row_tokens": row_tokens,
        "tokens": int(store.offsets[-1]),
        "target_tokens": int(store.targets.sum()),
        "fill": float(store.offsets[-1] / (len(packed) * row_tokens)),
        "epochs": seen_rows / len(packed),
        **summary.final_metrics,
        **cost,
    }
    series = loss_series(summary)
    return Outcome(
        counts={name: value for name, value in counts.items() if name != "step"},
        checks=[
            Check(
                "most_examples_fit",
                len(kept) >= 0.9 * len(rows),
                f"at least 90% of the examples fit a row of {row_tokens} tokens",
                len(kept) / len(rows),
                0.9,
            )
        ],
        tables=[masked_examples(kept, store, tokenizer_folder)],
        plots=[
            Plot("Loss", "line", "step", "nats per target token", series),
            histogram("Length of the examples", "tokens", store.lengths.astype(np.float64).tolist()),
        ],
    )


def loss_series(summary: TrainingSummary) -> dict[str, tuple[list[Any], list[float]]]:
    """Training and validation loss over the steps, for a plot."""
    series = {}
    for name, metric in (("training", "loss"), ("validation", "validation_loss")):
        points = [(entry["step"], entry[metric]) for entry in summary.history if metric in entry]
        if points:
            series[name] = ([step for step, _ in points], [value for _, value in points])
    return series


def masked_examples(rows: Sequence[Mapping[str, Any]], store: SequenceStore, tokenizer_folder: Path) -> Table:
    """One example of each kind as the model sees it; what it is trained to say stands between ⟦ and ⟧."""
    from forge_pipeline.tokens.chat import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder)
    first: dict[str, int] = {}
    for index, row in enumerate(rows):
        first.setdefault(row["kind"], index)
    lines: list[dict[str, Scalar]] = []
    for kind in sorted(first)[:SHOWN_EXAMPLES]:
        ids, targets = store.tokens(first[kind])
        borders = np.flatnonzero(np.diff(targets.astype(np.int8))) + 1
        text = ""
        for part_ids, part_targets in zip(np.split(ids, borders), np.split(targets, borders), strict=True):
            decoded = tokenizer.decode(part_ids.tolist(), skip_special_tokens=False)
            text += f"⟦{decoded}⟧" if part_targets[0] else decoded
        lines.append({"kind": kind, "tokens": len(ids), "trained on": int(targets.sum()), "text": shown(text, 600)})
    return Table.of("Examples as the model sees them", lines)
