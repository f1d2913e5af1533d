"""What a person writes about a model's shape, and the full shape that follows from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from forge_pipeline.errors import StorageError

CONFIG_FILE = "config.json"


class ArchitectureSettings(BaseModel):
    """A Mistral decoder (Jiang et al. 2023, arXiv 2310.06825): RMSNorm, rotary positions, grouped-query
    attention, SwiGLU. The vocabulary comes from the corpus's tokenizer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden_size: int = Field(256, ge=32, description="width of the residual stream")
    layers: int = Field(4, ge=1, description="number of decoder blocks")
    heads: int = Field(4, ge=1, description="attention heads; hidden_size must be a multiple of it")
    key_value_heads: int = Field(2, ge=1, description="key and value heads; heads must be a multiple of it")
    intermediate_size: int = Field(704, ge=32, description="width inside the feed-forward block")
    context_length: int = Field(512, ge=16, description="longest sequence the model is made for, in tokens")
    rope_theta: float = Field(10_000.0, gt=0, description="base of the rotary frequencies")
    tie_embeddings: bool = Field(
        False, description="use the input embedding as the output head too: fewer parameters, slower learning"
    )

    @model_validator(mode="after")
    def _divisible(self) -> ArchitectureSettings:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        if (self.hidden_size // self.heads) % 2:
            raise ValueError(f"the head size {self.hidden_size // self.heads} is odd; rotary positions need it even")
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of key_value_heads {self.key_value_heads}")
        return self


@dataclass(frozen=True)
class ModelConfig:
    """The full shape of one model."""

    vocabulary_size: int
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate_size: int
    context_length: int
    rope_theta: float
    tie_embeddings: bool
    norm_epsilon: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.heads

    @classmethod
    def build(cls, settings: ArchitectureSettings, vocabulary_size: int) -> ModelConfig:
        return cls(vocabulary_size=vocabulary_size, **settings.model_dump())

    def parameters(self) -> int:
        """The number of trained values."""
        attention = self.hidden_size * self.head_dim * 2 * (self.heads + self.key_value_heads)
        feed_forward = 3 * self.hidden_size * self.intermediate_size
        embeddings = self.vocabulary_size * self.hidden_size * (1 if self.tie_embeddings else 2)
        return self.layers * (attention + feed_forward + 2 * self.hidden_size) + self.hidden_size + embeddings

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_hugging_face(self) -> dict[str, Any]:
        """The `config.json` that transformers, vLLM and llama.cpp's converter read."""
        return {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "vocab_size": self.vocabulary_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.context_length,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "rms_norm_eps": self.norm_epsilon,
            "tie_word_embeddings": self.tie_embeddings,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "sliding_window": None,
            "dtype": "float32",
        }

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """The shape of the model in ``folder``. Raises StorageError if it is missing or of another kind."""
        path = folder / CONFIG_FILE
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise StorageError(f"cannot read a model's shape: {error}", where=str(path)) from error
        if body.get("model_type") != "mistral":
            raise StorageError(
                f"model_type {body.get('model_type')!r} is not 'mistral'",
                where=str(path),
                fix="give the folder of a Mistral model in the Hugging Face layout",
            )
        return cls(
            vocabulary_size=body["vocab_size"],
            hidden_size=body["hidden_size"],
            layers=body["num_hidden_layers"],
            heads=body["num_attention_heads"],
            key_value_heads=body["num_key_value_heads"],
            intermediate_size=body["intermediate_size"],
            context_length=body["max_position_embeddings"],
            rope_theta=body["rope_theta"],
            tie_embeddings=body["tie_word_embeddings"],
            norm_epsilon=body["rms_norm_eps"],
        )
