"""The weights a new model starts from: random, but not shapeless.

What a transformer finds last is induction: seeing ``A B ... A``, to expect ``B`` (Elhage et al. 2021, Olsson et al.
2022, arXiv 2209.11895). It takes two heads in two layers that are useless without each other, so a small model on a
small corpus never gets there, and then repeats no name it was just told. Both heads can be written down from random
projections, with no look at any data; training then starts from a model that copies and improves on it. In the log
(infra/docs/log.md) is what that is worth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from forge_pipeline.models.architecture import ModelConfig
from forge_pipeline.models.mistral import Attention, Block, Mistral, rotary_frequencies

# Untied embeddings start at unit variance, so that what the first steps write into the residual stream does not
# drown them. Where embedding and head are one matrix, it starts as a head: small (GPT-2's 0.02).
EMBEDDING_STD = 1.0
HEAD_STD = 0.02
MATRIX_GAIN = 0.6

# A rotary pair turns by its frequency per token. Slow ones turn little over hundreds of tokens: content is compared
# there. Fast ones tell neighbours apart: position is compared there.
SLOW = 0.0101
FAST = 0.09
# Scores before the softmax at the right place; at its neighbours they are a few units smaller.
POSITION_SCORE = 30.0
# Factor of the projections whose product is the match of two tokens.
MATCH_GAIN = 3.0
# How strongly the match writes the token it found: without it, the current token's own embedding drowns the copy.
COPY_GAIN = 3.0


def initialise(model: Mistral, seed: int) -> None:
    """Set all weights of ``model`` in place: a function of its shape and ``seed`` alone.

    Matrices are Gaussian; the two that write into the residual stream start at zero, so that each block is the
    identity at first (Zhang et al. 2019, Fixup, arXiv 1901.09321). An untied head starts as a small copy of the
    embedding: to expect a token is then to point to where it is embedded. Where the shape allows it
    (`can_start_with_induction`), two heads start as an induction circuit.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
            elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * HEAD_STD)
            else:
                std = MATRIX_GAIN / math.sqrt(parameter.shape[1])
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        if not model.config.tie_embeddings:
            model.lm_head.weight.copy_(model.model.embed_tokens.weight)
            model.model.embed_tokens.weight.mul_(EMBEDDING_STD / HEAD_STD)
        if can_start_with_induction(model.config):
            _write_induction(model, generator)


def can_start_with_induction(config: ModelConfig) -> bool:
    """Whether there are two layers, rotary pairs both slow and fast, and room for the projections."""
    slow, fast = _rotary_pairs(rotary_frequencies(config))
    return (
        not config.tie_embeddings
        and config.layers > 1
        and min(len(slow), len(fast)) > 0
        and config.hidden_size > 4 * len(slow)
    )


def _rotary_pairs(frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the slow and of the fast rotary pairs of a head."""
    return torch.nonzero(frequencies < SLOW).flatten(), torch.nonzero(frequencies > FAST).flatten()


def _write_induction(model: Mistral, generator: torch.Generator) -> None:
    """Layer 0: each position writes down a projection of the token before it. Layer 1: a query with the same
    projection of the current token finds the position whose predecessor was that token, and copies what stands there.

    All embeddings get one random vector in common. It is the constant from which a head that looks at positions
    alone makes its queries and keys; the softmax over the vocabulary does not see it.
    """
    config = model.config
    embedding = model.model.embed_tokens.weight
    common = torch.randn(config.hidden_size, generator=generator)
    random = torch.randn(config.hidden_size, config.hidden_size, generator=generator)
    random[:, 0] = common
    # Orthonormal rows: the direction in common, whose sign is open, then directions without any of it.
    directions = torch.linalg.qr(random)[0].T
    constant, free = directions[0] * torch.sign(directions[0] @ common), directions[1:]
    slow, _ = _rotary_pairs(model.frequencies)
    compared = torch.cat([slow, slow + config.head_dim // 2])
    token, predecessor = free[: len(compared)], free[len(compared) : 2 * len(compared)]
    # Exactly as much of the constant in each embedding, and nothing where predecessors will be written down.
    embedding.add_((EMBEDDING_STD * common.norm() - embedding @ constant)[:, None] * constant)
    embedding.sub_(embedding @ predecessor.T @ predecessor)
    first, second = (_attention(model, layer) for layer in (0, 1))
    _look_back(first, model.frequencies, constant)
    first.v_proj.weight[: len(compared)] = token
    first.o_proj.weight[:, : len(compared)] = predecessor.T
    _match(second, compared, query=token, key=predecessor)
    copied = torch.linalg.qr(torch.randn(config.hidden_size, config.head_dim, generator=generator))[0].T
    copied = copied - (copied @ constant)[:, None] * constant
    second.v_proj.weight[: config.head_dim] = copied
    second.o_proj.weight[:, : config.head_dim] = COPY_GAIN * copied.T


def _attention(model: Mistral, layer: int) -> Attention:
    block = model.model.layers[layer]
    assert isinstance(block, Block)
    return block.self_attn


def _look_back(attention: Attention, frequencies: Tensor, constant: Tensor) -> None:
    """The first key head points to its own position; its query heads look one, two, ... tokens back."""
    size = attention.head_dim
    half = size // 2
    _, fast = _rotary_pairs(frequencies)
    direction = torch.zeros(size)
    direction[fast] = len(fast) ** -0.5
    # Half of a normalised embedding's length lies along the constant.
    along = math.sqrt(constant.numel() / 2)
    gain = math.sqrt(POSITION_SCORE * math.sqrt(size)) / along
    attention.k_proj.weight[:size] = gain * direction[:, None] * constant
    for head in range(attention.heads // attention.key_value_heads):
        angle = -frequencies * (head + 1)
        turned = torch.cat([direction[:half] * angle.cos(), direction[:half] * angle.sin()])
        attention.q_proj.weight[head * size : (head + 1) * size] = gain * turned[:, None] * constant


def _match(attention: Attention, compared: Tensor, query: Tensor, key: Tensor) -> None:
    """The first head scores how much of ``query`` in the current state agrees with ``key`` in an earlier one."""
    size = attention.head_dim
    for projection, rows in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight[:size] = 0.0
        projection.weight[compared] = MATCH_GAIN * rows
