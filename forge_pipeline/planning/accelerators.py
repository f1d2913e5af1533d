"""Published figures of accelerators. Dense (no sparsity) peaks, from the makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Accelerator:
    """``bf16``: matrix units with float32 accumulation, ``fp32``: ordinary units; both in TFLOP/s."""

    bf16: float
    fp32: float
    memory_gb: float


ACCELERATORS: dict[str, Accelerator] = {
    "B200": Accelerator(2250.0, 75.0, 180.0),
    "H200 SXM": Accelerator(989.4, 66.9, 141.0),
    "H100 SXM": Accelerator(989.4, 66.9, 80.0),
    "H100 PCIe": Accelerator(756.0, 51.2, 80.0),
    "A100 80GB": Accelerator(312.0, 19.5, 80.0),
    "A100 40GB": Accelerator(312.0, 19.5, 40.0),
    "MI300X": Accelerator(1307.4, 163.4, 192.0),
    "L40S": Accelerator(362.05, 91.6, 48.0),
    "L4": Accelerator(121.0, 30.3, 24.0),
    "RTX 4090": Accelerator(165.2, 82.6, 24.0),
    "RTX 3090": Accelerator(71.0, 35.6, 24.0),
}
