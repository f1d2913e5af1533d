"""Plain generation: prompts in, continuations out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from forge_pipeline.inference.decoder import Decoder, DecodingLimits
from forge_pipeline.models.mistral import Mistral


def generate(
    model: Mistral,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop_ids: Collection[int] = (),
    rows: int = 64,
) -> list[list[int]]:
    """The new tokens after each prompt, the stop token included where one was reached.

    Temperature 0 is greedy. Prompt i draws from the stream (seed, i). Prompts are decoded ``rows`` at once, in
    batches of like length. Raises ValueError for a prompt that is empty or fills the model's context.
    """
    if not prompts or max_new_tokens < 1:
        return [[] for _ in prompts]
    capacity = min(model.config.context_length, max(map(len, prompts)) + max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    decoded = Decoder(model, model.compute_dtype).decode(
        [prompts[index] for index in order],
        1,
        limits=DecodingLimits(capacity=capacity, new_tokens=max_new_tokens, rows=rows),
        stop_ids=frozenset(stop_ids),
        temperature=temperature,
        streams=[(seed, index) for index in order],
    )
    results: list[list[int]] = [[] for _ in prompts]
    for index, row in zip(order, decoded, strict=True):
        results[index] = row.tokens[row.prompt_length :]
    return results
