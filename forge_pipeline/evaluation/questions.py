"""Held-out questions: which of four answers a model finds likeliest, and what it answers by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from forge_pipeline.corpus.tables import write_table
from forge_pipeline.evaluation.settings import QuestionSettings
from forge_pipeline.reporting.results import Result

if TYPE_CHECKING:
    from forge_pipeline.models.mistral import Mistral

QUESTION_RESULTS = "question_results.parquet"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("question_id", pa.string()),
    ("kind", pa.string()),
    ("mode", pa.string()),
    ("format", pa.string()),
    ("prompt", pa.string()),
    ("answer", pa.string()),
    ("predicted", pa.string()),
    ("correct", pa.bool_()),
]
QUESTION_RESULT_SCHEMA = pa.schema(_COLUMNS)
_QUOTES = "`'\" "


@dataclass(frozen=True)
class Asked:
    """One question in one format, as tokens.

    ``prompt`` ends where the answer begins; ``options`` are for each option (ids, which of them are the answer).
    """

    prompt: list[int]
    options: list[tuple[list[int], list[bool]]]


def evaluate_questions(
    settings: QuestionSettings,
    model: Mistral,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    output: Path,
    advance: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Ask all questions in every format, write `question_results.parquet` and return the better format's figures.

    A choice question is right if the true option has the highest mean log-probability per token; a reading
    question if the greedy answer is the true one but for outer quotes, a full stop and white space. The overall
    figure of each format is reported too (``detail`` "format chat"), so that choosing the better one hides
    nothing. The better format is chosen on the same questions, which can only flatter.
    """
    rows = rows[: settings.maximum]
    by_format = {}
    for name in settings.formats:
        by_format[name] = _ask_all(settings, model, tokenizer, rows, name)
        advance()
    write_table(output / QUESTION_RESULTS, QUESTION_RESULT_SCHEMA, (row for part in by_format.values() for row in part))
    if not rows:
        return []
    # max keeps the first of equals, in the order of the settings.
    best = max(settings.formats, key=lambda name: sum(row["correct"] for row in by_format[name]))
    answered = by_format[best]
    results = [_share("question_accuracy", answered, "")]
    for mode, metric in (("choice", "multiple_choice_accuracy"), ("reading", "reading_accuracy")):
        part = [row for row in answered if row["mode"] == mode]
        if part:
            results.append(_share(metric, part, ""))
    for kind in sorted({row["kind"] for row in answered}):
        results.append(_share("question_accuracy", [row for row in answered if row["kind"] == kind], f"kind {kind}"))
    for name in settings.formats:
        results.append(_share("question_accuracy", by_format[name], f"format {name}"))
    return results


def _share(metric: str, rows: Sequence[dict[str, Any]], detail: str) -> Result:
    return Result.proportion(metric, [row["correct"] for row in rows], "questions", detail)


def _ask_all(
    settings: QuestionSettings, model: Mistral, tokenizer: Any, rows: Sequence[dict[str, Any]], form: str
) -> list[dict[str, Any]]:
    encode = encode_chat_question if form == "chat" else encode_plain_question
    asked = [encode(tokenizer, row) for row in rows]
    choices = [index for index, row in enumerate(rows) if row["mode"] == "choice"]
    readings = [index for index, row in enumerate(rows) if row["mode"] != "choice"]
    predicted = dict(zip(choices, _likeliest(model, [asked[index] for index in choices]), strict=True))
    texts = _answers(settings, model, tokenizer, [(rows[index], asked[index].prompt) for index in readings], form)
    written = dict(zip(readings, texts, strict=True))
    results = []
    for index, row in enumerate(rows):
        if index in predicted:
            answer, correct = row["options"][predicted[index]], predicted[index] == row["answer_index"]
        else:
            answer = written[index]
            correct = normalised_answer(answer) == normalised_answer(row["answer"])
        results.append(
            {
                **{name: row[name] for name in ("question_id", "kind", "mode", "prompt", "answer")},
                "format": form,
                "predicted": answer,
                "correct": correct,
            }
        )
    return results


