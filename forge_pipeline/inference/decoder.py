"""Batched decoding in lockstep: each step feeds one token of every row, sampled or forced.

Rows need no padding against each other: each has its own position, and a tool's result or the next prompt is
queued as forced tokens while other rows sample. Rows that are done leave the batch at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from forge_pipeline.inference.weights import DecodingWeights
from forge_pipeline.models.mistral import Mistral, attend

End = Literal["stop", "length", "capacity"]


@dataclass(frozen=True)
class Segment:
    """Tokens sampled in a row without interruption: ``tokens[start:end]`` of the row. ``end_token`` is the stop
    token that closed it (its last token), None if it ran into the limit."""

    row: int
    start: int
    tokens: tuple[int, ...]
    end_token: int | None


# Called at the end of each segment: forced tokens to go on with, or None to finish the row.
Continuation = Callable[[Segment], Sequence[int] | None]


@dataclass
class Decoded:
    """One finished row. ``sampled`` and ``log_probs`` are as long as ``tokens``; the log-probability (nats, at
    the sampling temperature; at 1 for greedy decoding) of a token that was not sampled is 0."""

    tokens: list[int]
    prompt_length: int
    sampled: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    end: End = "stop"


@dataclass
class _Row:
    index: int
    result: Decoded
    uniforms: np.ndarray
    pending: deque[int] = field(default_factory=deque)
    segment_start: int = 0
    position: int = 0
    done: bool = False


@dataclass(frozen=True)
class DecodingLimits:
    """``capacity`` bounds all tokens of a row (at most the model's context length), ``new_tokens`` each segment;
    ``rows`` are decoded at once, which bounds the cache: 2 * layers * rows * capacity * K * D values."""

    capacity: int
    new_tokens: int
    rows: int = 128


class Decoder:
    """Decodes with a snapshot of a model's weights. Nothing is kept from one call to the next."""

    def __init__(self, model: Mistral, dtype: torch.dtype | None = None) -> None:
        """``dtype`` is the precision of the matrix products and the cache; None takes that of the weights."""
        self.weights = DecodingWeights(model, dtype)
        self.config = model.config

    @torch.inference_mode()
    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        copies: int,
        *,
        limits: DecodingLimits,
        stop_ids: frozenset[int],
        temperature: float,
        streams: Sequence[Sequence[int]],
        continuation: Continuation | None = None,
    ) -> list[Decoded]:
        """Decode ``copies`` rows of each prompt; row p * copies + c is copy c of prompt p.

        Each row draws from its own random stream, named by ``streams[row]`` (entropy for NumPy's default_rng),
        so that what it samples does not depend on which rows share its batch (beyond rounding). Temperature 0
        takes the likeliest token. Raises ValueError for prompts that are empty or leave no room to decode.
        """
        if limits.capacity > self.config.context_length:
            raise ValueError(f"capacity {limits.capacity} exceeds the context length {self.config.context_length}")
        for index, prompt in enumerate(prompts):
            if not 0 < len(prompt) < limits.capacity:
                raise ValueError(f"prompt {index} has {len(prompt)} tokens, not 1 to {limits.capacity - 1}")
        if len(streams) != len(prompts) * copies:
            raise ValueError(f"{len(streams)} random streams for {len(prompts) * copies} rows")
        finished: list[Decoded] = []
        at_once = max(1, limits.rows // copies)
        for first in range(0, len(prompts), at_once):
            chunk = prompts[first : first + at_once]
            rows = [
                _Row(
                    index=first * copies + offset,
                    result=Decoded(list(chunk[offset // copies]), len(chunk[offset // copies])),
                    uniforms=np.random.default_rng(list(streams[first * copies + offset])).random(limits.capacity),
                )
                for offset in range(len(chunk) * copies)
            ]
            _Lockstep(self.weights, rows, limits, stop_ids, temperature, continuation).run(chunk, copies)
            finished.extend(row.result for row in rows)
        return finished


class _Lockstep:
    """One batch of rows, from prefill to the last finished row."""

    def __init__(
        self,
        weights: DecodingWeights,
        rows: list[_Row],
        limits: DecodingLimits,
        stop_ids: frozenset[int],
        temperature: float,
        continuation: Continuation | None,
    ) -> None:
        self.weights, self.limits, self.stop_ids = weights, limits, stop_ids
        self.temperature, self.continuation = temperature, continuation
        self.active = list(rows)
        config, device = weights.config, weights.embedding.device
        shape = (config.layers, len(rows), config.key_value_heads, limits.capacity, config.head_dim)
        # Zeros, not whatever memory held: a mask or a weight of 0 would not rid the sums of a stray NaN.
        self.keys = torch.zeros(shape, dtype=weights.dtype, device=device)
        self.values = torch.zeros(shape, dtype=weights.dtype, device=device)
        self.device = device

    def run(self, prompts: Sequence[Sequence[int]], copies: int) -> None:
        for row in self.active:
            row.result.sampled = [False] * row.result.prompt_length
            row.result.log_probs = [0.0] * row.result.prompt_length
            row.segment_start = row.position = row.result.prompt_length
        states = self._prefill(prompts, copies)
        self._sample(list(range(len(self.active))), states)
        self._compact()
        while self.active:
            states = self._step()
            sampling = [slot for slot, row in enumerate(self.active) if not row.pending]
            if sampling:
                everything = len(sampling) == len(self.active)
                self._sample(sampling, states if everything else states[torch.tensor(sampling, device=self.device)])
            self._compact()

    def _prefill(self, prompts: Sequence[Sequence[int]], copies: int) -> Tensor:
        """Run each prompt once and hand its keys and values to its copies; returns the last states (R, hidden)."""
        weights, config = self.weights, self.weights.config
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        longest = int(lengths.max())
        # Padded on the right: under causal attention the padding is never seen by what comes before it.
        padded = torch.zeros(len(prompts), longest, dtype=torch.long)
        for index, prompt in enumerate(prompts):
            padded[index, : len(prompt)] = torch.tensor(list(prompt))
        states = weights.embedding[padded.to(self.device)].view(-1, config.hidden_size)
        positions = torch.arange(longest, device=self.device).repeat(len(prompts))
        for number, layer in enumerate(weights.layers):
            query, key, value = (
                part.view(len(prompts), longest, -1, config.head_dim).transpose(1, 2)
                for part in weights.project(layer, states, positions)
            )
            self.keys[number, :, :, :longest] = key.repeat_interleave(copies, 0)
            self.values[number, :, :, :longest] = value.repeat_interleave(copies, 0)
            # The scale is folded into the queries already, and `attend` scales by itself.
            mixed = attend(query * config.head_dim**0.5, key, value, None)
            states = weights.after_attention(layer, states, mixed.transpose(1, 2).reshape(len(states), -1))
        last = states.view(len(prompts), longest, -1)[torch.arange(len(prompts), device=self.device), lengths - 1]
        return last.repeat_interleave(copies, 0)

    def _step(self) -> Tensor:
        """Feed one token of every active row; returns the last block's output (R, hidden)."""
        weights, config, rows = self.weights, self.weights.config, len(self.active)
        groups, size = config.key_value_heads, config.head_dim
        tokens = torch.tensor([row.pending.popleft() for row in self.active], device=self.device)
        places = [row.position for row in self.active]
        for row in self.active:
            row.position += 1
        positions = torch.tensor(places, device=self.device)
        length = max(places) + 1
        slots = torch.arange(rows, device=self.device)
        unseen = torch.arange(length, device=self.device)[None] > positions[:, None]
        mask = torch.zeros(rows, length, dtype=weights.dtype, device=self.device)
        mask = mask.masked_fill_(unseen, float("-inf"))[:, None, None]
        states = weights.embedding[tokens]
        for number, layer in enumerate(weights.layers):
            query, key, value = weights.project(layer, states, positions)
            keys, values = self.keys[number, :rows], self.values[number, :rows]
            keys[slots, :, positions] = key
            values[slots, :, positions] = value
            flat_keys = keys.view(rows * groups, -1, size)[:, :length]
            flat_values = values.view(rows * groups, -1, size)[:, :length]
            scores = torch.bmm(query.reshape(rows * groups, -1, size), flat_keys.transpose(1, 2))
            shares = torch.softmax(scores.view(rows, groups, -1, length) + mask, -1)
            mixed = torch.bmm(shares.view(rows * groups, -1, length), flat_values)
            states = weights.after_attention(layer, states, mixed.view(rows, -1))
        return states

    def _sample(self, slots: list[int], states: Tensor) -> None:
        """Draw the next token of the rows in ``slots`` from their states and see where each row goes from there."""
        logits = self.weights.logits(states)
        if self.temperature > 0:
            log_probs = torch.log_softmax(logits / self.temperature, -1)
            # Inverse of the cumulative distribution: one number per row decides, whatever the vocabulary.
            cumulative = log_probs.exp().cumsum(-1)
            uniforms = torch.tensor(
                [[self.active[slot].uniforms[len(self.active[slot].result.tokens)]] for slot in slots],
                dtype=cumulative.dtype,
                device=self.device,
            )
            chosen = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)
            # Rounding may put the drawn point at the very end.
            chosen.clamp_(max=logits.shape[-1] - 1)
        else:
            log_probs = torch.log_softmax(logits, -1)
            chosen = logits.argmax(-1, keepdim=True)
        drawn = log_probs.gather(1, chosen)[:, 0].tolist()
        for slot, token, log_prob in zip(slots, chosen[:, 0].tolist(), drawn, strict=True):
            self._extend(self.active[slot], token, log_prob)

    def _extend(self, row: _Row, token: int, log_prob: float) -> None:
        result = row.result
        result.tokens.append(token)
        result.sampled.append(True)
        result.log_probs.append(log_prob)
        stopped = token in self.stop_ids
        full = len(result.tokens) >= self.limits.capacity
        if not stopped and not full and len(result.tokens) - row.segment_start < self.limits.new_tokens:
            row.pending.append(token)
            return
        result.end = "stop" if stopped else "capacity" if full else "length"
        segment = Segment(
            row.index, row.segment_start, tuple(result.tokens[row.segment_start :]), token if stopped else None
        )
        forced = self.continuation(segment) if self.continuation else None
        if forced is None:
            row.done = True
            return
        if len(result.tokens) + len(forced) >= self.limits.capacity:
            # No room for another sampled token.
            row.done, result.end = True, "capacity"
            return
        row.pending.append(token)
        row.pending.extend(forced)
        result.tokens.extend(forced)
        result.sampled.extend([False] * len(forced))
        result.log_probs.extend([0.0] * len(forced))
        row.segment_start = len(result.tokens)

    def _compact(self) -> None:
        """Move the last active rows into the places of finished ones."""
        remaining = sum(not row.done for row in self.active)
        if remaining == len(self.active):
            return
        holes = [slot for slot in range(remaining) if self.active[slot].done]
        movers = [slot for slot in range(remaining, len(self.active)) if not self.active[slot].done]
        if holes:
            length = max(self.active[slot].position for slot in movers)
            into, source = torch.tensor(holes, device=self.device), torch.tensor(movers, device=self.device)
            self.keys[:, into, :, :length] = self.keys[:, source, :, :length]
            self.values[:, into, :, :length] = self.values[:, source, :, :length]
        for hole, mover in zip(holes, movers, strict=True):
            self.active[hole] = self.active[mover]
        del self.active[remaining:]
