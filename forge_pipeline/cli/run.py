"""`forge run`: from files to a registered model, making only what is not made yet."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forge_pipeline.cli import output
from forge_pipeline.cli.options import HomeOption, JsonOption, ModelArgument

if TYPE_CHECKING:
    from forge_pipeline.errors import ForgeError
    from forge_pipeline.lineage.execution import Lineage, Unit
    from forge_pipeline.lineage.open import Project


def run(
    model: ModelArgument = "python_assistant",
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="FOLDER", help="Documents to use instead of the recipe's own. Repeatable."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage (and what it needs).")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take documents to an evaluated, registered model, through Dagster."""
    from forge_pipeline.cli.summary import show_summary
    from forge_pipeline.lineage.open import Project
    from forge_pipeline.lineage.recipes import SOURCES_VARIABLE
    from forge_pipeline.lineage.summary import summarise

    project = Project.locate()
    corpus = project.recipes.model(model).corpus
    if source:
        # Through the environment, so that every process of the run sees the same sources.
        os.environ[SOURCES_VARIABLE] = json.dumps({corpus: [str(Path(folder).absolute()) for folder in source]})
    lineage, made = bring_up_to_date(project, model, until)
    summary = summarise(lineage, model, corpus) | {"made": [str(unit.key) for unit in made]}
    if as_json:
        output.print_json(summary)
    else:
        show_summary(summary)


def bring_up_to_date(project: Project, model: str, until: str | None) -> tuple[Lineage, list[Unit]]:
    """Register what has landed and make what is stale; returns the lineage as it is then, and what was made."""
    from forge_pipeline.cli.terminal import TerminalProgress

    corpus = project.recipes.model(model).corpus
    with TerminalProgress() as progress:
        project.batches(corpus).register(progress)
    lineage = project.lineage()
    stale = stale_units(lineage, model, corpus, until)
    if not stale:
        return lineage, []
    _make(project, model, stale)
    return project.lineage(), stale


def stale_units(lineage: Lineage, model: str, corpus: str, until: str | None) -> list[Unit]:
    """What has to be made for the model, or for one of its stages. Raises RecipeError for an unknown stage."""
    from forge_pipeline.errors import RecipeError

    own = [stage.name for stage in lineage.stages if stage.name.owner in (model, corpus)]
    if until is None:
        return lineage.stale(own)
    wanted = [name for name in own if name.stage == until]
    if not wanted:
        raise RecipeError(
            f"{model} has no stage {until!r}",
            where="--until",
            fix=f"choose one of: {', '.join(dict.fromkeys(name.stage for name in own))}",
        )
    return lineage.stale(wanted)


def _make(project: Project, model: str, stale: list[Unit]) -> None:
    from forge_pipeline.cli.terminal import TerminalProgress
    from forge_pipeline.components.run import run_units
    from forge_pipeline.errors import ForgeError

    names: list[Any] = list(dict.fromkeys(str(unit.stage.name) for unit in stale))
    with TerminalProgress(names) as progress:
        try:
            run_units(project, model, stale, progress)
        except ForgeError:
            raise
        except Exception as error:
            # Dagster wraps what a stage raised; a person wants to read the cause.
            cause = _forge_error_in(error)
            if cause is None:
                raise
            raise cause from error


def _forge_error_in(error: BaseException) -> ForgeError | None:
    """The error of ours that led to ``error``, if one did. Chains of exceptions may run in circles."""
    from forge_pipeline.errors import ForgeError

    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, ForgeError):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None
