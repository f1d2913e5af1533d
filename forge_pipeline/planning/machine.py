"""How fast this machine multiplies matrices."""

from __future__ import annotations

import time

from forge_pipeline.planning.settings import MachineSpeed

_SIZE = 1024
_SECONDS = 0.4


def measure_machine() -> MachineSpeed:
    """TFLOP/s of square matrix products with PyTorch's own threads, in about a second after PyTorch is loaded.

    The median of the repetitions: on a busy machine the fastest would promise too much.
    """
    import torch

    speeds = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.full((_SIZE, _SIZE), 0.5, dtype=dtype) for _ in range(2))
        torch.matmul(left, right)
        seconds: list[float] = []
        began = time.perf_counter()
        while len(seconds) < 3 or time.perf_counter() - began < _SECONDS:
            start = time.perf_counter()
            torch.matmul(left, right)
            seconds.append(time.perf_counter() - start)
        speeds[name] = 2 * _SIZE**3 / sorted(seconds)[len(seconds) // 2] / 1e12
    return MachineSpeed(**speeds)
