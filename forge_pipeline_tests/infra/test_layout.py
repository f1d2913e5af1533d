import re
import subprocess
import tomllib

import pytest

from forge_pipeline.cli.examination import pinned_versions
from forge_pipeline.environment import CHECKOUT

ALLOWED = {
    *(".ci", ".gitignore", "README.md", "dagster.yaml", "forge_pipeline", "forge_pipeline_tests", "infra"),
    *("pyproject.toml", "workspace.yaml"),
}


def test_the_top_level_holds_only_what_belongs_there() -> None:
    listing = subprocess.run(
        ["git", "-C", str(CHECKOUT), "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert {line.split("/")[0].strip('"') for line in listing.stdout.splitlines()} <= ALLOWED


def test_tests_lie_in_folders_named_after_the_rooms_they_test() -> None:
    rooms = {path.name for path in (CHECKOUT / "forge_pipeline").iterdir()}
    folders = {path.name for path in (CHECKOUT / "forge_pipeline_tests").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} <= rooms | {"infra", "end_to_end"}


@pytest.mark.parametrize("name", ["infra/run", "infra/test", ".ci/run"])
def test_programs_can_be_started(name: str) -> None:
    path = CHECKOUT / name
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


def test_everything_that_may_be_installed_is_pinned() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    requirements = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        requirements += extra
    names = {re.split(r"[<>=\[ ]", requirement)[0].lower() for requirement in requirements}
    assert names <= set(pinned_versions())
