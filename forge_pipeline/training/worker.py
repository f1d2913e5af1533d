"""The entry point of one training process: `python -m forge_pipeline.training.worker WORK`.

Its rank comes from the environment, as torchrun would set it; its run from `WORK/run.json`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from forge_pipeline.errors import ForgeError

LOG = logging.getLogger(__name__)
# The exit status of a run that was asked to stop and left a checkpoint.
STOPPED_STATUS = 75
# The descriptor of a pipe whose other end the launcher holds.
LIFELINE_VARIABLE = "FORGE_LIFELINE"


def die_with_launcher() -> None:
    """End this process at once when the launcher is gone, however it went.

    The kernel closes the launcher's end of the pipe even after SIGKILL, and the read below then returns.
    """
    descriptor = os.environ.get(LIFELINE_VARIABLE)
    if descriptor is None:
        return

    def wait() -> None:
        while os.read(int(descriptor), 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    die_with_launcher()
    # A stop that arrives during the imports below must not leave a traceback: there is nothing to save yet.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(STOPPED_STATUS))
    work = Path(sys.argv[1])
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    began = time.monotonic()
    import deepspeed
    import torch
    from deepspeed.ops import __compatible_ops__

    from forge_pipeline.training.loop import Training
    from forge_pipeline.training.run import RUN_FILE, TrainingRun

    # DeepSpeed would compile a shared-memory collective for two minutes; gloo's own is used instead.
    __compatible_ops__["deepspeed_shm_comm"] = False
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world_size))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    deepspeed.init_distributed(
        dist_backend="nccl" if on_gpu else "gloo",
        init_method=os.environ["FORGE_RENDEZVOUS"],
        rank=rank,
        world_size=world_size,
        auto_mpi_discovery=False,
        verbose=False,
    )
    try:
        training = Training(TrainingRun.read(work / RUN_FILE), work, rank, world_size, device)
        LOG.info("rank %d of %d ready after %.1f s", rank, world_size, time.monotonic() - began)
        finished = training.train()
    except ForgeError as error:
        LOG.error("%s", error)
        return 2
    torch.distributed.destroy_process_group()
    return 0 if finished else STOPPED_STATUS


if __name__ == "__main__":
    sys.exit(main())
