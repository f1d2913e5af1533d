"""The model card (Mitchell et al. 2019, arXiv 1810.03993) as Markdown with the front matter Hugging Face reads.

It says only what records, tables and the recipe's owner say. Text that came with documents (names, owners,
licences) is hostile until escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from forge_pipeline.release.facts import LineageFacts
from forge_pipeline.release.results import Result, interval_text
from forge_pipeline.release.settings import ReleaseSettings
from forge_pipeline.reporting import Scalar

LONGEST_CELL = 160
MOST_SOURCES = 50
_MARKUP = re.compile(r"([\\`*_\[\]<>|#~!&$])")


@dataclass(frozen=True)
class Weights:
    """The weights of a package, as their headers say."""

    architecture: str
    parameters: int
    dtypes: tuple[str, ...]
    bytes: int
    tensors: int
    vocabulary_size: int
    context_length: int | None


def plain(text: object) -> str:
    """``text`` as one line of Markdown that shows it literally, shortened to a cell's length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    if len(line) > LONGEST_CELL:
        line = f"{line[: LONGEST_CELL - 1]}…"
    return _MARKUP.sub(r"\\\1", line)


def table(columns: Sequence[str], rows: Sequence[Sequence[Scalar]]) -> str:
    """A Markdown table; every cell is escaped."""
    lines = [columns, ["---"] * len(columns)]
    body = [[plain("" if cell is None else f"{cell:,}" if type(cell) is int else cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*lines, *body])


def write_model_card(
    settings: ReleaseSettings,
    facts: LineageFacts,
    gate: Mapping[str, Any],
    evaluations: Sequence[Result],
    weights: Weights,
) -> str:
    """The text of `README.md`. ``gate`` is the body of decision.json."""
    sections = [
        _front_matter(settings),
        f"# {plain(settings.registered_model)}",
        _summary(facts, gate, weights),
        "## Intended use",
        plain_paragraph(settings.intended_use) or "Its owner has stated none.",
        "## Release gate",
        _gate(gate),
        "## Evaluation",
        _evaluation(evaluations),
        "## Training data",
        _training_data(facts),
        "## Training",
        _training(facts),
        "## Limits",
        _limits(settings, gate, evaluations, weights),
        "## Use",
        _use(),
        "## Fingerprints",
        "Each artifact that this model was made from, by the fingerprint of its code version, parameters and inputs.",
        table(("artifact", "fingerprint"), list(facts.fingerprints.items())),
    ]
    return "\n\n".join(sections) + "\n"


def plain_paragraph(text: str) -> str:
    """Text of the recipe's owner, escaped but neither joined nor shortened."""
    return "\n\n".join(_MARKUP.sub(r"\\\1", " ".join(part.split())) for part in text.split("\n\n")).strip()


def _front_matter(settings: ReleaseSettings) -> str:
    body = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "model_name": settings.registered_model,
        "tags": ["forge-pipeline"],
    }
    return f"---\n{yaml.safe_dump(body, sort_keys=False).strip()}\n---"


def _summary(facts: LineageFacts, gate: Mapping[str, Any], weights: Weights) -> str:
    context = f", context {weights.context_length:,} tokens" if weights.context_length else ""
    rows: list[tuple[Scalar, ...]] = [
        ("recipe", facts.model),
        ("architecture", f"{weights.architecture}, {weights.parameters:,} parameters{context}"),
        ("weights", f"safetensors, {', '.join(weights.dtypes)}, {weights.bytes:,} bytes"),
        ("vocabulary", weights.vocabulary_size),
        ("stage", gate["released_stage"]),
        ("corpus", f"{facts.corpus}, {facts.documents:,} documents in {facts.batches:,} batches"),
        (
            "training tokens",
            f"{facts.training_tokens:,}, of which pre-training saw {facts.tokens_seen:,} (repeats count)",
        ),
    ]
    return table(("", "this model"), rows)


def _gate(gate: Mapping[str, Any]) -> str:
    verdict = "passed" if gate["passed"] else "**did not pass**"
    parts = [f"The release gate {verdict}: {plain_paragraph(gate['reason'])}."]
    if gate["thresholds"]:
        rows = [
            (
                entry["metric"],
                entry["stage"],
                entry["condition"],
                None if entry["value"] is None else f"{entry['value']:.4g}",
                entry["verdict"].replace("_", " "),
            )
            for entry in gate["thresholds"]
        ]
        parts.append(table(("metric", "stage", "condition", "measured", "verdict"), rows))
    cheapest = gate.get("cheapest_stage")
    if cheapest:
        parts.append(f"The cheapest stage that meets the target is {plain(cheapest)}.")
    return "\n\n".join(parts)


def _evaluation(evaluations: Sequence[Result]) -> str:
    if not evaluations:
        return "None was made."
    ordered = sorted(evaluations, key=lambda result: (result.metric, result.detail))
    columns = ("metric", "stage", "value", "95% interval", "n", "counted in")
    parts = [
        "On held-out data, with 95% intervals.",
        table(columns, [_result_row(result) for result in ordered if result.is_headline]),
    ]
    details = [(result.detail, *_result_row(result)) for result in ordered if not result.is_headline]
    if details:
        parts += ["### By part", table(("part", *columns), details)]
    return "\n\n".join(parts)


def _result_row(result: Result) -> tuple[Scalar, ...]:
    interval = interval_text(result.low, result.high)
    return result.metric, result.stage, f"{result.value:.4g}", interval, result.n, result.unit


def _training_data(facts: LineageFacts) -> str:
    shown = facts.sources[:MOST_SOURCES]
    rows = [
        (
            source.source,
            source.licence or "not stated",
            source.owner or "not stated",
            source.purpose or "not stated",
            source.landed,
            source.documents,
            source.tokens,
        )
        for source in shown
    ]
    columns = ("source", "licence", "owner", "purpose", "files found", "documents used", "training tokens")
    rest = len(facts.sources) - len(shown)
    more = f"\n\n{rest:,} further sources are in the audit report." if rest else ""
    return (table(columns, rows) if rows else "No source is recorded.") + more


def _training(facts: LineageFacts) -> str:
    if not facts.stages:
        return "No training stage is recorded."
    parts = [table(("stage", "seconds"), [(stage.stage, round(stage.seconds, 1)) for stage in facts.stages])]
    for stage in facts.stages:
        if stage.parameters:
            parts += [f"### {plain(stage.stage)}", table(("setting", "value"), list(stage.parameters.items()))]
    return "\n\n".join(parts)


def _limits(settings: ReleaseSettings, gate: Mapping[str, Any], evaluations: Sequence[Result], weights: Weights) -> str:
    lines = [plain_paragraph(limit) for limit in settings.limits]
    measured = sorted({result.metric for result in evaluations})
    names = ", ".join(plain(metric) for metric in measured)
    lines.append(f"Nothing was measured but: {names}." if measured else "Nothing was measured.")
    if weights.context_length:
        lines.append(f"Made for at most {weights.context_length:,} tokens of prompt and answer together.")
    if not gate["passed"]:
        lines.append("The thresholds that its recipe sets for a release are not met.")
    return "\n".join(f"- {line}" for line in lines)


def _use() -> str:
    return """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "..."}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
answer = model.generate(**prompt, max_new_tokens=64)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```

`sha256sum -c SHA256SUMS` checks that no file was altered."""
