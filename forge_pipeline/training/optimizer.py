"""Muon and AdamW in one optimizer, so that DeepSpeed sees one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from forge_pipeline.training.settings import OptimizerSettings

# Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon): a quintic whose iteration drives all singular
# values towards one quickly, at the price of leaving them between about 0.7 and 1.2.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer of all parameters of ``model``. Each group's ``peak`` is its rate at fraction one."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside_block = parameter.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name
        (matrices if inside_block else others).append(parameter)
    adamw = {"peak": settings.learning_rate, "lr": settings.learning_rate}
    if settings.kind == "adamw":
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay, **adamw},
            {"params": others, "weight_decay": 0.0, **adamw},
        ]
        return torch.optim.AdamW(groups, betas=(settings.betas[0], settings.betas[1]))
    return MuonAdamW(
        [
            {
                "params": matrices,
                "muon": True,
                "peak": settings.muon_learning_rate,
                "lr": settings.muon_learning_rate,
                "momentum": settings.momentum,
                "weight_decay": settings.weight_decay,
            },
            {"params": others, "muon": False, "betas": settings.betas, **adamw},
        ]
    )


class MuonAdamW(torch.optim.Optimizer):
    """Groups with ``muon`` true get orthogonalised momentum, the others AdamW without weight decay."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if group["muon"]:
                self._step_muon(group)
            else:
                self._step_adamw(group)

    def _step_muon(self, group: dict[str, Any]) -> None:
        # Matrices of one shape (up to transposition) are orthogonalised in one batched product: on a CPU that
        # takes a tenth of the time of one product each.
        by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault((min(parameter.shape), max(parameter.shape)), []).append(parameter)
        for parameters in by_shape.values():
            updates = []
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                assert parameter.grad is not None
                gradient, momentum = parameter.grad, state["momentum"]
                momentum.lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(momentum, group["momentum"])
                updates.append(update.T if update.shape[0] > update.shape[1] else update)
            for parameter, direction in zip(parameters, orthogonalise(torch.stack(updates)), strict=True):
                rows, columns = parameter.shape
                step = (direction.T if rows > columns else direction).to(parameter.dtype)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(step, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _step_adamw(self, group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state.update(mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter), steps=0)
            state["steps"] += 1
            state["mean"].lerp_(parameter.grad, 1 - first)
            state["square"].mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
            scale = state["square"].sqrt().div_((1 - second ** state["steps"]) ** 0.5).add_(1e-8)
            parameter.addcdiv_(state["mean"], scale, value=-group["lr"] / (1 - first ** state["steps"]))


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly, of ``matrices`` (N, rows, columns), rows <= columns.

    Newton-Schulz iteration in bf16, as in the reference implementation of Muon.
    """
    a, b, c = NEWTON_SCHULZ
    estimate = matrices.to(torch.bfloat16)
    estimate = estimate / (estimate.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(estimate, estimate.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        estimate = torch.baddbmm(estimate, polynomial, estimate, beta=a)
    return estimate
