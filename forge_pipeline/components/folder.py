"""Recipes from a folder outside the project, where Dagster's component loader does not look."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from forge_pipeline.components.corpus import corpus_definitions
from forge_pipeline.components.model import model_definitions
from forge_pipeline.lineage.recipes import read_recipes


def definitions_of_folder(folder: Path) -> dg.Definitions:
    """The same definitions that `defs/` with these recipes would give."""
    recipes = read_recipes(folder)
    return dg.Definitions.merge(
        *(corpus_definitions(name, recipe) for name, recipe in recipes.corpora.items()),
        *(model_definitions(name, recipe) for name, recipe in recipes.models.items()),
    )
