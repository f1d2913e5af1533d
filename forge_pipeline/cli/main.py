"""The `forge` program: its commands, and how its errors look."""

from __future__ import annotations

import os
import sys

import typer

from forge_pipeline.cli import bench, chat, doctor, init, output, plan, run, trace, ui
from forge_pipeline.errors import ForgeError

DEBUG_VARIABLE = "FORGE_DEBUG"
ERROR_STATUS = 2
INTERRUPTED_STATUS = 130

app = typer.Typer(
    name="forge",
    help="From a folder of documents to an evaluated, servable language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init.init)
app.command("doctor")(doctor.doctor)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("trace")(trace.trace)
app.command("chat")(chat.chat)
app.command("ui")(ui.ui)
app.command("bench")(bench.bench)


def main() -> None:
    """Run `forge` with the process's arguments; exits 2 with a short message for a ForgeError.

    FORGE_DEBUG=1 shows the traceback instead.
    """
    try:
        app()
    except ForgeError as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        output.show_error(error)
        sys.exit(ERROR_STATUS)
    except KeyboardInterrupt:
        output.error_console().print("Interrupted. The same command goes on from here.", style="dim")
        sys.exit(INTERRUPTED_STATUS)


if __name__ == "__main__":
    main()
