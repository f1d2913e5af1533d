"""Recipes: what a person writes in a `defs.yaml`, and how it is read and checked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forge_pipeline.agents.settings import AgentSettings
from forge_pipeline.alignment.settings import ExampleSettings, PairSettings, PreferenceSettings, SupervisedSettings
from forge_pipeline.corpus.settings import (
    CurationSettings,
    DeduplicationSettings,
    ExtractionSettings,
    InventorySettings,
    LandingSettings,
    SourceSettings,
    SplittingSettings,
)
from forge_pipeline.errors import RecipeError, SourceError
from forge_pipeline.evaluation.settings import EvaluationSettings
from forge_pipeline.governance.settings import AuditSettings
from forge_pipeline.models.architecture import ArchitectureSettings
from forge_pipeline.planning.settings import PlanningSettings
from forge_pipeline.release.settings import ReleaseSettings
from forge_pipeline.tokens.settings import ShardSettings, TokenizerSettings
from forge_pipeline.training.settings import EngineSettings, PretrainingSettings

CORPUS_COMPONENT = "forge_pipeline.components.CorpusComponent"
MODEL_COMPONENT = "forge_pipeline.components.ModelComponent"
RECIPE_FILE = "defs.yaml"
# Folders that stand in for a corpus's sources, as JSON: {"corpus": ["/a/folder", ...]}.
SOURCES_VARIABLE = "FORGE_SOURCES"
RECIPE_SOURCES = "recipe"
# A folder of recipes in the place of the project's own, for those who keep theirs outside the checkout.
RECIPES_VARIABLE = "FORGE_RECIPES"

T = TypeVar("T", bound=BaseModel)


class CorpusRecipe(BaseModel):
    """Files to clean, attributed, unique documents, and to the tokens a model reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    landing: LandingSettings
    extraction: ExtractionSettings = ExtractionSettings()
    curation: CurationSettings = CurationSettings()
    deduplication: DeduplicationSettings = DeduplicationSettings()
    splitting: SplittingSettings = SplittingSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    shards: ShardSettings = ShardSettings()
    inventory: InventorySettings = InventorySettings()


class SupervisedStage(BaseModel):
    """Supervised fine-tuning: examples and how they are trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    examples: ExampleSettings = ExampleSettings()
    training: SupervisedSettings


class PreferenceStage(BaseModel):
    """Preference optimisation: pairs and how they are trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: PairSettings = PairSettings()
    training: PreferenceSettings


class AgentStage(BaseModel):
    """Reinforcement learning on tasks with tools."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: AgentSettings = AgentSettings()
    engine: EngineSettings


class ModelRecipe(BaseModel):
    """A model and the stages it goes through. A training stage that is left out does not exist in the graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: str = Field(description="name of the corpus recipe it is trained on")
    architecture: ArchitectureSettings = ArchitectureSettings()
    planning: PlanningSettings = PlanningSettings()
    pretraining: PretrainingSettings
    supervised: SupervisedStage | None = None
    preferences: PreferenceStage | None = None
    agent: AgentStage | None = None
    evaluation: EvaluationSettings = EvaluationSettings()
    base_evaluation: EvaluationSettings | None = Field(
        None, description="after pre-training, if it is to read more held-out text there than after later stages"
    )
    release: ReleaseSettings
    audit: AuditSettings = AuditSettings()

    def evaluation_of(self, stage: str) -> EvaluationSettings:
        """The settings of the evaluation after a training stage."""
        return self.base_evaluation or self.evaluation if stage == "base_model" else self.evaluation


@dataclass(frozen=True)
class Recipes:
    """All recipes of a folder, by name."""

    corpora: dict[str, CorpusRecipe]
    models: dict[str, ModelRecipe]

    def model(self, name: str) -> ModelRecipe:
        if name not in self.models:
            known = ", ".join(sorted(self.models)) or "none"
            raise RecipeError(
                f"there is no model {name!r}", fix=f"choose one of: {known}; or write one: forge init NAME"
            )
        return self.models[name]


def recipes_folder() -> Path:
    """Where the recipes are: the folder that the environment names, else the project's own."""
    return Path(os.environ.get(RECIPES_VARIABLE) or Path(__file__).parents[1] / "defs")


