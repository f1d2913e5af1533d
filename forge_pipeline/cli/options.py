"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forge_pipeline import environment
from forge_pipeline.cli import output


def _use_home(home: Path | None) -> Path:
    return environment.prepare(home)


def _use_json(as_json: bool) -> bool:
    if as_json:
        output.reserve_stdout_for_json()
    return as_json


# Every command takes it, also one that does not read it: its callback prepares the process's environment before the
# command imports anything that reads it. The command gets the resolved folder.
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        help="Where everything is kept (default: FORGE_HOME, else .forge in the checkout).",
        callback=_use_home,
        show_default=False,
    ),
]

JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON on stdout, and nothing else there.",
        callback=_use_json,
        # First, so that an error in another option is also told as JSON.
        is_eager=True,
    ),
]

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name: its folder in defs/.")]
