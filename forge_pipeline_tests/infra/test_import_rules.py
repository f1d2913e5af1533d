import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forge_pipeline.environment import CHECKOUT

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
HEAVY = {"torch", "transformers", "deepspeed", "mlflow", "ray", "dagster", "tokenizers", "pandas", "numba"}


@pytest.fixture
def copied_package(tmp_path: Path) -> Path:
    shutil.copytree(
        CHECKOUT / "forge_pipeline", tmp_path / "forge_pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    # Run in the folder and with it on the path: the copy is what is looked at.
    return subprocess.run([sys.executable, "-c", LINT, "--no-cache"], cwd=folder, capture_output=True, text=True)


def test_the_rules_hold(copied_package: Path) -> None:
    answer = lint(copied_package)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("module", "text", "contract"),
    [
        ("corpus/offender.py", "import dagster", "Libraries do not know Dagster"),
        ("lineage/offender.py", "def late() -> None:\n    import dagster_aws", "Libraries do not know Dagster"),
        ("storage/offender.py", "from forge_pipeline.corpus import settings", "Imports go down the house"),
        ("corpus/settings.py", "import torch", "Settings are pure data"),
        ("training/offender.py", "import mlflow", "Only the release talks to MLflow"),
        ("kitchen/__init__.py", "", "Imports go down the house"),
    ],
)
def test_an_offender_is_found(copied_package: Path, module: str, text: str, contract: str) -> None:
    path = copied_package / "forge_pipeline" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    answer = lint(copied_package)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert f"{contract} BROKEN" in answer.stdout


def test_no_settings_module_loads_a_heavy_package() -> None:
    files = sorted((CHECKOUT / "forge_pipeline").rglob("settings.py"))
    assert files
    names = [".".join(file.relative_to(CHECKOUT).with_suffix("").parts) for file in files]
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in answer.stdout.split()}
    assert loaded & HEAVY == set()
