from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forge_pipeline.agents.settings import AgentEvaluationSettings, AgentSettings, EpisodeSettings, TaskSettings
from forge_pipeline.agents.tasks import build_tasks
from forge_pipeline.alignment.examples import build_examples
from forge_pipeline.alignment.preferences import build_pairs
from forge_pipeline.alignment.settings import ExampleSettings, PairSettings
from forge_pipeline.evaluation.results import RESULTS, read_results
from forge_pipeline.evaluation.settings import BitsPerByteSettings, EvaluationSettings, QuestionSettings
from forge_pipeline.evaluation.stage import evaluate_stage
from forge_pipeline.models.files import save_model
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting import Outcome, SilentProgress
from forge_pipeline.tokens.settings import ShardSettings
from forge_pipeline.tokens.shards import write_shards

AGENT = AgentSettings(
    tasks=TaskSettings(train=30, validation=5, test=10),
    episode=EpisodeSettings(turns=2, turn_tokens=8, total_tokens=240),
    evaluation=AgentEvaluationSettings(tasks=6, samples=2, bootstrap=100),
)
SETTINGS = EvaluationSettings(
    bits_per_byte=BitsPerByteSettings(maximum_tokens=2000), questions=QuestionSettings(maximum_new_tokens=8)
)


@pytest.fixture
def evaluate(write_corpus: Any, model: Mistral, tokenizer: Path, tmp_path: Path) -> Any:
    """`evaluate("out", settings)`: the stage over a corpus of prose and code, with everything there is to measure."""
    training = write_corpus(modules=24, prose=16)
    silent = SilentProgress()
    folders = {name: tmp_path / name for name in ("shards", "examples", "pairs", "tasks")}
    for folder in folders.values():
        folder.mkdir()
    write_shards(ShardSettings(), training, tokenizer, folders["shards"], silent)
    examples = ExampleSettings(maximum_per_kind=10, held_out_questions=30)
    build_examples(examples, [training], None, folders["examples"], silent)
    build_pairs(PairSettings(maximum_per_kind=5, held_out_pairs=14), [training], folders["pairs"], silent)
    build_tasks(AGENT.tasks, [training], folders["tasks"], silent)
    save_model(model, tmp_path / "trained" / "model", tokenizer / "tokenizer")

    def run(output: str, settings: EvaluationSettings = SETTINGS, everything: bool = True) -> Outcome:
        (tmp_path / output).mkdir()
        return evaluate_stage(
            settings,
            AGENT,
            tmp_path / "trained",
            [folders["shards"]],
            [training],
            tokenizer,
            *((folders[name] if everything else None) for name in ("examples", "pairs", "tasks")),
            tmp_path / output,
            silent,
        )

    return run


def test_every_measure_is_reported_with_its_interval_and_size(evaluate: Any, tmp_path: Path) -> None:
    outcome = evaluate("out")
    results = read_results(tmp_path / "out")
    headline = {result.metric: result for result in results if not result.detail}
    assert {
        "bits_per_byte",
        "zlib_bits_per_byte",
        "xz_bits_per_byte",
        "question_accuracy",
        "multiple_choice_accuracy",
        "reading_accuracy",
        "preference_accuracy",
        "preference_accuracy_raw",
        "task_success_greedy",
        "task_success_sampled",
    } <= set(headline)
    assert len(headline) == len([result for result in results if not result.detail])
    for result in results:
        assert result.low - 1e-9 <= result.value <= result.high + 1e-9
        assert result.n > 0
    assert outcome.counts["question_accuracy"] == headline["question_accuracy"].value
    assert outcome.counts["question_accuracy_n"] == 30
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".parquet"}


def test_the_same_model_is_measured_the_same(evaluate: Any, tmp_path: Path) -> None:
    for output in ("first", "second"):
        evaluate(output)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert RESULTS in names
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_half_precision_hardly_moves_the_figures(evaluate: Any, tmp_path: Path) -> None:
    for precision in ("bf16", "fp32"):
        evaluate(precision, SETTINGS.model_copy(update={"precision": precision}))
    half, full = (
        {(result.metric, result.detail): result.value for result in read_results(tmp_path / precision)}
        for precision in ("bf16", "fp32")
    )
    assert half["bits_per_byte", ""] == pytest.approx(full["bits_per_byte", ""], rel=2e-3)
    assert half["bits_per_byte", ""] != full["bits_per_byte", ""]


def test_what_a_recipe_leaves_out_is_not_measured(evaluate: Any, tmp_path: Path) -> None:
    evaluate("out", everything=False)
    metrics = {result.metric for result in read_results(tmp_path / "out")}
    assert metrics == {"bits_per_byte", "zlib_bits_per_byte", "xz_bits_per_byte"}


def test_a_base_model_can_be_scored_on_everything_and_asked_in_plain_text_too(evaluate: Any, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(
        update={
            "bits_per_byte": BitsPerByteSettings(maximum_tokens=None),
            "questions": QuestionSettings(formats=("chat", "plain"), maximum_new_tokens=8),
        }
    )
    evaluate("out", settings)
    results = {(result.metric, result.detail): result for result in read_results(tmp_path / "out")}
    assert ("question_accuracy", "format plain") in results
    # Where all is scored, the baselines of all are those of the same bytes.
    assert not [detail for metric, detail in results if metric == "xz_bits_per_byte" and detail]
