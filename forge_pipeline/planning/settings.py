"""What a person writes about the plan, and the plain values that it is computed from. Pure data."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from forge_pipeline.planning.accelerators import ACCELERATORS

Precision = Literal["bf16", "fp32"]


class MachineSpeed(BaseModel):
    """Matrix products per second on this machine, in TFLOP/s."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fp32: float = Field(gt=0, description="in float32")
    bf16: float = Field(gt=0, description="in bfloat16")

    def of(self, precision: Precision) -> float:
        return self.bf16 if precision == "bf16" else self.fp32


class PlanningSettings(BaseModel):
    """What the plan compares, and with which assumptions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accelerators: tuple[str, ...] = Field(
        ("H100 SXM", "H200 SXM", "A100 80GB", "L40S", "RTX 4090"),
        description="GPUs to plan for, by name: " + ", ".join(ACCELERATORS),
    )
    accelerator_count: int = Field(1, ge=1, description="how many of one kind train together")
    utilisation_low: float = Field(
        0.30,
        gt=0,
        le=1,
        description="least share of a GPU's published peak to expect; tiny models reach far less",
    )
    utilisation_high: float = Field(0.50, gt=0, le=1, description="largest share of a GPU's published peak to expect")
    machine_utilisation_low: float = Field(
        0.30, gt=0, le=1, description="least share of this machine's matrix speed to expect"
    )
    machine_utilisation_high: float = Field(
        0.80, gt=0, le=1, description="largest share of this machine's matrix speed to expect"
    )
    machine_speed: MachineSpeed | None = Field(
        None, description="this machine's speed in matrix products; measured in about a second if not given"
    )
    price_per_hour: dict[str, float] = Field(
        default_factory=dict, description="price of one GPU for an hour, by name; without it no cost is given"
    )
    currency: str = Field("USD", description="of the prices")

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in (*self.accelerators, *self.price_per_hour):
            if name not in ACCELERATORS:
                raise ValueError(f"{name!r} is not a known accelerator; there are {', '.join(ACCELERATORS)}")
        for low, high in (
            (self.utilisation_low, self.utilisation_high),
            (self.machine_utilisation_low, self.machine_utilisation_high),
        ):
            if low > high:
                raise ValueError(f"the low utilisation {low} is above the high one {high}")
        return self


class TrainingWorkload(BaseModel):
    """One training stage, as far as it decides time and memory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1, description="optimizer steps")
    sequence_length: int = Field(ge=1, description="tokens in one sequence")
    sequences_per_step: int = Field(ge=1, description="sequences in one step, over all processes")
    micro_batch: int = Field(ge=1, description="sequences in one forward pass of one process")
    precision: Precision = Field(description="of activations and matrix products; weights stay float32")
    optimizer: Literal["muon", "adamw"] = Field(description="of the matrices inside the blocks; AdamW for the rest")
    gradient_checkpointing: bool = Field(False, description="activations are computed again in the backward pass")
    world_size: int = Field(1, ge=1, description="processes")
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="what DeepSpeed partitions over the processes")

    @property
    def tokens(self) -> int:
        """Tokens trained on, over all steps."""
        return self.steps * self.sequences_per_step * self.sequence_length


class CorpusCounts(BaseModel):
    """The training split of the corpus."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    documents: int = Field(ge=0, description="documents")
    tokens: int = Field(ge=0, description="tokens, with one end token a document")
    text_bytes: int = Field(ge=0, description="bytes of text")
