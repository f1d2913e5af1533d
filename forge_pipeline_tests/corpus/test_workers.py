"""A bad item costs itself and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forge_pipeline.corpus.workers import SHARE_ITEMS, Failure, Job, run_job, worker_count
from forge_pipeline.errors import MachineError

OBEDIENT = "forge_pipeline_tests.corpus.misbehaving:obedient"


def _job(*, seconds: float = 30.0, memory: int | None = None, isolated: bool = False, **settings: object) -> Job:
    return Job(OBEDIENT, settings, seconds, memory, isolated)


def _run(job: Job, *acts: str, workers: int = 1) -> list[dict[str, object] | Failure]:
    return list(run_job(job, ({"do": act} for act in acts), workers))


@pytest.fixture
def listening_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("act", "kind"),
    [("hang", "time_limit"), ("die", "crash"), ("exit", "crash"), ("eat", "memory_limit"), ("raise", "error")],
)
def test_a_bad_item_fails_and_its_neighbours_do_not(act: str, kind: str) -> None:
    job = _job(seconds=1.0, memory=1_000_000_000)
    before, bad, after = _run(job, "before", act, "after")
    assert (before, after) == ({"done": "before"}, {"done": "after"})
    assert isinstance(bad, Failure)
    assert bad.kind == kind


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    acts = [str(number) for number in range(5 * SHARE_ITEMS + 7)]
    acts[SHARE_ITEMS + 1] = "exit"
    results = _run(_job(), *acts, workers=workers)
    assert [result["done"] for result in results if isinstance(result, dict)] == [a for a in acts if a != "exit"]
    assert isinstance(results[SHARE_ITEMS + 1], Failure)


def test_what_a_reader_prints_is_no_answer() -> None:
    assert _run(_job(), "print", "next") == [{"done": "print"}, {"done": "next"}]


def test_an_isolated_worker_writes_no_files(tmp_path: Path) -> None:
    (result,) = _run(_job(isolated=True, folder=str(tmp_path)), "write")
    assert isinstance(result, Failure)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 65536


def test_an_isolated_worker_opens_no_socket(listening_port: int) -> None:
    (result,) = _run(_job(isolated=True, port=listening_port), "socket")
    assert isinstance(result, Failure)
    assert "PermissionError" in result.detail


def test_native_code_reaches_no_network_where_the_worker_says_so(listening_port: int) -> None:
    said: list[str] = []
    job = _job(isolated=True, port=listening_port)
    (result,) = run_job(job, [{"do": "native socket"}], 1, said.append)
    assert isinstance(result, dict)
    if said == ["namespace"]:
        assert result["connected"] is False
    else:
        assert said == ["socket module refused"]


def test_a_worker_is_given_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (result,) = _run(_job(), "environment")
    assert isinstance(result, dict)
    assert "AWS_SECRET_ACCESS_KEY" not in result["environment"]
    assert "PATH" in result["environment"]


def test_a_worker_that_cannot_start_says_why() -> None:
    job = Job("forge_pipeline_tests.corpus.misbehaving:unimportable", {}, 1.0)
    with pytest.raises(MachineError, match="the model file is missing"):
        list(run_job(job, [{"do": "x"}], 1))


def test_an_abandoned_job_leaves_no_process() -> None:
    results = run_job(_job(), ({"do": "x"} for _ in range(10 * SHARE_ITEMS)), 2)
    next(results)
    results.close()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children if Path(f"/proc/{child}").exists()]
    assert not [command for command in commands if b"forge_pipeline.corpus.worker" in command]


def test_an_error_in_the_items_reaches_the_caller() -> None:
    def items() -> Iterator[dict[str, str]]:
        yield {"do": "x"}
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        list(run_job(_job(), items(), 2))


@pytest.mark.parametrize("value", ["none", "0", "-1", "1.5"])
def test_a_wrong_number_of_workers_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_WORKERS", value)
    with pytest.raises(MachineError, match="FORGE_WORKERS"):
        worker_count()
