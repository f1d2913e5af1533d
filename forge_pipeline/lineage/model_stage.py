"""A model by name, and the parts that its stages are put together from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from forge_pipeline.lineage.code import code_version
from forge_pipeline.lineage.recipes import ModelRecipe
from forge_pipeline.lineage.stage import Input, Scope, Stage, StageName, StageRun
from forge_pipeline.reporting import Outcome


@dataclass(frozen=True)
class Model:
    """A recipe under its name, which owns the model's stages."""

    name: str
    recipe: ModelRecipe

    def own(self, stage: str, name: str | None = None) -> Input:
        """The artifact of another of the model's stages; a stage's function calls it ``name``."""
        return Input(name or stage, StageName(self.name, stage))

    def corpus(self, stage: str, scope: Scope = Scope.ALL_BATCHES) -> Input:
        """What a stage of the corpus has made."""
        return Input(stage, StageName(self.recipe.corpus, stage), scope)

    @property
    def tokenizer(self) -> Input:
        return self.corpus("tokenizer", Scope.WHOLE)

    def stage(
        self,
        name: str,
        module: str,
        function: Callable[[StageRun], Outcome],
        *,
        group: str,
        description: str,
        kinds: tuple[str, ...],
        inputs: tuple[Input, ...],
        parameters: dict[str, Any],
        checks: tuple[str, ...] = (),
    ) -> Stage:
        """A stage of the model, whose results are of the version that ``module`` declares."""
        return Stage(
            name=StageName(self.name, name),
            group=group,
            description=description,
            kinds=kinds,
            inputs=inputs,
            parameters=parameters,
            code_version=code_version(module),
            function=function,
            checks=checks,
        )
