"""What a stage tells people: counts, checks, tables, plots and progress. Plain data; drawing is in `charts`."""

from forge_pipeline.reporting.outcome import Check, Outcome, Plot, Scalar, Table
from forge_pipeline.reporting.progress import Progress, SilentProgress, Task

__all__ = ["Check", "Outcome", "Plot", "Progress", "Scalar", "SilentProgress", "Table", "Task"]
