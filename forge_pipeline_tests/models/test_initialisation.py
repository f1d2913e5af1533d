"""A new model starts from random weights that already hold an induction circuit."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.models.files import new_model
from forge_pipeline.models.initialisation import can_start_with_induction
from forge_pipeline.models.mistral import Mistral

VOCABULARY = 1024


def config(**changes: object) -> ModelConfig:
    return dataclasses.replace(ModelConfig.build(ArchitectureSettings(), VOCABULARY), **changes)


def looked_at(model: Mistral, layer: int, token_ids: torch.Tensor) -> torch.Tensor:
    """The position (B, T) that the first head of ``layer`` gives most of its attention."""
    with torch.no_grad():
        cosine, sine = model.rotation(torch.arange(token_ids.shape[1])[None], torch.float32)
        states = model.model.embed_tokens(token_ids)
        for block in model.model.layers[:layer]:
            states = block(states, cosine, sine, None)
        block = model.model.layers[layer]
        query, key, _ = block.self_attn.project(block.input_layernorm(states), cosine, sine)
    scores = query[:, 0] @ key[:, 0].mT
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).argmax(-1)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [{}, {"hidden_size": 512, "heads": 8}, {"key_value_heads": 4}, {"layers": 2}])
def test_a_token_seen_before_is_looked_up_and_what_followed_it_found(seed: int, shape: dict[str, int]) -> None:
    model = new_model(config(**shape), seed)
    generator = torch.Generator().manual_seed(seed)
    once = torch.stack([torch.randperm(VOCABULARY, generator=generator)[:60] for _ in range(8)])
    token_ids = torch.cat([once, once], dim=1)
    back = looked_at(model, 0, token_ids)
    assert (back[:, 1:] == torch.arange(119)).float().mean() > 0.99
    found = looked_at(model, 1, token_ids)[:, 60:-1]
    # At position 60 + i stands what stood at i; its successor stands at i + 1.
    assert (found == torch.arange(1, 60)).float().mean() > 0.95


def test_the_head_starts_as_a_small_copy_of_the_embedding() -> None:
    model = new_model(config(), 0)
    embedding, head = model.model.embed_tokens.weight.detach(), model.lm_head.weight.detach()
    assert 0.01 < head.std() < 0.03
    own = embedding - embedding.mean(0)
    similarity = torch.nn.functional.normalize(own, dim=1) @ torch.nn.functional.normalize(head, dim=1).T
    # But for the few directions that the circuit keeps for itself.
    assert torch.equal(similarity.argmax(1), torch.arange(VOCABULARY))
    assert similarity.diagonal().min() > 0.8


def test_a_seed_means_the_same_weights_and_another_seed_others() -> None:
    first, again, other = new_model(config(), 3), new_model(config(), 3), new_model(config(), 4)
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name]), name
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize(
    "shape", [{"tie_embeddings": True}, {"layers": 1}, {"hidden_size": 32, "heads": 16, "key_value_heads": 16}]
)
def test_a_shape_without_room_for_the_circuit_starts_without_it(shape: dict[str, int]) -> None:
    small = config(**shape)
    assert not can_start_with_induction(small)
    model = new_model(small, 0)
    for block in model.model.layers:
        assert not block.self_attn.o_proj.weight.any()
