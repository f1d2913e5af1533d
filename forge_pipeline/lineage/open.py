"""The lineage of a project: its recipes, over its store, for the batches that have landed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forge_pipeline.lineage.batches import Batches
from forge_pipeline.lineage.corpus import corpus_stages
from forge_pipeline.lineage.execution import Lineage
from forge_pipeline.lineage.model import model_stages
from forge_pipeline.lineage.recipes import (
    CorpusRecipe,
    ModelRecipe,
    Recipes,
    read_recipes,
    recipes_folder,
    resolve_sources,
)
from forge_pipeline.lineage.stage import Stage
from forge_pipeline.storage import ArtifactStore, Home, open_store


@dataclass(frozen=True)
class Project:
    """Recipes and the store they work in."""

    recipes: Recipes
    store: ArtifactStore

    @classmethod
    def locate(cls, folder: Path | None = None) -> Project:
        """The project whose recipes lie in ``folder`` (the package's own by default), in the home folder."""
        return cls(read_recipes(folder or recipes_folder()), open_store(Home.locate()))

    def batches(self, corpus: str) -> Batches:
        recipe, documents_from = resolve_sources(corpus, self.recipes.corpora[corpus])
        return Batches(corpus, recipe.landing, self.store, documents_from)

    def stages(self) -> list[Stage]:
        """The stages of every recipe."""
        return project_stages(self.recipes.corpora, self.recipes.models)

    def lineage(self) -> Lineage:
        """The whole lineage as it stands now."""
        names = {corpus: self.batches(corpus).names() for corpus in self.recipes.corpora}
        return Lineage(self.stages(), self.store, names)


def project_stages(corpora: dict[str, CorpusRecipe], models: dict[str, ModelRecipe]) -> list[Stage]:
    stages = [stage for name, recipe in corpora.items() for stage in corpus_stages(name, recipe)]
    return stages + [stage for name, recipe in models.items() for stage in model_stages(name, recipe)]
