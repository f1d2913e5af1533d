"""A model's weights laid out for decoding: fewer and larger matrix products than in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from forge_pipeline.models.mistral import Attention, Block, FeedForward, Mistral


@dataclass(frozen=True)
class LayerWeights:
    """One block. Input and output sizes are swapped against nn.Linear, so that products need no transposition."""

    query_key_value: Tensor
    attention_output: Tensor
    gate_up: Tensor
    down: Tensor


class DecodingWeights:
    """A snapshot: later changes of the model are not seen.

    The gains of the norms and the scale of the queries are folded into the matrices that follow them, and
    matrices that read the same input are joined. That changes results by rounding only.
    """

    def __init__(self, model: Mistral, dtype: torch.dtype | None = None) -> None:
        self.config = model.config
        self.epsilon = model.config.norm_epsilon
        self.dtype = dtype or model.model.embed_tokens.weight.dtype
        with torch.no_grad():
            self.embedding = model.model.embed_tokens.weight.detach().to(self.dtype, copy=True)
            self.head = self._folded([model.lm_head.weight], model.model.norm.weight)
            self.layers = [self._layer(block) for block in model.model.layers if isinstance(block, Block)]
            positions = torch.arange(model.config.context_length, device=self.embedding.device)
            cosine, sine = model.rotation(positions[None], torch.float32)
        # (context, head_dim) each; the sign of the first half belongs to the rotation's swapped halves.
        self.cosine = torch.cat([cosine, cosine], -1)[0, 0].to(self.dtype)
        self.sine = torch.cat([-sine, sine], -1)[0, 0].to(self.dtype)

    def _layer(self, block: Block) -> LayerWeights:
        attention, feed_forward = block.self_attn, block.mlp
        assert isinstance(attention, Attention)
        assert isinstance(feed_forward, FeedForward)
        query = attention.q_proj.weight * self.config.head_dim**-0.5
        return LayerWeights(
            self._folded([query, attention.k_proj.weight, attention.v_proj.weight], block.input_layernorm.weight),
            self._folded([attention.o_proj.weight]),
            self._folded(
                [feed_forward.gate_proj.weight, feed_forward.up_proj.weight], block.post_attention_layernorm.weight
            ),
            self._folded([feed_forward.down_proj.weight]),
        )

    def _folded(self, matrices: list[Tensor], gain: Tensor | None = None) -> Tensor:
        joined = torch.cat([matrix.float() for matrix in matrices])
        if gain is not None:
            joined = joined * gain.float()
        return joined.t().contiguous().to(self.dtype)

    def normalised(self, states: Tensor) -> Tensor:
        """RMS normalisation without its gain, in float32, of states (..., hidden)."""
        wide = states.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)).to(self.dtype)

    def project(self, layer: LayerWeights, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (R, H, D), keys (R, K, D), both rotated, and values (R, K, D) of states (R, hidden)."""
        heads, groups, size = self.config.heads, self.config.key_value_heads, self.config.head_dim
        joined = torch.mm(self.normalised(states), layer.query_key_value).view(-1, heads + 2 * groups, size)
        turning = joined[:, : heads + groups]
        cosine, sine = self.cosine[positions].unsqueeze(1), self.sine[positions].unsqueeze(1)
        turned = torch.addcmul(turning * cosine, turning.roll(size // 2, -1), sine)
        return turned[:, :heads], turned[:, heads:], joined[:, heads + groups :]

    def after_attention(self, layer: LayerWeights, states: Tensor, mixed: Tensor) -> Tensor:
        """The block's output (R, hidden) from its input and the attention's result (R, H * D)."""
        states = torch.addmm(states, mixed, layer.attention_output)
        gate, up = torch.mm(self.normalised(states), layer.gate_up).chunk(2, -1)
        return torch.addmm(states, F.silu(gate) * up, layer.down)

    def logits(self, states: Tensor) -> Tensor:
        """(R, vocabulary) float32 of the last block's output (R, hidden)."""
        return torch.mm(self.normalised(states), self.head).float()
