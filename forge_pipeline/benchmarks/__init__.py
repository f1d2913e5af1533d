"""The measurements behind every claim: `forge bench NAME` runs one."""

from forge_pipeline.benchmarks.registry import BENCHMARKS, Benchmark, Figure, Result, measure

__all__ = ["BENCHMARKS", "Benchmark", "Figure", "Result", "measure"]
