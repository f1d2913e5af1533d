"""What a recipe says about releasing a model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

# MLflow joins names into paths and URIs ("models:/name@alias").
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Threshold(BaseModel):
    """One condition of the release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str = Field(min_length=1, description="name of the metric in the stage's evaluation")
    stage: str | None = Field(
        None,
        description="the stage whose evaluation is judged; without it the condition is part of the target, which is "
        "judged at the released stage and decides which stage is the cheapest that would do",
    )
    at_least: float | None = Field(None, allow_inf_nan=False, description="smallest value that passes")
    at_most: float | None = Field(None, allow_inf_nan=False, description="largest value that passes")
    judged_by: Literal["value", "interval"] = Field(
        "value",
        description="'value' compares the measured value; 'interval' asks that all of its 95% interval passes",
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Threshold:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least and at_most")
        return self


class ServingSettings(BaseModel):
    """How the package is tried in a fresh process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: tuple[str, ...] = Field(
        ("What does os.path.join do?", "What is the signature of json.dumps?", "What does textwrap.dedent return?"),
        min_length=1,
        description="user messages that the packaged model answers",
    )
    system_prompt: str | None = Field(None, description="system message put before each prompt")
    max_new_tokens: int = Field(32, ge=1, le=4096, description="longest answer, in tokens")
    timeout_seconds: float = Field(300.0, gt=0, description="longest time the process may take, with loading")


class ReleaseSettings(BaseModel):
    """Thresholds, names and texts of a release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    registered_model: ModelName = Field(description="name in the MLflow model registry")
    released_stage: str | None = Field(
        None, description="the stage that is packaged; without it, the last stage that was evaluated"
    )
    thresholds: tuple[Threshold, ...] = Field(
        (), description="conditions that must all hold; with none, nothing is ever promoted"
    )
    champion_alias: ModelName = Field("champion", description="alias that a passed release moves to the new version")
    challenger_alias: ModelName = Field("challenger", description="alias of a version whose release did not pass")
    intended_use: str = Field(
        "", description="what the model is for, in the words of its owner; printed in the model card"
    )
    limits: tuple[str, ...] = Field((), description="known limits, in the words of its owner; printed in the card")
    serving: ServingSettings = Field(ServingSettings(), description="the serving check")

    @model_validator(mode="after")
    def _distinct(self) -> ReleaseSettings:
        if self.champion_alias == self.challenger_alias:
            raise ValueError("champion_alias and challenger_alias must differ")
        seen = [(limit.metric, limit.stage, limit.at_least is None) for limit in self.thresholds]
        for key in seen:
            if seen.count(key) > 1:
                raise ValueError(f"two thresholds bound {key[0]} of {key[1] or 'the target'} from the same side")
        return self
