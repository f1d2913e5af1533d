from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from forge_pipeline.corpus.tables import read_table
from forge_pipeline.evaluation.preferences import PREFERENCE_RESULTS, evaluate_preferences
from forge_pipeline.evaluation.settings import PreferenceEvaluationSettings
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.tokens.chat import encode_chat, load_tokenizer

PROMPT = [{"role": "user", "content": "What does open_file do?"}]
ANSWERS = [
    ("Open the file.", "Close the stream and tell how far it came."),
    ("Read it.", "Read it. Read it. Read it."),
    ("mode_3=None", "mode_3"),
    ("Merge the table and the record of a package.", "no"),
]


def test_both_accuracies_are_those_of_the_answers_one_by_one(model: Mistral, tokenizer: Path, tmp_path: Path) -> None:
    encoder = load_tokenizer(tokenizer / "tokenizer")
    pairs = [
        {"pair_id": str(n), "kind": "k", "messages": json.dumps(PROMPT), "chosen": chosen, "rejected": rejected}
        for n, (chosen, rejected) in enumerate(ANSWERS)
    ]
    results = evaluate_preferences(PreferenceEvaluationSettings(), model, encoder, pairs, tmp_path)

    def score(text: str) -> tuple[float, int]:
        ids, mask = encode_chat(encoder, [*PROMPT, {"role": "assistant", "content": text}])
        with torch.no_grad():
            log_probs = torch.log_softmax(model(torch.tensor([ids]))[0], -1)
        places = [place for place in range(1, len(ids)) if mask[place]]
        return sum(float(log_probs[place - 1, ids[place]]) for place in places), len(places)

    scored = [(score(chosen), score(rejected)) for chosen, rejected in ANSWERS]
    by_token = [good[0] / good[1] > bad[0] / bad[1] for good, bad in scored]
    whole = [good[0] > bad[0] for good, bad in scored]
    values = {result.metric: result.value for result in results if not result.detail}
    assert values["preference_accuracy"] == sum(by_token) / 4
    assert values["preference_accuracy_raw"] == sum(whole) / 4
    for row, (good, bad) in zip(read_table(tmp_path, PREFERENCE_RESULTS).to_pylist(), scored, strict=True):
        assert row["chosen_log_prob"] == pytest.approx(good[0], rel=1e-4)
        assert (row["chosen_tokens"], row["rejected_tokens"]) == (good[1], bad[1])
