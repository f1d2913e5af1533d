"""A package is loaded in a fresh process by transformers alone; what does not serve stops the line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from forge_pipeline.errors import GateError
from forge_pipeline.release.serving import check_serving, run_process
from forge_pipeline.reporting import SilentProgress
from forge_pipeline_tests.release.conftest import SETTINGS, MakeRelease


@pytest.mark.slow
def test_a_package_answers_in_a_fresh_process_that_knows_nothing_of_this_project(
    make_release: MakeRelease, tmp_path: Path
) -> None:
    outcome = check_serving(SETTINGS, make_release("first").package, tmp_path, SilentProgress())
    assert all(check.passed for check in outcome.checks)
    assert outcome.counts["prompts"] == 2
    answers = json.loads((tmp_path / "answers.json").read_text())["answers"]
    assert answers[0]["rendered"] == "<|user|>What is a list?<|end|><|assistant|>"
    assert all(0 < answer["tokens"] <= 6 for answer in answers)


@pytest.mark.slow
def test_a_template_that_loses_messages_does_not_serve(make_release: MakeRelease, tmp_path: Path) -> None:
    folder = make_release("first").package / "model"
    body = json.loads((folder / "tokenizer_config.json").read_text())
    body["chat_template"] = "{% for m in messages %}<|{{ m.role }}|>{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(body))
    with pytest.raises(GateError, match="the chat template drops 'instructions-of-the-system'"):
        check_serving(SETTINGS, folder.parent, tmp_path, SilentProgress())


@pytest.mark.slow
def test_a_package_without_weights_names_the_reason(make_release: MakeRelease, tmp_path: Path) -> None:
    package = tmp_path / "copy"
    shutil.copytree(make_release("first").package, package)
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(GateError, match=r"cannot load the package.*model\.safetensors"):
        check_serving(SETTINGS, package, tmp_path, SilentProgress())


def test_a_process_that_takes_too_long_is_ended(make_release: MakeRelease) -> None:
    hasty = SETTINGS.serving.model_copy(update={"timeout_seconds": 0.2})
    with pytest.raises(GateError, match=r"did not serve within 0\.2 s"):
        run_process(hasty, make_release("first").package / "model")
