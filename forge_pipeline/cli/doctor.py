"""`forge doctor`: what this machine has, lacks, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge_pipeline.cli import output
from forge_pipeline.cli.options import JsonOption

if TYPE_CHECKING:
    from forge_pipeline.cli.examination import Finding, Status

STYLES: dict[Status, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "problem": ("✗", "bold red"),
}


def doctor(
    # Not the shared option: that one makes the folder, and here a folder that cannot be made is a finding.
    home: Annotated[
        Path | None, typer.Option("--home", metavar="FOLDER", help="The home folder to look at.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at this machine; ends with status 1 if something will not work."""
    from forge_pipeline.cli.examination import examine
    from forge_pipeline.storage.home import Home

    findings = examine(Home.locate(home).root)
    healthy = all(finding.status != "problem" for finding in findings)
    if as_json:
        output.print_json({"healthy": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
    if not healthy:
        raise typer.Exit(1)


def _show(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        mark, style = STYLES[finding.status]
        detail = Text(finding.detail)
        if finding.fix:
            detail.append(f"\nfix: {finding.fix}", style="dim")
        grid.add_row(Text(mark, style=style), Text(finding.name, style="bold"), detail)
    output.console().print(grid)