def read_recipes(folder: Path) -> Recipes:
    """Every recipe below ``folder``. Raises RecipeError, naming file, line and field, at the first fault."""
    corpora: dict[str, CorpusRecipe] = {}
    models: dict[str, ModelRecipe] = {}
    places: dict[str, Path] = {}
    for path in sorted(folder.glob(f"*/{RECIPE_FILE}")):
        name = path.parent.name
        for kind, attributes, lines in _documents(path):
            if kind == CORPUS_COMPONENT:
                corpora[name] = _validate(CorpusRecipe, attributes, path, lines)
            elif kind == MODEL_COMPONENT:
                models[name] = _validate(ModelRecipe, attributes, path, lines)
                places[name] = path
    for name, recipe in models.items():
        if recipe.corpus not in corpora:
            raise RecipeError(
                f"the corpus {recipe.corpus!r} does not exist",
                where=f"{places[name]}: attributes.corpus",
                fix=f"write one of: {', '.join(sorted(corpora)) or 'none yet; make one with forge init'}",
            )
    return Recipes(corpora, models)


def with_sources(recipe: CorpusRecipe, folders: list[str]) -> CorpusRecipe:
    """The recipe reading these folders instead of its own sources."""
    sources = []
    for index, folder in enumerate(folders, start=1):
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise SourceError(
                f"the source folder {folder!r} does not exist", where="--source", fix="give the path of a folder"
            )
        sources.append(
            SourceSettings(name=f"source-{index}", location=str(path.resolve()), licence="unstated", owner="unstated")
        )
    return recipe.model_copy(update={"landing": recipe.landing.model_copy(update={"sources": tuple(sources)})})


def chosen_sources(corpus: str) -> list[str]:
    """The folders that the environment puts in the place of a corpus's own sources (none: an empty list)."""
    return json.loads(os.environ.get(SOURCES_VARIABLE, "{}")).get(corpus, [])


def resolve_sources(corpus: str, recipe: CorpusRecipe) -> tuple[CorpusRecipe, str]:
    """The recipe with the sources in force, and what tells their batches apart from others'."""
    folders = chosen_sources(corpus)
    if not folders:
        return recipe, RECIPE_SOURCES
    changed = with_sources(recipe, folders)
    return changed, json.dumps([source.location for source in changed.landing.sources])


# -- reading YAML with places ------------------------------------------------------------------------------


def _documents(path: Path) -> Iterator[tuple[str, Any, yaml.Node | None]]:
    """Type, attributes and the attributes' YAML node of each document of a recipe file."""
    try:
        nodes = list(yaml.compose_all(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise RecipeError(f"not YAML: {error}", where=str(path), fix="correct the syntax at that line") from error
    for node in nodes:
        constructor = yaml.SafeLoader("")
        body = constructor.construct_document(node)
        if not isinstance(body, dict) or "type" not in body:
            raise RecipeError(
                "a recipe needs the fields type and attributes", where=f"{path}:{node.start_mark.line + 1}"
            )
        attributes = next((value for key, value in node.value if key.value == "attributes"), None)
        yield body["type"], body.get("attributes") or {}, attributes


def _validate(model: type[T], attributes: Any, path: Path, node: yaml.Node | None) -> T:
    try:
        return model.model_validate(attributes)
    except ValidationError as error:
        # A misspelt field also leaves the right one missing: the misspelling is the one to tell.
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        field = ".".join(str(part) for part in first["loc"])
        line = _line_of(node, first["loc"])
        unknown = first["type"] == "extra_forbidden"
        problem = "unknown field" if unknown else first["msg"]
        shown = "" if unknown or first["type"] == "missing" else f" (got {first['input']!r})"
        raise RecipeError(
            f"{field or 'attributes'}: {problem}{shown}",
            where=f"{path}:{line}: attributes.{field}" if line else f"{path}: attributes.{field}",
            fix=_fix(model, first["loc"], first["type"]),
        ) from None


def _line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int | None:
    """The line of the deepest part of ``location`` that is written in the file."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == part), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _fix(model: type[BaseModel], location: tuple[int | str, ...], kind: str) -> str:
    """What may stand at ``location``: the known fields, or the field's description."""
    owner: Any = model
    for part in location[:-1]:
        field = owner.model_fields.get(str(part)) if isinstance(owner, type) and issubclass(owner, BaseModel) else None
        owner = _model_in(field.annotation) if field is not None else None
        if owner is None:
            break
    if owner is None or not location:
        return "correct the value"
    if kind == "extra_forbidden":
        return f"remove it, or use one of: {', '.join(owner.model_fields)}"
    field = owner.model_fields.get(str(location[-1]))
    return f"give {field.description}" if field is not None and field.description else "correct the value"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings model inside an annotation such as ``X | None`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part))), None)
