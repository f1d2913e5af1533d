"""The Mistral decoder in PyTorch, with the parameter names of Hugging Face's MistralForCausalLM.

The weights move between the two unchanged. What is our own is the reading of packed rows: a position that
returns to zero starts a new document, and attention never crosses that border.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from forge_pipeline.models.architecture import ModelConfig

# Up to this length, attention written out is twice as fast on a CPU as PyTorch's fused kernel (measured at 256:
# 7 against 15 ms forward and backward); beyond it, the score matrix outgrows the cache.
WRITTEN_OUT_LENGTH = 512


class Linear(nn.Linear):
    """A linear map that computes in the precision of its input. Weights stay in their own (float32 in
    training), so the optimizer's steps are never rounded to bf16."""

    def forward(self, states: Tensor) -> Tensor:
        return F.linear(states, self.weight.to(states.dtype))


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467), computed in float32.

    PyTorch's own falls back to slow composite operations for bf16 on a CPU.
    """

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        wide = states.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return wide.to(states.dtype) * self.weight.to(states.dtype)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.head_dim = config.heads, config.key_value_heads, config.head_dim
        query, key_value = config.heads * config.head_dim, config.key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, query, bias=False)
        self.k_proj = Linear(config.hidden_size, key_value, bias=False)
        self.v_proj = Linear(config.hidden_size, key_value, bias=False)
        self.o_proj = Linear(query, config.hidden_size, bias=False)

    def project(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D) and keys and values (B, K, T, D) of ``hidden`` (B, T, hidden), rotated."""
        rows, length, _ = hidden.shape
        query = self.q_proj(hidden).view(rows, length, self.heads, self.head_dim).transpose(1, 2)
        key = self.k_proj(hidden).view(rows, length, self.key_value_heads, self.head_dim).transpose(1, 2)
        value = self.v_proj(hidden).view(rows, length, self.key_value_heads, self.head_dim).transpose(1, 2)
        return rotate(query, cosine, sine), rotate(key, cosine, sine), value

    def forward(self, hidden: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self.project(hidden, cosine, sine)
        mixed = attend(query, key, value, mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(self, hidden: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor | None) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cosine, sine, mask)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)


class Mistral(nn.Module):
    """A causal language model. Inputs are token ids (B, T) int64; logits are (B, T, vocabulary)."""

    frequencies: Tensor

    def __init__(
        self,
        config: ModelConfig,
        *,
        gradient_checkpointing: bool = False,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        """``compute_dtype`` is the precision of activations; None takes that of the weights."""
        super().__init__()
        self.config = config
        self.gradient_checkpointing = gradient_checkpointing
        self.compute_dtype = compute_dtype
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocabulary_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        # Kept in float32 and out of the state dict: rounding angles to bf16 would blur long positions.
        self.register_buffer("frequencies", rotary_frequencies(config), persistent=False)

    def rotation(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each (B or 1, 1, T, head_dim / 2), for positions (B or 1, T)."""
        angles = position_ids[:, None, :, None].float() * self.frequencies.float()
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def hidden(self, token_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """The last hidden states (B, T, hidden), normalised, before the head."""
        embedded = self.model.embed_tokens(token_ids)
        if self.compute_dtype is not None:
            embedded = embedded.to(self.compute_dtype)
        if position_ids is None:
            positions = torch.arange(token_ids.shape[1], device=token_ids.device)[None]
            mask = None
        else:
            positions, mask = position_ids, document_mask(position_ids)
        cosine, sine = self.rotation(positions, embedded.dtype)
        state = embedded
        for block in self.model.layers:
            if self.gradient_checkpointing and self.training:
                state = checkpoint(block, state, cosine, sine, mask, use_reentrant=False)
            else:
                state = block(state, cosine, sine, mask)
        return self.model.norm(state)

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)

    def forward(self, token_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        return self.head(self.hidden(token_ids, position_ids))


def rotary_frequencies(config: ModelConfig) -> Tensor:
    """By how many radians each of a head's rotary pairs (head_dim / 2) turns per token."""
    return config.rope_theta ** (-torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim)


def rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) in the half-split layout of Hugging Face."""
    first, second = states.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention of queries (B, H, T, D) over keys and values (B, K, T, D), H a multiple of K.

    ``mask`` (B, 1, T, T) bool says what may be seen; None means everything up to the query's own position.
    """
    rows, heads, length, head_dim = query.shape
    groups = key.shape[1]
    if query.device.type != "cpu" or length > WRITTEN_OUT_LENGTH:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=heads != groups
        )
    if mask is None:
        visible = torch.ones(length, length, dtype=torch.bool).tril()[None, None, None]
    else:
        visible = mask[:, :, None]
    hidden_scores = torch.zeros(visible.shape, dtype=query.dtype).masked_fill_(~visible, float("-inf"))
    # Query heads that share a key head become one taller matrix.
    stacked = (query * head_dim**-0.5).reshape(rows, groups, -1, head_dim)
    scores = torch.matmul(stacked, key.transpose(-1, -2)).view(rows, groups, heads // groups, length, length)
    weights = torch.softmax(scores + hidden_scores, dim=-1)
    return torch.matmul(weights.view(rows, groups, -1, length), value).view(rows, heads, length, head_dim)


def document_mask(position_ids: Tensor) -> Tensor | None:
    """Which positions may be seen (B, 1, T, T) bool: earlier ones of the same document.

    None if no row holds a second document: plain causal attention is faster and means the same.
    """
    starts = position_ids == 0
    starts[:, 0] = False
    if not bool(starts.any()):
        return None
    document = starts.cumsum(1)
    length = position_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=position_ids.device).tril()
    return (causal & (document[:, :, None] == document[:, None, :]))[:, None]
