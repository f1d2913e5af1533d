"""What a person writes about the tokenizer and the token shards. Pure data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# 256 bytes and seven special tokens: with these alone every text can be written.
SMALLEST_VOCABULARY = 263


class TokenizerSettings(BaseModel):
    """A byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909; byte alphabet of GPT-2)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary_size: int = Field(
        4096, ge=SMALLEST_VOCABULARY, le=1_000_000, description="tokens, with the special ones; less on little text"
    )
    digits: Literal["single", "up_to_three"] = Field(
        "single",
        description="how numbers are cut before merging: digit by digit (Qwen2's rule, which llama.cpp knows), or in "
        "groups of at most three (Llama 3's)",
    )
    minimum_frequency: int = Field(2, ge=1, description="a pair seen less often is not merged")
    training_bytes: int = Field(
        16_000_000,
        ge=1,
        description="train on about this much text; from a larger corpus, documents are drawn by their doc_id",
    )
    fertility_bytes: int = Field(
        64_000_000, ge=1, description="measure bytes per token on about this much text, drawn the same way"
    )


class ShardSettings(BaseModel):
    """How a batch's documents become token arrays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard_tokens: int = Field(
        100_000_000, ge=1, description="a shard is closed before it would hold more; a longer document has one alone"
    )
    verified_bytes: int = Field(
        500_000,
        ge=0,
        description="about this much of each batch is encoded a second time, with the reference, and compared",
    )
