import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from forge_pipeline import benchmarks
from forge_pipeline.benchmarks import BENCHMARKS, Benchmark, Figure, measure
from forge_pipeline.reporting import SilentProgress

RunForge = Callable[..., "subprocess.CompletedProcess[str]"]

MODULE = """
from forge_pipeline.benchmarks import Figure

def two_figures(work, progress):
    assert not list(work.iterdir())
    return [Figure.at_most("seconds", 0.5, "s", 0.3), Figure("documents", 12, "documents")]
"""


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "measured_here.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BENCHMARKS, "two", Benchmark("two", "two figures", "measured_here:two_figures"))
    return "two"


def test_a_result_has_exactly_the_published_fields(registered: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    result = measure(registered, ["forge", "bench", "two"], work, SilentProgress())
    body = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(body) == ["benchmark", "machine", "versions", "command", "commit", "figures"]
    assert body["figures"] == [
        {"name": "seconds", "value": 0.5, "unit": "s", "target": "<= 0.3", "holds": False},
        {"name": "documents", "value": 12, "unit": "documents", "target": None, "holds": None},
    ]
    assert body["command"] == "forge bench two"
    assert set(body["versions"]) == set(benchmarks.registry.PROJECTS)
    assert body["machine"]["cores"] >= 1
    assert not result.holds


def test_limits_include_their_bounds() -> None:
    assert Figure.at_most("x", 3.0, "s", 3.0).holds
    assert not Figure.at_most("x", 3.01, "s", 3.0).holds
    assert Figure.at_least("x", 0.9, "", 0.9).holds
    assert not Figure.at_least("x", 0.89, "", 0.9).holds


def test_every_registered_benchmark_can_be_loaded() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert callable(benchmark.load())


def test_without_a_name_the_benchmarks_are_listed(run_forge: RunForge, tmp_path: Path) -> None:
    answer = run_forge("bench", "--json", "--home", str(tmp_path / "home"))
    assert set(json.loads(answer.stdout)) == set(BENCHMARKS)


@pytest.mark.slow
def test_the_startup_benchmark_prints_one_json_object(run_forge: RunForge, tmp_path: Path) -> None:
    answer = run_forge("bench", "startup", "--json", "--home", str(tmp_path / "home"), timeout=280)
    body = json.loads(answer.stdout)
    assert [figure["name"] for figure in body["figures"]] == ["forge_help", "import_definitions", "repeated_set_up"]
    assert answer.returncode == (0 if all(figure["holds"] for figure in body["figures"]) else 1)
