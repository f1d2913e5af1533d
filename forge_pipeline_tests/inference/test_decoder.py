"""Decoding with the cache gives what the full forward pass gives, whatever the rows around it do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_pipeline.inference.decoder import Decoded, Decoder, DecodingLimits, Segment
from forge_pipeline.inference.generate import generate
from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.models.files import new_model
from forge_pipeline.models.mistral import Mistral

VOCABULARY = 97
SETTINGS = ArchitectureSettings(
    hidden_size=64, layers=3, heads=4, key_value_heads=2, intermediate_size=96, context_length=64
)


def scrambled(key_value_heads: int = 2, tie: bool = True) -> Mistral:
    """A random model none of whose parts is the identity, and whose choices are not ties."""
    shape = SETTINGS.model_copy(update={"key_value_heads": key_value_heads, "tie_embeddings": tie})
    model = new_model(ModelConfig.build(shape, VOCABULARY), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model


MODEL = scrambled()


def random_prompts(count: int, seed: int, longest: int = 20) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, VOCABULARY, generator.integers(1, longest)).tolist() for _ in range(count)]


def naive_greedy(model: Mistral, prompt: list[int], new_tokens: int, stop: frozenset[int]) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + new_tokens:
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] in stop:
            break
    return tokens[len(prompt) :]


def assert_log_probs_match(model: Mistral, row: Decoded, temperature: float) -> None:
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([row.tokens]))[0] / temperature, -1)
    for position, (token, sampled, log_prob) in enumerate(zip(row.tokens, row.sampled, row.log_probs, strict=True)):
        if sampled:
            assert log_prob == pytest.approx(float(expected[position - 1, token]), abs=1e-4)
        else:
            assert log_prob == 0.0


@pytest.mark.parametrize(("key_value_heads", "tie"), [(2, True), (4, False), (1, True)])
def test_greedy_tokens_are_those_of_a_loop_of_full_forward_passes(key_value_heads: int, tie: bool) -> None:
    model = scrambled(key_value_heads, tie)
    prompts = random_prompts(9, seed=3)
    stop = frozenset(range(0, VOCABULARY, 20))
    expected = [naive_greedy(model, prompt, 25, stop) for prompt in prompts]
    assert generate(model, prompts, 25, stop_ids=stop, rows=4) == expected
    # The rows did end at different times, or the test would not cover compaction.
    assert len({len(tokens) for tokens in expected}) > 2


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_those_of_the_full_forward_pass(temperature: float) -> None:
    prompts = random_prompts(5, seed=4)
    rows = Decoder(MODEL).decode(
        prompts,
        3,
        limits=DecodingLimits(capacity=48, new_tokens=20),
        stop_ids=frozenset({5, 6, 7}),
        temperature=temperature,
        streams=[(8, row) for row in range(15)],
    )
    for index, row in enumerate(rows):
        assert row.tokens[: row.prompt_length] == prompts[index // 3]
        assert_log_probs_match(MODEL, row, temperature)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), new_tokens=st.integers(1, 12), capacity=st.integers(22, 64))
def test_forced_tokens_of_any_length_stand_where_they_were_queued(seed: int, new_tokens: int, capacity: int) -> None:
    prompts = random_prompts(4, seed)
    copies, stop = 2, frozenset(range(0, VOCABULARY, 4))
    queued: dict[int, list[tuple[int, list[int]]]] = {row: [] for row in range(len(prompts) * copies)}

    def continuation(segment: Segment) -> list[int] | None:
        generator = np.random.default_rng([seed, segment.row, segment.start])
        if segment.end_token is None or len(queued[segment.row]) == 3:
            return None
        forced = generator.integers(0, VOCABULARY, generator.integers(1, 9)).tolist()
        queued[segment.row].append((segment.start + len(segment.tokens), forced))
        return forced

    rows = Decoder(MODEL).decode(
        prompts,
        copies,
        limits=DecodingLimits(capacity=capacity, new_tokens=new_tokens),
        stop_ids=stop,
        temperature=1.0,
        streams=[(seed, row) for row in range(len(prompts) * copies)],
        continuation=continuation,
    )
    for index, row in enumerate(rows):
        assert len(row.tokens) <= capacity
        assert_log_probs_match(MODEL, row, 1.0)
        expected = [False] * row.prompt_length + [True] * (len(row.tokens) - row.prompt_length)
        for place, forced in queued[index]:
            if place < len(row.tokens):
                assert row.tokens[place : place + len(forced)] == forced
                expected[place : place + len(forced)] = [False] * len(forced)
        assert row.sampled == expected


def test_a_row_samples_the_same_whoever_shares_its_batch() -> None:
    prompts = random_prompts(6, seed=5)

    def decode(chosen: list[int], rows: int) -> dict[int, list[int]]:
        decoded = Decoder(MODEL).decode(
            [prompts[index] for index in chosen],
            1,
            limits=DecodingLimits(capacity=64, new_tokens=16, rows=rows),
            stop_ids=frozenset({1, 2, 3}),
            temperature=1.0,
            streams=[(7, index) for index in chosen],
        )
        return {index: row.tokens for index, row in zip(chosen, decoded, strict=True)}

    together = decode([0, 1, 2, 3, 4, 5], rows=128)
    assert decode([5, 2, 0, 1, 4, 3], rows=2) == together
    assert decode([3], rows=1)[3] == together[3]


def test_sampling_follows_the_models_distribution() -> None:
    prompt = [3, 1, 4]
    draws = 20_000
    rows = Decoder(MODEL).decode(
        [prompt],
        draws,
        limits=DecodingLimits(capacity=4, new_tokens=1, rows=draws),
        stop_ids=frozenset(),
        temperature=1.0,
        streams=[(9, row) for row in range(draws)],
    )
    with torch.no_grad():
        expected = torch.softmax(MODEL(torch.tensor([prompt]))[0, -1], -1).double().numpy()
    counts = np.bincount([row.tokens[-1] for row in rows], minlength=VOCABULARY)
    # Pearson's statistic over outcomes that are expected at least five times.
    usual = expected * draws >= 5
    statistic = float((((counts - expected * draws) ** 2) / (expected * draws))[usual].sum())
    degrees = int(usual.sum())
    assert statistic < degrees + 5 * np.sqrt(2 * degrees)


def test_bfloat16_stays_near_float32() -> None:
    prompts = random_prompts(4, seed=6)
    rows = Decoder(MODEL, torch.bfloat16).decode(
        prompts,
        2,
        limits=DecodingLimits(capacity=40, new_tokens=10),
        stop_ids=frozenset(),
        temperature=1.0,
        streams=[(8, row) for row in range(8)],
    )
    for row in rows:
        with torch.no_grad():
            exact = torch.log_softmax(MODEL(torch.tensor([row.tokens]))[0], -1)
        differences = [
            abs(log_prob - float(exact[position - 1, row.tokens[position]]))
            for position, log_prob in enumerate(row.log_probs)
            if row.sampled[position]
        ]
        assert max(differences) < 0.5
        assert float(np.mean(differences)) < 0.1


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    for prompt in ([], list(range(64))):
        with pytest.raises(ValueError, match="prompt 0 has"):
            generate(MODEL, [prompt], 5)
