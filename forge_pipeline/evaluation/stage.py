"""Everything that is measured after one training stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_pipeline.corpus.tables import read_table, write_table
from forge_pipeline.evaluation.results import write_results
from forge_pipeline.evaluation.settings import EvaluationSettings
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Scalar, Table
from forge_pipeline.reporting.results import Result

if TYPE_CHECKING:
    from forge_pipeline.agents.settings import AgentSettings

CODE_VERSION = "1"

SHOWN_ITEMS = 15
SHOWN_CHARACTERS = 160


def evaluate_stage(
    settings: EvaluationSettings,
    agent: AgentSettings | None,
    model: Path,
    token_shards: Sequence[Path],
    training: Sequence[Path],
    tokenizer: Path,
    questions: Path | None,
    pairs: Path | None,
    tasks: Path | None,
    output: Path,
    progress: Progress,
) -> Outcome:
    """Measure the model in the artifact ``model``; write `results.parquet` and a table of items for each measure.

    ``token_shards`` and ``training`` are the corpus's batches in order. ``questions``, ``pairs`` and ``tasks`` are
    the artifacts of the held-out items; where one is None, its measure is left out. ``agent`` says how tasks are
    played. The items and their order are the same for every model, so that stages compare.
    """
    import torch

    from forge_pipeline.evaluation.bits_per_byte import evaluate_bits_per_byte
    from forge_pipeline.models.files import load_model
    from forge_pipeline.tokens.chat import load_tokenizer

    loaded = load_model(model / "model").eval()
    loaded.compute_dtype = torch.bfloat16 if settings.precision == "bf16" else None
    encoder = load_tokenizer(tokenizer / "tokenizer")
    results: list[Result] = []
    tables: list[Table] = []
    with progress.task("Bits per byte of held-out documents", unit="tokens") as task:
        results += evaluate_bits_per_byte(
            settings.bits_per_byte,
            loaded,
            token_shards,
            training,
            output,
            seed=settings.seed,
            resamples=settings.resamples,
            task=task,
        )
    if questions is not None:
        results += _questions(settings, loaded, encoder, questions, output, progress)
        tables.append(_question_samples(output))
    if pairs is not None:
        results += _preferences(settings, loaded, encoder, pairs, output, progress)
    if tasks is not None and agent is not None:
        results += _tasks(agent, loaded, encoder, tasks, output, progress)
    write_results(output, results)
    return _outcome(results, tables)


def _questions(
    settings: EvaluationSettings, model: Any, tokenizer: Any, questions: Path, output: Path, progress: Progress
) -> list[Result]:
    from forge_pipeline.alignment.examples import QUESTIONS
    from forge_pipeline.evaluation.questions import evaluate_questions

    rows = read_table(questions, QUESTIONS).to_pylist()
    with progress.task("Held-out questions", total=len(settings.questions.formats), unit="formats") as task:
        return evaluate_questions(settings.questions, model, tokenizer, rows, output, task.advance)


def _preferences(
    settings: EvaluationSettings, model: Any, tokenizer: Any, pairs: Path, output: Path, progress: Progress
) -> list[Result]:
    from forge_pipeline.alignment.preferences import HELD_OUT_PAIRS
    from forge_pipeline.evaluation.preferences import evaluate_preferences

    rows = read_table(pairs, HELD_OUT_PAIRS).to_pylist()
    with progress.task("Held-out preference pairs"):
        return evaluate_preferences(settings.preferences, model, tokenizer, rows, output)


def _tasks(
    agent: AgentSettings, model: Any, tokenizer: Any, tasks: Path, output: Path, progress: Progress
) -> list[Result]:
    """Play the held-out tasks; every episode is a row of `agent_episodes.parquet`."""
    from forge_pipeline.agents.evaluate import EPISODE_SCHEMA, EPISODES_FILE, evaluate_agent

    with progress.task("Held-out tasks with tools", total=agent.evaluation.tasks, unit="tasks") as task:
        played = evaluate_agent(model, tokenizer, tasks, agent, task.advance)
    write_table(output / EPISODES_FILE, EPISODE_SCHEMA, played.episodes)
    return played.results


def _question_samples(output: Path) -> Table:
    from forge_pipeline.evaluation.questions import QUESTION_RESULTS

    rows = read_table(output, QUESTION_RESULTS).to_pylist()
    shown: list[dict[str, Scalar]] = []
    for kind in sorted({row["kind"] for row in rows}):
        row = next(row for row in rows if row["kind"] == kind)
        shown.append(
            {
                "kind": kind,
                "question": row["prompt"][-SHOWN_CHARACTERS:],
                "right answer": row["answer"],
                "model's answer": row["predicted"][:SHOWN_CHARACTERS],
                "correct": row["correct"],
            }
        )
    return Table.of("Questions and answers", shown[:SHOWN_ITEMS])


def _outcome(results: Sequence[Result], tables: list[Table]) -> Outcome:
    headline = [result for result in results if not result.detail]
    parts = [result for result in results if result.detail]
    counts: dict[str, Scalar] = {}
    for result in headline:
        counts[result.metric] = result.value
        counts[f"{result.metric}_low"], counts[f"{result.metric}_high"] = result.low, result.high
        counts[f"{result.metric}_n"] = result.n
    plots = []
    for metric in dict.fromkeys(result.metric for result in parts):
        found = [result for result in parts if result.metric == metric]
        plots.append(
            Plot(
                metric.replace("_", " ").capitalize(),
                "bar",
                "",
                "bits per byte" if metric.endswith("bits_per_byte") else "share",
                {metric: ([result.detail for result in found], [result.value for result in found])},
            )
        )
    return Outcome(
        counts=counts,
        checks=[
            Check(
                "something_was_measured",
                bool(headline),
                "there are held-out documents, questions, pairs or tasks: without a test split nothing is measured",
                len(headline),
                1,
            )
        ],
        tables=[_result_table("Results", headline), _result_table("Results by part", parts[:30]), *tables],
        plots=plots,
    )


def _result_table(title: str, results: Sequence[Result]) -> Table:
    return Table.of(
        title,
        [
            {
                "metric": result.metric,
                **({"part": result.detail} if result.detail else {}),
                "value": round(result.value, 4),
                "95% interval": f"{result.low:.3f} to {result.high:.3f}",
                "n": f"{result.n} {result.unit}",
            }
            for result in results
        ],
    )
