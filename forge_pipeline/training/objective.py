"""What is being learned: the one interface between the training loop and pre-training, SFT, DPO and GRPO."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class TrainingContext:
    """What an objective may use. ``model`` is the module to call for every forward pass that is trained."""

    model: nn.Module
    device: torch.device
    tokenizer_folder: Path
    seed: int
    rank: int
    world_size: int
    micro_batch: int
    sum_over_ranks: Callable[[float], float]


@dataclass
class Batch:
    """One micro-batch. ``weight`` is its number of units (tokens, pairs, rollouts) in the loss's denominator."""

    tensors: dict[str, Tensor]
    weight: float


class Objective(ABC):
    def __init__(self, settings: Mapping[str, Any], context: TrainingContext) -> None:
        self.settings = settings
        self.context = context

    @abstractmethod
    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's share of a step, as many micro-batches on each rank.

        A pure function of (seed, step, rank, world size), and of the weights where the data is sampled from the
        model itself. That is what makes a resumed run the same run.
        """

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss summed over the batch's units, and further sums to be reported the same way.

        The loop divides by the units of the whole step over all ranks, so that the result does not depend on
        how a step is cut into micro-batches and ranks.
        """

    def evaluate(self, step: int) -> dict[str, float]:
        """Metrics on validation data, called on every rank."""
        return {}

    def finish(self, folder: Path) -> None:
        """Called on rank 0 after the last step: write what the stage keeps beside the model."""
        del folder
