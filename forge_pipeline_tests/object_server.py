"""A real S3 server for tests: SeaweedFS, from its wheel, on free ports of this machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 60


@contextmanager
def serve(folder: Path) -> Iterator[dict[str, str]]:
    """Run the server with its data in ``folder``; yields the environment that lets a client use it."""
    credentials = {"accessKey": "forge-test", "secretKey": uuid.uuid4().hex}
    identity = {"name": "test", "credentials": [credentials], "actions": ["Admin", "Read", "Write", "List"]}
    folder.mkdir(parents=True)
    configuration = folder / "s3.json"
    configuration.write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "volume.port", "filer.port", "s3.port", "master.port.grpc", "volume.port.grpc")
    ports = dict(zip((*names, "filer.port.grpc", "s3.port.grpc"), free_ports(8), strict=True))
    program = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    options = [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-filer", "-s3", f"-s3.config={configuration}"),
                *options,
                *("-volume.max=50", "-master.volumeSizeLimitMB=64"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
        "AWS_ACCESS_KEY_ID": credentials["accessKey"],
        "AWS_SECRET_ACCESS_KEY": credentials["secretKey"],
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        _wait(server, environment, folder / "log")
        yield environment
    finally:
        # It takes half a minute to end by itself, and nothing of it is kept.
        server.kill()
        server.wait()


def client(environment: dict[str, str]) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def _wait(server: subprocess.Popen[bytes], environment: dict[str, str], log: Path) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            # A bucket needs the filer and a volume: once this works, everything does.
            client(environment).create_bucket(Bucket="ready")
            client(environment).put_object(Bucket="ready", Key="ready", Body=b"1")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.3)
    raise RuntimeError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")
