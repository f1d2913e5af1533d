"""Start the training processes, follow them, and never leave one behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from forge_pipeline.errors import TrainingError
from forge_pipeline.reporting import Progress, Task
from forge_pipeline.storage import Home
from forge_pipeline.training.lease import lease
from forge_pipeline.training.run import METRICS_FILE, RESULT_FOLDER, RUN_FILE, TrainingRun
from forge_pipeline.training.worker import LIFELINE_VARIABLE, STOPPED_STATUS

POLL_SECONDS = 0.1
# A cancelled run has this long to finish its step and leave a checkpoint before it is killed.
GRACE_SECONDS = 6.0
LEASE_WAIT_SECONDS = 30.0
# Figures that depend on the machine's mood: shown live and in the report, kept out of the sealed history.
TIMINGS = frozenset({"seconds", "units_per_second", "data_wait"})
# glibc gives large blocks back to the kernel at once and takes them again, page fault by page fault, in every
# step. Keeping them halves the time of the loss over the vocabulary on a CPU. And threads that wait for each
# other must sleep, not spin: on a shared machine one other busy process would slow a step down twentyfold.
TUNING = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass
class TrainingSummary:
    """What a run came to. ``history`` holds one mapping of metrics per step, ``seconds`` the launcher's wall time
    of this attempt, ``resumed_at`` the step it started from."""

    steps: int
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    resumed_at: int = 0

    @property
    def final_metrics(self) -> dict[str, float]:
        """The latest value of each metric."""
        return {name: value for values in self.history for name, value in values.items()}

    def mean(self, metric: str) -> float:
        """The mean of a metric over the steps that have it."""
        values = [entry[metric] for entry in self.history if metric in entry]
        return sum(values) / len(values) if values else 0.0


def train(run: TrainingRun, work: Path, output: Path, progress: Progress) -> TrainingSummary:
    """Run the training to its end, resuming from the newest checkpoint under ``work``.

    Fills ``output`` with `model/`, `metrics.jsonl`, `run.json` and what the objective keeps. Raises
    TrainingError, with the end of the log, if a process fails or is stopped. On any exception, an interrupt
    of the caller among them, all training processes are gone before it is raised further.
    """
    began = time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / RESULT_FOLDER, ignore_errors=True)
    run.write(work)
    summary = TrainingSummary(steps=run.engine.steps)
    with (
        lease(Home.locate().leases / "accelerator.lock", LEASE_WAIT_SECONDS) as lock,
        process_group(run, work, lock) as processes,
        progress.task("training", total=run.engine.steps, unit="steps") as task,
    ):
        _follow(processes, work, progress, task, summary)
    for path in sorted((work / RESULT_FOLDER).iterdir()):
        shutil.move(path, output / path.name)
    shutil.copyfile(work / RUN_FILE, output / RUN_FILE)
    with (output / METRICS_FILE).open("w", encoding="utf-8") as file:
        for values in summary.history:
            file.write(json.dumps({name: value for name, value in values.items() if name not in TIMINGS}) + "\n")
    summary.seconds = time.monotonic() - began
    return summary


@contextmanager
def process_group(run: TrainingRun, work: Path, lock: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The ranks, each in a session of its own so that one signal reaches it and whatever it started."""
    lifeline, held = os.pipe()
    rendezvous = work / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    logs = work / "logs"
    logs.mkdir(exist_ok=True)
    world_size = run.engine.world_size
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(world_size):
            environment = os.environ | TUNING
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                # Not `as_uri`: torch takes the path as it is written, spaces and all.
                "FORGE_RENDEZVOUS": f"file://{rendezvous}",
                "GLOO_SOCKET_IFNAME": "lo",
                LIFELINE_VARIABLE: str(lifeline),
                "PYTHONUNBUFFERED": "1",
                "HF_HUB_OFFLINE": "1",
            }
            with (logs / f"rank-{rank}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "forge_pipeline.training.worker", str(work)],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        pass_fds=(lifeline, lock),
                        start_new_session=True,
                    )
                )
        os.close(lifeline)
        yield processes
    finally:
        _end(processes)
        os.close(held)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask politely, then less so: on return no process of any rank's session is left."""
    for number, patience in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0)):
        alive = [process for process in processes if process.poll() is None]
        if not alive:
            break
        for process in alive:
            _signal_session(process.pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(process.poll() is None for process in alive):
            time.sleep(0.05)
    for process in processes:
        # A rank that is gone may have left children in its session.
        _signal_session(process.pid, signal.SIGKILL)


def _signal_session(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return


def _follow(
    processes: list[subprocess.Popen[bytes]], work: Path, progress: Progress, task: Task, summary: TrainingSummary
) -> None:
    """Forward metrics until every rank has ended well. Raises TrainingError as soon as one has not."""
    stream = work / METRICS_FILE
    position = 0
    stamp = time.time()
    while True:
        states = [process.poll() for process in processes]
        # Metrics are read only once this attempt's processes have trimmed and extended the file.
        if stream.exists() and stream.stat().st_mtime >= stamp:
            lines, position = _read_new(stream, position)
            for line in lines:
                values = json.loads(line)
                summary.history.append(values)
                task.advance(1)
                progress.metrics(int(values["step"]), {k: v for k, v in values.items() if k != "step"})
        failed = [(rank, state) for rank, state in enumerate(states) if state not in (None, 0)]
        if failed:
            rank, state = failed[0]
            assert state is not None
            raise _failure(work, rank, state)
        if all(state == 0 for state in states):
            return
        time.sleep(POLL_SECONDS)


def _read_new(path: Path, position: int) -> tuple[list[str], int]:
    """Whole lines after ``position``, and the position after them."""
    with path.open("rb") as file:
        file.seek(position)
        data = file.read()
    end = data.rfind(b"\n") + 1
    return data[:end].decode("utf-8").splitlines(), position + end


def _failure(work: Path, rank: int, state: int) -> TrainingError:
    log = work / "logs" / f"rank-{rank}.log"
    if state == STOPPED_STATUS:
        return TrainingError(
            "the training was stopped by a signal; its last step is in a checkpoint",
            where=str(work),
            fix="run again to resume",
        )
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    reason = f"was killed by signal {-state}" if state < 0 else f"ended with status {state}"
    return TrainingError(
        f"training rank {rank} {reason}. The end of its log:\n{tail}",
        where=str(log),
        fix="repair the cause and run again: training resumes from the last checkpoint",
    )
