"""What a person writes about supervised fine-tuning and preference optimisation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from forge_pipeline.training.settings import EngineSettings

ExampleKind = Literal[
    "summary",
    "signature",
    "name",
    "first_parameter",
    "last_parameter",
    "default_value",
    "parameter_count",
    "returns",
    "lookup",
    "section_summary",
    "section_heading",
    "section_start",
    "section_lookup",
]
EXAMPLE_KINDS: tuple[ExampleKind, ...] = ExampleKind.__args__  # type: ignore[attr-defined]

PairKind = Literal[
    "sibling_summary",
    "changed_signature",
    "wrong_parameter",
    "wrong_default",
    "wrong_lookup",
    "sibling_section",
    "rambling",
]
PAIR_KINDS: tuple[PairKind, ...] = PairKind.__args__  # type: ignore[attr-defined]


class ExampleSettings(BaseModel):
    """Which chat examples and which held-out questions are made from the corpus's catalog."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: tuple[ExampleKind, ...] = Field(
        EXAMPLE_KINDS, min_length=1, description="kinds of example; those a corpus has no entries for make none"
    )
    maximum_per_kind: int = Field(800, ge=1, description="at most this many examples of one kind")
    demonstrations: int = Field(
        600, ge=0, description="at most this many demonstrations of tool use, if the model has agent tasks"
    )
    minimum_examples: int = Field(1000, ge=1, description="fewer examples than this fail the stage's check")
    validation_examples: int = Field(
        100, ge=0, description="examples from validation entries, for the loss during training"
    )
    held_out_questions: int = Field(400, ge=0, description="questions about test entries, for evaluation only")
    excerpt_characters: int = Field(320, ge=80, description="longest excerpt of a document inside a question")
    maximum_characters: int = Field(1600, ge=200, description="longer examples are refused, all messages counted")
    overlap_words: int = Field(
        13, ge=4, description="an example that shares this many consecutive words with a held-out entry is refused"
    )
    seed: int = Field(0, ge=0, description="which entries, phrasings and distractors are drawn")


class SupervisedSettings(BaseModel):
    """How the examples are trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows_per_step: int = Field(8, ge=1, description="packed rows per optimizer step, over all processes")
    row_tokens: int | None = Field(
        None, ge=16, description="tokens of one packed row; the model's context length if not given"
    )
    engine: EngineSettings


class PairSettings(BaseModel):
    """Which preference pairs are made from the corpus's catalog."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: tuple[PairKind, ...] = Field(
        PAIR_KINDS, min_length=1, description="how the worse answer goes wrong; kinds without entries make none"
    )
    maximum_per_kind: int = Field(400, ge=1, description="at most this many pairs of one kind")
    minimum_pairs: int = Field(1000, ge=1, description="fewer pairs than this fail the stage's check")
    held_out_pairs: int = Field(300, ge=0, description="pairs about test entries, for evaluation only")
    excerpt_characters: int = Field(320, ge=80, description="longest excerpt of a document inside a question")
    maximum_characters: int = Field(1600, ge=200, description="longer pairs are refused, prompt and longer answer")
    overlap_words: int = Field(
        13, ge=4, description="a pair that shares this many consecutive words with a held-out entry is refused"
    )
    seed: int = Field(0, ge=0, description="which entries, phrasings and corruptions are drawn")


class PreferenceSettings(BaseModel):
    """How the pairs are trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["dpo"] = Field("dpo", description="dpo: direct preference optimisation (arXiv 2305.18290)")
    beta: float = Field(0.1, gt=0, le=10, description="strength of the pull towards the reference model (DPO's beta)")
    chosen_weight: float = Field(
        0.0, ge=0, description="weight of the chosen answer's cross entropy per token beside the preference loss"
    )
    pairs_per_step: int = Field(16, ge=1, description="pairs per optimizer step, over all processes")
    row_tokens: int | None = Field(
        None, ge=16, description="tokens of one packed row; the model's context length if not given"
    )
    engine: EngineSettings
