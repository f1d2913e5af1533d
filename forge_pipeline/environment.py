"""The environment variables that every process of the system runs under, set in one place.

Called before anything else is imported: several of these are read once, at the import of the package they steer.
"""

from __future__ import annotations

import os
from pathlib import Path

from forge_pipeline.errors import StorageError

CHECKOUT = Path(__file__).resolve().parents[1]
DAGSTER_CONFIG_VARIABLE = "FORGE_DAGSTER_CONFIG"
MLFLOW_VARIABLE = "FORGE_MLFLOW_URI"

# Nothing is fetched after the install, and nothing is reported to anybody.
FIXED_VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare(home: str | Path | None = None) -> Path:
    """Set the variables of this process and its children, and make the home folder; returns that folder.

    ``home``, else FORGE_HOME, else `.forge/` in the checkout, becomes FORGE_HOME; its `dagster/` becomes
    DAGSTER_HOME, its `matplotlib/` MPLCONFIGDIR, and a database in its `mlflow/` MLFLOW_TRACKING_URI, unless
    FORGE_MLFLOW_URI names a server. Raises StorageError if the folder cannot be made.
    """
    os.environ.update(FIXED_VARIABLES)
    root = Path(home or os.environ.get("FORGE_HOME") or CHECKOUT / ".forge").expanduser().resolve()
    os.environ["FORGE_HOME"] = str(root)
    os.environ["DAGSTER_HOME"] = str(root / "dagster")
    # Always set anew: a parent process may have been given another home.
    os.environ["MLFLOW_TRACKING_URI"] = os.environ.get(MLFLOW_VARIABLE) or f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"
    # Matplotlib makes the folder when it is first imported; its list of fonts would go into the user's home.
    os.environ["MPLCONFIGDIR"] = str(root / "matplotlib")
    try:
        for folder in (root, root / "dagster", root / "mlflow"):
            folder.mkdir(parents=True, exist_ok=True)
        _link_dagster_config(root / "dagster" / "dagster.yaml")
    except OSError as error:
        raise StorageError(
            f"cannot use the home folder: {error.strerror or error}",
            where=str(root),
            fix="give another one with --home or FORGE_HOME",
        ) from error
    return root


def _link_dagster_config(link: Path) -> None:
    """Let DAGSTER_HOME use the instance configuration of FORGE_DAGSTER_CONFIG, else the checkout's dagster.yaml.

    A plain file that somebody put there is left alone.
    """
    target = Path(os.environ.get(DAGSTER_CONFIG_VARIABLE) or CHECKOUT / "dagster.yaml").resolve()
    if not target.is_file():
        raise StorageError(
            "the Dagster configuration is missing",
            where=str(target),
            fix=f"restore it, or set {DAGSTER_CONFIG_VARIABLE} to another file",
        )
    if link.is_symlink():
        if link.resolve() == target:
            return
    elif link.exists():
        return
    # Renamed into place: two processes may start at once, and neither may find no configuration.
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    aside.replace(link)
