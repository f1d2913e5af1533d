"""The small corpora, tokenizer and model of this room's tests."""

from __future__ import annotations

import pytest

from forge_pipeline_tests.small_corpora import model, one_thread, tokenizer, write_corpus

__all__ = ["model", "one_thread", "tokenizer", "write_corpus"]


@pytest.fixture
def context_length() -> int:
    """Of the small model."""
    return 128
