"""Muon and AdamW take the steps of their references."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.models.files import new_model
from forge_pipeline.training.optimizer import build_optimizer, orthogonalise
from forge_pipeline.training.settings import OptimizerSettings

SETTINGS = ArchitectureSettings(
    hidden_size=32, layers=2, heads=4, key_value_heads=2, intermediate_size=48, context_length=16
)


def model_with_gradients(seed: int) -> nn.Module:
    model = new_model(ModelConfig.build(SETTINGS, vocabulary_size=64), seed=0)
    set_gradients(model, seed)
    return model


def set_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 0.1


def in_blocks(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n}


def test_the_rest_takes_the_steps_of_torch_adamw() -> None:
    ours, theirs = model_with_gradients(1), model_with_gradients(1)
    inside = set(in_blocks(theirs))
    others = [parameter for name, parameter in theirs.named_parameters() if name not in inside]
    reference = torch.optim.AdamW(others, lr=0.008, betas=(0.9, 0.95), weight_decay=0.0)
    optimizer = build_optimizer(ours, OptimizerSettings())
    for seed in range(3):
        set_gradients(ours, seed)
        set_gradients(theirs, seed)
        optimizer.step()
        reference.step()
    for name, parameter in theirs.named_parameters():
        if name not in inside:
            torch.testing.assert_close(dict(ours.named_parameters())[name], parameter, atol=1e-6, rtol=1e-5)


def test_matrices_take_the_steps_of_torch_muon() -> None:
    ours, theirs = model_with_gradients(1), model_with_gradients(1)
    reference = torch.optim.Muon(
        list(in_blocks(theirs).values()), lr=0.02, weight_decay=0.0, momentum=0.95, nesterov=True
    )
    optimizer = build_optimizer(ours, OptimizerSettings())
    for seed in range(3):
        set_gradients(ours, seed)
        set_gradients(theirs, seed)
        optimizer.step()
        reference.step()
    for name, parameter in in_blocks(theirs).items():
        # Both iterate in bf16, in another order of the same products.
        torch.testing.assert_close(dict(ours.named_parameters())[name], parameter, atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 64)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices).float())
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_weight_decay_shrinks_matrices_and_leaves_norms_alone() -> None:
    model = model_with_gradients(1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    build_optimizer(model, OptimizerSettings(kind="adamw", weight_decay=0.1, learning_rate=0.5)).step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if name in in_blocks(model) else 1.0
        torch.testing.assert_close(parameter, before[name] * factor)
