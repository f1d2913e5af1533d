"""What commands print: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from forge_pipeline.errors import ForgeError

if TYPE_CHECKING:
    from rich.console import Console


class _Reserved:
    """The stdout that only JSON may be written to, once a command was asked for JSON."""

    stream: TextIO | None = None


def reserve_stdout_for_json() -> None:
    """Keep stdout for `print_json` alone.

    Whatever else this process or its children write to file descriptor 1 goes to stderr: several of the packages
    in use print there.
    """
    if _Reserved.stream is not None:
        return
    sys.stdout.flush()
    _Reserved.stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)


def json_wanted() -> bool:
    return _Reserved.stream is not None


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Write one JSON value to stdout. Raises ValueError for numbers that JSON does not have."""
    stream = _Reserved.stream or sys.stdout
    json.dump(value, stream, indent=None if one_line else 2, ensure_ascii=False, allow_nan=False)
    stream.write("\n")
    stream.flush()


def console() -> Console:
    """For what the command was asked to show."""
    from rich.console import Console

    return Console(highlight=False)


def error_console() -> Console:
    """For progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def show_error(error: ForgeError) -> None:
    """The problem, where it is and how to fix it, on stderr; with --json also as an object on stdout."""
    from rich.text import Text

    if json_wanted():
        body = {"problem": error.problem, "where": error.where, "fix": error.fix}
        print_json({"error": {"kind": type(error).__name__, **body}})
    problem, *rest = error.lines()
    text = Text.assemble(("error: ", "bold red"), (problem, "red"))
    for line in rest:
        text.append("\n" + line)
    # soft_wrap: a path broken over two lines cannot be copied.
    error_console().print(text, soft_wrap=True)
