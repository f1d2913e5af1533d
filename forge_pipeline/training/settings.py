"""What a person writes about training."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class OptimizerSettings(BaseModel):
    """Muon (Jordan et al. 2024) for the matrices inside the blocks and AdamW for the rest, or AdamW for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["muon", "adamw"] = Field("muon", description="the optimizer of the matrices inside the blocks")
    muon_learning_rate: float = Field(0.02, gt=0, description="peak rate of Muon's orthogonal updates")
    learning_rate: float = Field(0.008, gt=0, description="peak rate of AdamW")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's Nesterov momentum")
    # Of any length to the type alone: Dagster's page of a component cannot show a pair.
    betas: tuple[float, ...] = Field((0.9, 0.95), min_length=2, max_length=2, description="AdamW's averaging factors")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of matrices")
    gradient_clip: float = Field(1.0, gt=0, description="largest global gradient norm")


class ScheduleSettings(BaseModel):
    """How the learning rate moves, as a fraction of its peak."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["wsd", "cosine", "constant"] = Field(
        "wsd", description="warm-up, stable, linear decay (Hu et al. 2024); cosine; or constant after warm-up"
    )
    warmup_steps: int = Field(20, ge=0, description="steps of linear rise from zero")
    decay_fraction: float = Field(0.4, ge=0, le=1, description="share of all steps in which wsd decays")
    final_fraction: float = Field(0.02, ge=0, le=1, description="fraction of the peak reached at the last step")


class EngineSettings(BaseModel):
    """How one training stage is run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1, description="optimizer steps")
    seed: int = Field(0, ge=0, description="of initialisation, sample order and sampling")
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    precision: Literal["bf16", "fp32"] = Field(
        "bf16", description="of activations and matrix products; weights and optimizer state stay float32"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    micro_batch: int = Field(8, ge=1, description="sequences in one forward pass on one rank")
    world_size: int = Field(1, ge=1, description="training processes")
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="what DeepSpeed partitions over the ranks")
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="how many of the newest checkpoints are kept")
    evaluate_every: int = Field(100, ge=1, description="steps between evaluations on validation data")

    @model_validator(mode="after")
    def _muon_needs_whole_matrices(self) -> EngineSettings:
        if self.optimizer.kind == "muon" and self.zero_stage > 0:
            raise ValueError(
                f"optimizer.kind 'muon' orthogonalises whole matrices, which zero_stage {self.zero_stage} cuts up: "
                "use zero_stage 0, or optimizer.kind 'adamw'"
            )
        return self


class PretrainingSettings(BaseModel):
    """Next-token prediction over the corpus, from random initialisation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence_length: int = Field(256, ge=8, description="tokens in one training sequence")
    sequences_per_step: int = Field(8, ge=1, description="sequences in one optimizer step, over all ranks")
    validation_tokens: int = Field(16_384, ge=1, description="tokens of validation text scored at each evaluation")
    engine: EngineSettings