def encode_chat_question(tokenizer: Any, row: dict[str, Any]) -> Asked:
    """The question under the chat template; an answer is what the assistant says, the end of its message included."""
    from forge_pipeline.tokens.chat import encode_chat, encode_prompt

    messages = json.loads(row["messages"])
    options = [encode_chat(tokenizer, [*messages, {"role": "assistant", "content": o}], []) for o in row["options"]]
    return Asked(list(encode_prompt(tokenizer, messages, [])), [(list(ids), list(mask)) for ids, mask in options])


def encode_plain_question(tokenizer: Any, row: dict[str, Any]) -> Asked:
    """The question as text, for a model that has never seen a chat template.

    A reading question comes after an answered one of its kind: what form the answer takes is not what is asked.
    """
    from forge_pipeline.tokens.chat import encode_text
    from forge_pipeline.tokens.special_tokens import END_OF_DOCUMENT

    text = f"Question: {row['prompt']}\nAnswer:"
    if row["mode"] != "choice" and row["demonstration_prompt"]:
        text = f"Question: {row['demonstration_prompt']}\nAnswer: {row['demonstration_answer']}\n\n{text}"
    prompt = [tokenizer.token_to_id(END_OF_DOCUMENT), *encode_text(tokenizer, text)]
    options = []
    for option in row["options"]:
        # A space starts a new word for the tokenizer, so the prompt's tokens stay as they are.
        ids = encode_text(tokenizer, f" {option}")
        options.append(([*prompt, *ids], [False] * len(prompt) + [True] * len(ids)))
    return Asked(prompt, options)


def _likeliest(model: Mistral, asked: Sequence[Asked]) -> list[int]:
    """For each question the option with the highest mean log-probability per token; the first of equals."""
    from forge_pipeline.inference.scoring import sequence_log_probs

    sequences = [ids for question in asked for ids, _ in question.options]
    masks = [mask for question in asked for _, mask in question.options]
    window = model.config.context_length
    # Only what the model can read at once: the end, which holds the answer.
    sums = sequence_log_probs(model, [ids[-window:] for ids in sequences], [_tail(mask, window) for mask in masks])
    means = iter([total / sum(_tail(mask, window)) for total, mask in zip(sums, masks, strict=True)])
    scores = [[next(means) for _ in question.options] for question in asked]
    return [max(range(len(values)), key=lambda index: values[index]) for values in scores]


def _tail(mask: list[bool], window: int) -> list[bool]:
    tail = mask[-window:]
    # Nothing predicts a sequence's first token.
    return [False, *tail[1:]]


def _answers(
    settings: QuestionSettings,
    model: Mistral,
    tokenizer: Any,
    asked: Sequence[tuple[dict[str, Any], list[int]]],
    form: str,
) -> list[str]:
    """The greedy answer to each prompt: the assistant's message, or the rest of the line.

    An answer that does not come to its end within the limit goes on with an ellipsis, so that it is not right.
    """
    from forge_pipeline.inference.generate import generate
    from forge_pipeline.tokens.chat import encode_text, stop_ids

    # Whatever is longer than the longest true answer and its end is wrong already.
    needed = max((len(encode_text(tokenizer, row["answer"])) for row, _ in asked), default=0) + 2
    limit = min(settings.maximum_new_tokens, needed)
    longest = model.config.context_length - limit
    stops = set(stop_ids(tokenizer))
    if form == "plain":
        # The byte-level alphabet writes a line feed as this letter.
        stops |= {index for token, index in tokenizer.get_vocab().items() if "Ċ" in token}
    generated = generate(model, [prompt[-longest:] for _, prompt in asked], limit, stop_ids=sorted(stops))
    texts = []
    for ids in generated:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        closed = bool(ids) and ids[-1] in stops
        texts.append((text.split("\n")[0] if form == "plain" else text) if closed else f"{text}…")
    return texts


def normalised_answer(text: str) -> str:
    """White space made single; outer quotes, backticks and a final full stop left out."""
    return " ".join(text.split()).strip(_QUOTES).removesuffix(".").strip(_QUOTES)
