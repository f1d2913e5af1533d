"""How likely a model finds given tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from forge_pipeline.models.mistral import Mistral

# Tokens of one batch, padding included.
BATCH_TOKENS = 8192


def token_log_probs(model: Mistral, token_ids: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (nats, float32) of the masked tokens, row by row in one vector.

    ``token_ids`` (B, T) int64 is padded on the right, ``mask`` (B, T) bool says which tokens count; the first
    token of a row has no prediction and must not be masked in. Gradients flow. Only masked positions pass
    through the head, which is the largest product of a small model.
    """
    targets = mask[:, 1:]
    states = model.hidden(token_ids[:, :-1])[targets]
    logits = model.head(states).float() / temperature
    chosen = token_ids[:, 1:][targets]
    return logits.gather(1, chosen[:, None])[:, 0] - torch.logsumexp(logits, -1)


@torch.inference_mode()
def sequence_log_probs(
    model: Mistral, sequences: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]]
) -> list[float]:
    """The sum of the log-probabilities (nats) of each sequence's masked tokens.

    Raises ValueError if a mask does not fit its sequence or asks for the first token, which nothing predicts.
    """
    for index, (sequence, mask) in enumerate(zip(sequences, masks, strict=True)):
        if len(sequence) != len(mask):
            raise ValueError(f"sequence {index} has {len(sequence)} tokens, its mask {len(mask)}")
        if mask and mask[0]:
            raise ValueError(f"the mask of sequence {index} asks for its first token")
    device = model.model.embed_tokens.weight.device
    totals = [0.0] * len(sequences)
    for batch in _batches([len(sequence) for sequence in sequences]):
        width = max(len(sequences[index]) for index in batch)
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        counted = torch.zeros(len(batch), width, dtype=torch.bool)
        for row, index in enumerate(batch):
            tokens[row, : len(sequences[index])] = torch.tensor(list(sequences[index]))
            counted[row, : len(sequences[index])] = torch.tensor(list(masks[index]))
        values = token_log_probs(model, tokens.to(device), counted.to(device)).double()
        owners = counted[:, 1:].nonzero()[:, 0].to(device)
        sums = torch.zeros(len(batch), dtype=torch.float64, device=device).index_add_(0, owners, values)
        for index, total in zip(batch, sums.tolist(), strict=True):
            totals[index] = total
    return totals


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of the sequences of two tokens or more, in batches of like length."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if lengths[index] < 2:
            continue
        if batch and (len(batch) + 1) * lengths[index] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
