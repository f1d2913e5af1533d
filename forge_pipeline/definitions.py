"""The code location: everything in `defs/`, or in the recipes folder that the environment names."""

import os
from pathlib import Path

import dagster as dg

from forge_pipeline.environment import prepare

prepare()


@dg.definitions
def defs() -> dg.Definitions:
    from forge_pipeline.lineage.recipes import RECIPES_VARIABLE

    if os.environ.get(RECIPES_VARIABLE):
        from forge_pipeline.components.folder import definitions_of_folder

        return definitions_of_folder(Path(os.environ[RECIPES_VARIABLE]))
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
