"""Scores are those of the plain forward pass, whatever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forge_pipeline.inference import scoring
from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.models.files import new_model

MODEL = new_model(
    ModelConfig.build(
        ArchitectureSettings(
            hidden_size=32, layers=2, heads=2, key_value_heads=1, intermediate_size=64, context_length=64
        ),
        vocabulary_size=50,
    ),
    seed=3,
)
with torch.no_grad():
    for _index, _parameter in enumerate(MODEL.parameters()):
        _parameter.add_(torch.randn(_parameter.shape, generator=torch.Generator().manual_seed(_index)) * 0.2)


def test_sums_are_those_of_single_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    lengths = [1, 2, 3, 17, 40, 40, 5, 63]
    sequences = [generator.integers(0, 50, length).tolist() for length in lengths]
    masks = [[False, *(generator.random(length - 1) < 0.5).tolist()] for length in lengths]
    expected = []
    for sequence, mask in zip(sequences, masks, strict=True):
        with torch.no_grad():
            log_probs = torch.log_softmax(MODEL(torch.tensor([sequence]))[0].double(), -1)
        expected.append(sum(float(log_probs[i - 1, sequence[i]]) for i in range(len(sequence)) if mask[i]))
    assert scoring.sequence_log_probs(MODEL, sequences, masks) == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 50)
    assert scoring.sequence_log_probs(MODEL, sequences, masks) == pytest.approx(expected, abs=1e-4)


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="its mask 1"):
        scoring.sequence_log_probs(MODEL, [[1, 2]], [[False]])
    with pytest.raises(ValueError, match="first token"):
        scoring.sequence_log_probs(MODEL, [[1, 2]], [[True, True]])
