"""Pre-training: next-token prediction over the corpus, from random initialisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional as F

from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.reporting import Outcome, Plot, Progress, Table
from forge_pipeline.tokens.held_out import held_out_sequences
from forge_pipeline.tokens.order import SampleOrder
from forge_pipeline.tokens.shards import ShardReader
from forge_pipeline.tokens.stream import Sequences
from forge_pipeline.training.launch import TrainingSummary, train
from forge_pipeline.training.objective import Batch, Objective, TrainingContext
from forge_pipeline.training.report import loss_plot, speed_table, training_counts
from forge_pipeline.training.run import NewModel, TrainingRun
from forge_pipeline.training.settings import PretrainingSettings

CODE_VERSION = "2"
EXPOSURE_FILE = "exposure.parquet"
# Label of positions that are read but not predicted.
IGNORED = -100


class PretrainingObjective(Objective):
    """Mean cross-entropy per token. Samples come from `SampleOrder`, a function of (seed, step)."""

    def __init__(self, settings: Mapping[str, Any], context: TrainingContext) -> None:
        super().__init__(settings, context)
        shards = ShardReader([Path(folder) for folder in settings["token_shards"]])
        self.order = _sample_order(shards, settings["sequence_length"], settings["sequences_per_step"], context.seed)
        validation = shards.documents("validation")
        self.validation = (
            held_out_sequences(validation, settings["sequence_length"], settings["validation_tokens"])
            if len(validation)
            else None
        )

    def micro_batches(self, step: int) -> list[Batch]:
        share = self.order.rank_share(step, self.context.rank, self.context.world_size)
        size = self.context.micro_batch
        return [
            self._batch(
                Sequences(
                    share.tokens[start : start + size],
                    share.position_ids[start : start + size],
                    share.mask[start : start + size],
                )
            )
            for start in range(0, len(share.tokens), size)
        ]

    def _batch(self, rows: Sequences) -> Batch:
        tokens, mask = torch.from_numpy(rows.tokens), torch.from_numpy(rows.mask)
        tensors = {
            "token_ids": tokens[:, :-1],
            "position_ids": torch.from_numpy(rows.position_ids),
            "labels": tokens[:, 1:].masked_fill(~mask, IGNORED),
        }
        moved = {name: tensor.to(self.context.device) for name, tensor in tensors.items()}
        return Batch(moved, weight=float(mask.sum()))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return self._nats(batch.tensors), {}

    def _nats(self, tensors: Mapping[str, Tensor]) -> Tensor:
        logits = self.context.model(tensors["token_ids"], tensors["position_ids"])
        return F.cross_entropy(
            logits.float().flatten(0, 1), tensors["labels"].flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def evaluate(self, step: int) -> dict[str, float]:
        if self.validation is None:
            return {}
        batches = self.validation.batches(self.context.micro_batch)
        nats = sum(self._nats(self._batch(rows).tensors).item() for rows in batches)
        return {"bits_per_byte": self.validation.bits_per_byte(nats)}


def _sample_order(shards: ShardReader, sequence_length: int, sequences_per_step: int, seed: int) -> SampleOrder:
    return SampleOrder(shards.documents("train"), sequence_length, sequences_per_step, seed)


def train_base_model(
    settings: PretrainingSettings,
    architecture: ArchitectureSettings,
    token_shards: Sequence[Path],
    tokenizer: Path,
    output: Path,
    work: Path,
    progress: Progress,
) -> Outcome:
    """Train a new model over all ``token_shards`` (sealed parts, in batch order); resumes from ``work``.

    Fills ``output`` with `model/`, `metrics.jsonl`, `run.json` and `exposure.parquet` (which document was read
    in which steps, and how many of its tokens).
    """
    shards = ShardReader(list(token_shards))
    config = ModelConfig.build(architecture, shards.vocabulary_size)
    run = TrainingRun(
        objective="forge_pipeline.training.pretraining:PretrainingObjective",
        objective_settings={
            "token_shards": [str(folder) for folder in token_shards],
            "sequence_length": settings.sequence_length,
            "sequences_per_step": settings.sequences_per_step,
            "validation_tokens": settings.validation_tokens,
        },
        initial_model=NewModel(shape=config.to_json(), seed=settings.engine.seed),
        tokenizer=str(tokenizer / "tokenizer"),
        engine=settings.engine,
    )
    summary = train(run, work, output, progress)
    order = _sample_order(shards, settings.sequence_length, settings.sequences_per_step, settings.engine.seed)
    exposure = order.exposure_table(settings.engine.steps)
    pq.write_table(exposure, output / EXPOSURE_FILE, compression="zstd")
    tokens_seen = settings.engine.steps * settings.sequences_per_step * settings.sequence_length
    seen = int((exposure["tokens"].to_numpy() > 0).sum())
    return _outcome(settings, config, summary, tokens_seen, seen)


def _outcome(
    settings: PretrainingSettings, config: ModelConfig, summary: TrainingSummary, tokens_seen: int, documents: int
) -> Outcome:
    validation = {
        int(entry["step"]): entry["validation_bits_per_byte"]
        for entry in summary.history
        if "validation_bits_per_byte" in entry
    }
    counts = training_counts(summary, config, tokens_seen, settings.sequence_length)
    plots = [loss_plot(summary, "Training loss", "nats per token")]
    tables: list[Table] = [speed_table(summary, counts)]
    if validation:
        counts["validation_bits_per_byte"] = list(validation.values())[-1]
        curve = {"validation": (list(validation), list(validation.values()))}
        plots.append(Plot("Validation bits per byte", "line", "step", "bits per byte", curve))
    counts["documents_seen"] = documents
    return Outcome(counts=counts, plots=plots, tables=tables)
