"""A recipe that is wrong gets one error with the file, the line, the field and the fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forge_pipeline.errors import RecipeError, SourceError
from forge_pipeline.lineage.recipes import SOURCES_VARIABLE, Recipes, read_recipes, recipes_folder, resolve_sources

CORPUS = """\
type: forge_pipeline.components.CorpusComponent
attributes:
  landing:
    sources:
      - name: letters
        location: /tmp
"""
MODEL = """\
type: forge_pipeline.components.ModelComponent
attributes:
  corpus: letters
  pretraining:
    engine:
      steps: 10
  release:
    registered_model: clerk
"""


def read(folder: Path, **recipes: str) -> Recipes:
    for name, text in recipes.items():
        (folder / name).mkdir()
        (folder / name / "defs.yaml").write_text(text)
    return read_recipes(folder)


def test_a_corpus_and_a_model_may_share_a_file(tmp_path: Path) -> None:
    recipes = read(tmp_path, letters=f"{CORPUS}---\n{MODEL}")
    assert recipes.corpora["letters"].landing.sources[0].name == "letters"
    assert recipes.model("letters").pretraining.engine.steps == 10


def test_the_shipped_recipes_are_valid() -> None:
    recipes = read_recipes(recipes_folder())
    assert {"python_assistant", "python_assistant_long"} <= set(recipes.models)


@pytest.mark.parametrize(
    ("recipe", "line", "field", "fix"),
    [
        (MODEL.replace("steps: 10", "steps: ten"), 6, "pretraining.engine.steps", "optimizer steps"),
        (MODEL.replace("steps: 10", "stepps: 10"), 6, "pretraining.engine.stepps", "use one of: steps"),
        (MODEL.replace("steps: 10", "steps: 0"), 6, "pretraining.engine.steps", "optimizer steps"),
        (MODEL.replace("corpus: letters", "corpus: [letters]"), 3, "corpus", "name of the corpus"),
        (MODEL + "  layers: 3\n", 9, "layers", "use one of: corpus"),
    ],
)
def test_a_wrong_field_is_named_with_its_line_and_the_fix(
    tmp_path: Path, recipe: str, line: int, field: str, fix: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, letters=CORPUS, clerk=recipe)
    assert caught.value.where is not None
    assert caught.value.where.startswith(f"{tmp_path / 'clerk' / 'defs.yaml'}:{line}")
    assert field in caught.value.problem
    assert fix in (caught.value.fix or "")


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"pretraining\.engine\.steps"):
        read(tmp_path, letters=CORPUS, clerk=MODEL.replace("    engine:\n      steps: 10", "    engine: {}"))


def test_an_unknown_corpus_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="write one of: letters"):
        read(tmp_path, letters=CORPUS, clerk=MODEL.replace("corpus: letters", "corpus: mails"))


def test_broken_yaml_is_refused_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="clerk"):
        read(tmp_path, clerk="type: [")


def test_folders_given_in_the_environment_replace_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read(tmp_path, letters=CORPUS).corpora["letters"]
    own, own_batches = resolve_sources("letters", recipe)
    documents = tmp_path / "my documents"
    documents.mkdir()
    monkeypatch.setenv(SOURCES_VARIABLE, json.dumps({"letters": [str(documents)]}))
    other, other_batches = resolve_sources("letters", recipe)
    assert own is recipe
    assert [source.location for source in other.landing.sources] == [str(documents)]
    assert own_batches != other_batches


def test_a_source_folder_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read(tmp_path, letters=CORPUS).corpora["letters"]
    monkeypatch.setenv(SOURCES_VARIABLE, json.dumps({"letters": [str(tmp_path / "nowhere")]}))
    with pytest.raises(SourceError, match="nowhere"):
        resolve_sources("letters", recipe)
