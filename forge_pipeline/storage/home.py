"""The one folder under which everything that the system writes is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "FORGE_HOME"


@dataclass(frozen=True)
class Home:
    """Paths under the home folder. Nothing outside ``root`` is ever written."""

    root: Path

    @classmethod
    def locate(cls, path: str | Path | None = None) -> Home:
        """``path``, else the environment's FORGE_HOME, else `.forge/` in the checkout."""
        chosen = path or os.environ.get(HOME_VARIABLE) or Path(__file__).parents[2] / ".forge"
        return cls(Path(chosen).expanduser().resolve())

    @property
    def artifacts(self) -> Path:
        """Sealed artifacts of a local store, or the local copies of those of a remote one."""
        return self.root / "artifacts"

    @property
    def work(self) -> Path:
        """Unfinished work, by fingerprint: what an interrupted stage resumes from."""
        return self.root / "work"

    @property
    def landing(self) -> Path:
        """One folder per corpus, where people drop files."""
        return self.root / "landing"

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME: run history, event log, schedules."""
        return self.root / "dagster"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def leases(self) -> Path:
        """Lock files: who trains on which accelerator, who registers which corpus's batches."""
        return self.root / "leases"
