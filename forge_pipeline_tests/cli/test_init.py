import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forge_pipeline.cli.init import write_recipe
from forge_pipeline.errors import RecipeError
from forge_pipeline.lineage.recipes import read_recipes, recipes_folder


def sources_in(recipe: Path) -> list[str]:
    documents = list(yaml.safe_load_all(recipe.read_text(encoding="utf-8")))
    text = json.dumps(documents)
    assert "${" not in text
    return [source["location"] for source in documents[0]["attributes"]["landing"]["sources"]]


def test_the_recipe_names_the_source(tmp_path: Path) -> None:
    source = tmp_path / "our documents"
    source.mkdir()
    recipe = write_recipe(tmp_path / "defs", "support_assistant", source)
    assert recipe == tmp_path / "defs" / "support_assistant" / "defs.yaml"
    assert sources_in(recipe) == [str(source)]


@given(name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_folder_name_survives_yaml(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("init")
    source = folder / f"x{name}"
    source.mkdir()
    assert sources_in(write_recipe(folder / "defs", "one", source)) == [str(source.resolve())]


@pytest.mark.parametrize("name", ["", "Model", "1st", "a-b", "a b", "../up", "a__b", "_a", "a_"])
def test_names_that_cannot_be_asset_keys_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="cannot name a model"):
        write_recipe(tmp_path, name, None)
    assert not list(tmp_path.iterdir())


def test_an_existing_recipe_is_never_overwritten(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "mine", None)
    recipe.write_text("edited")
    with pytest.raises(RecipeError, match="taken"):
        write_recipe(tmp_path, "mine", None)
    assert recipe.read_text() == "edited"


def test_a_missing_source_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a folder"):
        write_recipe(tmp_path / "defs", "mine", tmp_path / "missing")
    assert not (tmp_path / "defs").exists()


def test_the_recipe_is_valid_and_holds_every_stage(tmp_path: Path) -> None:
    write_recipe(tmp_path, "support_assistant", None)
    recipe = read_recipes(tmp_path).model("support_assistant")
    assert None not in (recipe.supervised, recipe.preferences, recipe.agent)


def test_recipes_are_written_where_definitions_are_loaded_from() -> None:
    assert (recipes_folder() / "python_assistant" / "defs.yaml").is_file()
