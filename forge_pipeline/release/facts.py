"""What a model card may say about where a model comes from: facts read from sealed records and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from forge_pipeline.reporting import Scalar


class SourceFacts(BaseModel):
    """One source of documents, as far as this model was trained on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="URI or path of the source")
    licence: str = Field(description="licence its owner stated; empty if none was stated")
    owner: str = Field(description="who owns the data; empty if nobody was stated")
    purpose: str = Field(description="what the data may be used for; empty if nothing was stated")
    landed: int = Field(ge=0, description="files found")
    documents: int = Field(ge=0, description="documents that reached the training set")
    tokens: int = Field(ge=0, description="tokens of the training split")


class StageFacts(BaseModel):
    """One training stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str = Field(description="name of the stage")
    fingerprint: str = Field(description="fingerprint of the model artifact")
    seconds: float = Field(ge=0, description="wall time of the training")
    parameters: dict[str, Scalar] = Field(default_factory=dict, description="settings, flattened with dots")
    counts: dict[str, Scalar] = Field(default_factory=dict, description="headline figures that the stage recorded")


class LineageFacts(BaseModel):
    """All that is known of a model's lineage at packaging time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="name of the model's recipe")
    corpus: str = Field(description="name of the corpus's recipe")
    batches: int = Field(ge=0, description="batches of documents")
    documents: int = Field(ge=0, description="documents in the training set, all splits")
    training_tokens: int = Field(ge=0, description="tokens in the training split")
    tokens_seen: int = Field(ge=0, description="tokens that pre-training has seen, with repetition")
    sources: tuple[SourceFacts, ...] = Field((), description="where the documents came from")
    stages: tuple[StageFacts, ...] = Field((), description="training stages, in order")
    fingerprints: dict[str, str] = Field(
        default_factory=dict, description="artifact -> fingerprint, of all artifacts the model was made from"
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Nested settings as one level, keys joined by dots; lists become text."""
    flat: dict[str, Scalar] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
    return flat
