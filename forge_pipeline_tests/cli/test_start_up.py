import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HEAVY = ("dagster", "torch", "transformers", "deepspeed", "mlflow", "ray", "pandas", "pyarrow", "numpy", "boto3")


def cpu_seconds_of(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-P", "-m", "forge_pipeline.cli.main", *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    # Processor time, and the best of a few: others may be using this machine.
    assert min(cpu_seconds_of("--help") for _ in range(5)) < 0.3


def test_the_program_starts_without_any_heavy_package() -> None:
    code = "import sys, forge_pipeline.cli.main; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in answer.stdout.split()}
    assert loaded.isdisjoint(HEAVY)


def test_every_command_has_help_and_takes_a_home(run_forge: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    from forge_pipeline.cli.main import app

    names = [command.name for command in app.registered_commands]
    assert {"init", "doctor", "run", "ui", "bench"} <= set(names)
    for name in names:
        assert name is not None
        answer = run_forge(name, "--help", COLUMNS="200")
        assert answer.returncode == 0, answer.stderr
        assert "--json" in answer.stdout
        assert "--home" in answer.stdout


def test_help_makes_no_home_folder(run_forge: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run_forge("bench", "--help", FORGE_HOME=str(home)).returncode == 0
    assert not home.exists()
