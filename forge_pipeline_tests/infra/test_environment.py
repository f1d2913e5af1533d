"""The set-up's decisions, with its own shell functions. Nothing is installed here: `infra/test` itself does that."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forge_pipeline.environment import CHECKOUT

# In place of the two functions that reach the network.
RECORD_ONLY = """
create_venv() {
    echo created >>"$checkout/log"
    rm -rf "$venv"
    mkdir -p "$venv/bin"
    ln -s "${FORGE_PYTHON:-$REAL_PYTHON}" "$venv/bin/python"
}
step() { echo "$1" >>"$checkout/log"; }
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the set-up reads, on a path with a space."""
    folder = tmp_path / "a b"
    (folder / "infra").mkdir(parents=True)
    for name in ("pyproject.toml", "infra/environment.sh", "infra/constraints.txt"):
        shutil.copy(CHECKOUT / name, folder / name)
    return folder


def start(checkout: Path, script: str, **variables: str) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
    return subprocess.Popen(
        ["bash", "-c", f'set -euo pipefail; source "$1/infra/environment.sh"; {script}', "bash", str(checkout)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, "REAL_PYTHON": str(Path(sys.executable).resolve()), **variables},
    )


def shell(checkout: Path, script: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    process = start(checkout, script, **variables)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(script, process.returncode, out, err)


def prepare(checkout: Path, part: str = "run", **variables: str) -> list[str]:
    """What a set-up did, by its own steps."""
    (checkout / "log").unlink(missing_ok=True)
    answer = shell(checkout, f"{RECORD_ONLY}\nprepare_environment {part}", **variables)
    assert answer.returncode == 0, answer.stderr
    return (checkout / "log").read_text().splitlines() if (checkout / "log").exists() else []


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_first_set_up_makes_the_environment_and_the_second_does_nothing(checkout: Path) -> None:
    torch = next(line for line in (checkout / "infra/constraints.txt").read_text().splitlines() if "torch==" in line)
    assert prepare(checkout) == ["created", "uv", torch, "the pinned dependencies (run)"]
    assert prepare(checkout) == []


def test_a_repeated_set_up_costs_nothing(checkout: Path) -> None:
    prepare(checkout)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        assert prepare(checkout) == []
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.2


@pytest.mark.parametrize("name", ["pyproject.toml", "infra/constraints.txt"])
def test_other_dependencies_are_installed_into_the_same_environment(checkout: Path, name: str) -> None:
    prepare(checkout)
    with (checkout / name).open("a") as file:
        file.write("# changed\n")
    steps = prepare(checkout)
    assert "the pinned dependencies (run)" in steps
    assert "created" not in steps
    assert prepare(checkout) == []


def test_tests_add_to_what_the_product_has(checkout: Path) -> None:
    prepare(checkout)
    steps = prepare(checkout, "test")
    assert "the pinned dependencies (test)" in steps
    assert "created" not in steps
    assert prepare(checkout, "test") == []
    assert prepare(checkout, "run") == []


def test_a_set_up_that_was_killed_is_made_anew(checkout: Path) -> None:
    killed = RECORD_ONLY + "\nstep() { [[ $1 != uv ]] || kill -9 $$; }\nprepare_environment run"
    assert shell(checkout, killed).returncode == -9
    assert (checkout / ".venv/bin/python").exists()
    assert prepare(checkout)[0] == "created"


def test_an_update_that_was_killed_is_made_anew(checkout: Path) -> None:
    prepare(checkout, "test")
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    killed = RECORD_ONLY + "\nstep() { [[ $1 != the* ]] || kill -9 $$; }\nprepare_environment test"
    assert shell(checkout, killed).returncode == -9
    assert prepare(checkout, "test")[0] == "created"


def test_a_moved_checkout_is_made_anew(checkout: Path) -> None:
    prepare(checkout)
    moved = checkout.rename(checkout.with_name("c d"))
    assert prepare(moved)[0] == "created"


def test_another_python_is_made_anew(checkout: Path, tmp_path: Path) -> None:
    prepare(checkout)
    other = program(tmp_path / "other", "echo Python 3.12.99")
    assert prepare(checkout, FORGE_PYTHON=str(other))[0] == "created"


def test_two_at_once_set_up_only_once(checkout: Path) -> None:
    script = f'{RECORD_ONLY}\nstep() {{ echo "$1" >>"$checkout/log"; sleep 0.3; }}\nprepare_environment run'
    both = [start(checkout, script) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert (checkout / "log").read_text().splitlines().count("created") == 1
    assert sum("waiting for another one" in text for text in errors) == 1


def test_a_python_that_exists_but_does_not_run_is_passed_over(checkout: Path, tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    program(shims / "python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    program(shims / "python3.12", "echo Python 3.13.1")
    program(shims / "python3", "echo Python 3.12.5")
    assert shell(checkout, "find_python", PATH=f"{shims}:{os.environ['PATH']}").stdout == "python3"


def test_a_chosen_python_that_will_not_do_is_an_error_and_not_replaced(checkout: Path, tmp_path: Path) -> None:
    old = program(tmp_path / "old", "echo Python 3.10.2")
    answer = shell(checkout, "prepare_environment run", FORGE_PYTHON=str(old))
    assert answer.returncode == 2
    assert str(old) in answer.stderr
    assert "fix:" in answer.stderr
    assert not (checkout / ".venv").exists()


def test_a_failing_step_shows_its_output_on_stderr_and_leaves_no_stamp(checkout: Path) -> None:
    script = """
    create_venv() { mkdir -p "$venv/bin"; ln -s "$REAL_PYTHON" "$venv/bin/python"; }
    install() { echo "no such release"; return 1; }
    eval "real_$(declare -f step)"
    step() { real_step "$1" install; }
    prepare_environment run
    """
    answer = shell(checkout, script)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert "no such release" in answer.stderr
    assert "the set-up of" in answer.stderr
    assert not list((checkout / ".venv").glob("*.stamp"))
