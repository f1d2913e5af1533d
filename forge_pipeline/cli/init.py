"""`forge init`: write a commented recipe."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from forge_pipeline.cli import output
from forge_pipeline.cli.options import HomeOption, JsonOption
from forge_pipeline.errors import RecipeError

NAME_PATTERN = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
TEMPLATE = Path(__file__).parent / "templates" / "defs.yaml"


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new model's name, such as support_assistant.")],
    source: Annotated[
        Path | None,
        typer.Option("--source", metavar="FOLDER", help="The folder that its documents are in."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a commented recipe for a new corpus and model."""
    from forge_pipeline.lineage.recipes import recipes_folder

    written = write_recipe(recipes_folder(), name, source)
    if as_json:
        output.print_json({"recipe": str(written), "model": name})
        return
    console = output.console()
    console.print(f"Wrote {written}", soft_wrap=True)
    console.print(
        f"Edit it, then look at its cost with: forge plan {name}\nand run it with:                forge run {name}"
    )


def write_recipe(recipes: Path, name: str, source: Path | None) -> Path:
    """Write `<recipes>/<name>/defs.yaml` from the template; returns its path.

    Raises RecipeError for a name that cannot be an asset key's part or is taken, and for a missing source.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise RecipeError(
            f"{name!r} cannot name a model",
            fix="use lower-case letters, digits and single underscores, starting with a letter: support_assistant",
        )
    folder = recipes / name
    if folder.exists():
        raise RecipeError(f"{name!r} is taken", where=str(folder), fix="choose another name, or edit that recipe")
    if source is not None and not source.is_dir():
        raise RecipeError("the source is not a folder", where=str(source), fix="give an existing folder with --source")
    import yaml

    location = "/path/to/your/documents" if source is None else str(source.resolve())
    # A path may hold anything, so it is written as YAML's double-quoted text, on one line.
    quoted = yaml.safe_dump(location, default_style='"', allow_unicode=True, width=float("inf")).rstrip("\n")
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(name=name, source=quoted)
    folder.mkdir(parents=True)
    recipe = folder / "defs.yaml"
    recipe.write_text(text, encoding="utf-8")
    return recipe
