from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from forge_pipeline.alignment.examples import QUESTIONS, build_examples
from forge_pipeline.alignment.sequences import IGNORED, SequenceStore, lay_out
from forge_pipeline.alignment.settings import ExampleSettings
from forge_pipeline.corpus.tables import read_table
from forge_pipeline.evaluation.questions import (
    QUESTION_RESULTS,
    encode_chat_question,
    encode_plain_question,
    evaluate_questions,
    normalised_answer,
)
from forge_pipeline.evaluation.settings import QuestionSettings
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.tokens.chat import encode_chat, load_tokenizer


@pytest.fixture
def questions(write_corpus: Any, tmp_path: Path) -> list[dict[str, Any]]:
    output = tmp_path / "examples"
    output.mkdir()
    build_examples(
        ExampleSettings(maximum_per_kind=10, held_out_questions=36, kinds=("summary", "name", "last_parameter")),
        [write_corpus(modules=24)],
        None,
        output,
        SilentProgress(),
    )
    return read_table(output, QUESTIONS).to_pylist()


@pytest.mark.parametrize(
    ("written", "meant"),
    [(" `width`. ", "width"), ('"two  words"', "two words"), ("a.b", "a.b"), ("'utf-8'", "utf-8"), ("x\ny", "x y")],
)
def test_quotes_and_a_full_stop_do_not_matter(written: str, meant: str) -> None:
    assert normalised_answer(written) == normalised_answer(meant)


def test_other_answers_do_not_pass_as_right() -> None:
    assert normalised_answer("Width") != normalised_answer("width")
    assert normalised_answer("width and height") != normalised_answer("width")


def test_the_likeliest_option_per_token_is_chosen(
    model: Mistral, tokenizer: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    encoder = load_tokenizer(tokenizer / "tokenizer")
    evaluate_questions(QuestionSettings(formats=("chat", "plain")), model, encoder, questions, tmp_path)
    answered = {(row["question_id"], row["format"]): row for row in read_table(tmp_path, QUESTION_RESULTS).to_pylist()}
    compared = 0
    for row in questions:
        if row["mode"] != "choice":
            continue
        for form, encode in (("chat", encode_chat_question), ("plain", encode_plain_question)):
            means = []
            for ids, mask in encode(encoder, row).options:
                if len(ids) > model.config.context_length:
                    break
                with torch.no_grad():
                    log_probs = torch.log_softmax(model(torch.tensor([ids]))[0], -1)
                chosen = [place for place in range(1, len(ids)) if mask[place]]
                means.append(sum(float(log_probs[place - 1, ids[place]]) for place in chosen) / len(chosen))
            if len(means) == 4:
                best = row["options"][means.index(max(means))]
                assert answered[row["question_id"], form]["predicted"] == best
                assert answered[row["question_id"], form]["correct"] == (best == row["answer"])
                compared += 1
    assert compared > 10


def test_a_model_that_has_seen_the_answers_gives_them(
    model: Mistral, tokenizer: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    encoder = load_tokenizer(tokenizer / "tokenizer")
    chosen = [row for row in questions if row["mode"] == "reading"][:3] + [
        row for row in questions if row["mode"] == "choice"
    ][:3]
    encoded = [
        encode_chat(encoder, [*json.loads(row["messages"]), {"role": "assistant", "content": row["answer"]}])
        for row in chosen
    ]
    assert max(len(ids) for ids, _ in encoded) < model.config.context_length
    tensors = lay_out(SequenceStore.of(encoded), [[index] for index in range(len(encoded))])
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    settings = QuestionSettings(maximum_new_tokens=24)
    before = {r.metric: r.value for r in evaluate_questions(settings, model, encoder, chosen, tmp_path) if not r.detail}
    for _ in range(90):
        optimizer.zero_grad()
        logits = model(tensors["token_ids"], tensors["position_ids"]).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, tensors["labels"].flatten(), ignore_index=IGNORED).backward()
        optimizer.step()
    after = {r.metric: r.value for r in evaluate_questions(settings, model, encoder, chosen, tmp_path) if not r.detail}
    assert before["reading_accuracy"] == 0.0
    assert after == {"question_accuracy": 1.0, "multiple_choice_accuracy": 1.0, "reading_accuracy": 1.0}


def test_the_better_format_is_reported_and_both_are_shown(
    model: Mistral, tokenizer: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    encoder = load_tokenizer(tokenizer / "tokenizer")
    results = evaluate_questions(QuestionSettings(formats=("chat", "plain")), model, encoder, questions, tmp_path)
    by_detail = {result.detail: result for result in results if result.metric == "question_accuracy"}
    assert by_detail[""].value == max(by_detail["format chat"].value, by_detail["format plain"].value)
    assert by_detail[""].n == len(questions)
    assert by_detail[""].low < by_detail[""].value < by_detail[""].high


def test_a_plain_reading_question_shows_the_form_of_the_answer_first(
    tokenizer: Path, questions: list[dict[str, Any]]
) -> None:
    encoder = load_tokenizer(tokenizer / "tokenizer")
    row = next(row for row in questions if row["mode"] == "reading")
    text = encoder.decode(encode_plain_question(encoder, row).prompt)
    assert text == (
        f"Question: {row['demonstration_prompt']}\nAnswer: {row['demonstration_answer']}\n\n"
        f"Question: {row['prompt']}\nAnswer:"
    )
    assert row["answer"] != row["demonstration_answer"]
