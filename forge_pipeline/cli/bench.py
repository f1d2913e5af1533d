"""`forge bench`: measure, and say whether the targets hold."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge_pipeline.cli import output
from forge_pipeline.cli.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from forge_pipeline.benchmarks import Result


def bench(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which one; without it they are listed.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a benchmark; ends with status 1 if a target does not hold."""
    from forge_pipeline.benchmarks import BENCHMARKS, measure
    from forge_pipeline.cli.terminal import TerminalProgress

    if name is None:
        descriptions = {benchmark.name: benchmark.description for benchmark in BENCHMARKS.values()}
        if as_json:
            output.print_json(descriptions)
        else:
            for known, description in descriptions.items():
                output.console().print(f"{known:16}{description}", soft_wrap=True)
        return
    assert home is not None
    with tempfile.TemporaryDirectory(prefix="bench-", dir=home) as work, TerminalProgress() as progress:
        result = measure(name, ["forge", *sys.argv[1:]], Path(work), progress)
    if as_json:
        output.print_json(result.to_json())
    else:
        _show(result)
    if not result.holds:
        raise typer.Exit(1)


def _show(result: Result) -> None:
    from forge_pipeline.cli.terminal import summary_view
    from forge_pipeline.reporting import Table

    rows = [
        {
            "figure": figure.name,
            "value": figure.value,
            "unit": figure.unit,
            "target": figure.target,
            "holds": None if figure.holds is None else ("yes" if figure.holds else "NO"),
        }
        for figure in result.figures
    ]
    machine = ", ".join(f"{key} {value}" for key, value in result.machine.items() if value)
    measured = {"machine": machine, "commit": result.commit, "command": result.command}
    view = summary_view(f"Benchmark {result.benchmark}", [Table.of("Figures", rows), ("Measured with", measured)])
    output.console().print(view)
