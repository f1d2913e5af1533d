"""`forge ui`: the pages of Dagster and MLflow."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from forge_pipeline.cli import output
from forge_pipeline.cli.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from forge_pipeline.cli.servers import Server


class _Stop(Exception):  # noqa: N818 - a request to stop, not an error
    pass


def ui(
    host: Annotated[str, typer.Option("--host", help="The interface to listen on.")] = "127.0.0.1",
    dagster_port: Annotated[int, typer.Option("--dagster-port", min=0, max=65535, help="0: any that is free.")] = 3000,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", min=0, max=65535, help="0: any that is free.")] = 5000,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait until both answer.")] = 180,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open Dagster (with sensors and schedules running) and MLflow, until Ctrl-C."""
    from forge_pipeline.cli.servers import stop_all, wait_until_all_answer

    assert home is not None
    servers = [dagster_server(home, host, dagster_port)]
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    if not tracking.startswith(("http://", "https://")):
        servers.append(mlflow_server(home, host, mlflow_port, tracking))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    errors = output.error_console()
    try:
        for server in servers:
            server.start()
        with errors.status("Starting Dagster and MLflow ..."):
            wait_until_all_answer(servers, timeout)
        addresses = {"dagster": servers[0].address, "mlflow": servers[1].address if len(servers) > 1 else tracking}
        if as_json:
            output.print_json(addresses, one_line=True)
        else:
            output.console().print(f"Dagster  {addresses['dagster']}\nMLflow   {addresses['mlflow']}", soft_wrap=True)
            errors.print(f"Logs are in {home / 'logs'}. Ctrl-C stops both.", soft_wrap=True, style="dim")
        while True:
            time.sleep(1)
            for server in servers:
                server.require_running()
    except _Stop:
        errors.print("Stopping ...", style="dim")
    finally:
        # A second Ctrl-C must not leave half of it running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stop_all(servers)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Stop


def dagster_server(home: Path, host: str, port: int) -> Server:
    """Webserver, daemon and one code server for both. Raises MachineError if the port is taken."""
    from forge_pipeline.cli.servers import Server, free_port, require_free_port
    from forge_pipeline.environment import CHECKOUT

    port = port or free_port(host)
    require_free_port(host, port, what="Dagster", option="--dagster-port")
    return Server(
        name="Dagster",
        command=[
            *(sys.executable, "-P", "-m", "dagster", "dev"),
            *("--workspace", str(CHECKOUT / "workspace.yaml"), "--host", host, "--port", str(port)),
        ],
        address=f"http://{host}:{port}",
        health_path="/server_info",
        log=home / "logs" / "dagster.log",
        # In another folder that has a dagster.yaml, such as the checkout, it would warn that it does not use it.
        folder=home / "dagster",
    )


def mlflow_server(home: Path, host: str, port: int, tracking: str) -> Server:
    """The tracking server over the home's database. Raises MachineError if the port is taken."""
    from forge_pipeline.cli.servers import Server, free_port, require_free_port

    port = port or free_port(host)
    require_free_port(host, port, what="MLflow", option="--mlflow-port")
    return Server(
        name="MLflow",
        command=[
            *(sys.executable, "-P", "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", tracking, "--artifacts-destination", str(home / "mlflow" / "artifacts")),
        ],
        address=f"http://{host}:{port}",
        health_path="/health",
        log=home / "logs" / "mlflow.log",
        folder=home / "mlflow",
        # Its job runners (for evaluation of online traces) are four more processes that nothing here uses.
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
