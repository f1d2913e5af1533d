"""One training run as one complete, typed configuration: what `run.json` holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from forge_pipeline.training.settings import EngineSettings

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
# What the last step leaves in the work folder, to be moved into the artifact.
RESULT_FOLDER = "result"


class NewModel(BaseModel):
    """A model to be made from random weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    shape: dict[str, Any] = Field(description="the fields of models.architecture.ModelConfig")
    seed: int


class TrainingRun(BaseModel):
    """Everything the training processes need. Paths are absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: str = Field(pattern=r"^forge_pipeline(\.\w+)+:\w+$", description="module:class of the objective")
    objective_settings: dict[str, Any]
    initial_model: str | NewModel = Field(description="folder of a model, or how to make a new one")
    tokenizer: str = Field(description="folder of the tokenizer that the model is saved with")
    engine: EngineSettings

    def write(self, folder: Path) -> Path:
        path = folder / RUN_FILE
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> TrainingRun:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
