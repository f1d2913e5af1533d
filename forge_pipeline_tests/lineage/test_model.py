"""A recipe's training stages start from one another; what it leaves out is in nobody's inputs."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest

from forge_pipeline.lineage.model import model_stages
from forge_pipeline.lineage.model_evaluation import EVALUATIONS
from forge_pipeline.lineage.recipes import read_recipes, recipes_folder
from forge_pipeline.lineage.stage import StageName

OPTIONAL = {"supervised": "sft_model", "preferences": "aligned_model", "agent": "agent_model"}


@pytest.mark.parametrize("left_out", [part for size in range(4) for part in combinations(OPTIONAL, size)])
def test_each_training_stage_starts_from_the_one_before_and_is_evaluated(left_out: tuple[str, ...]) -> None:
    recipe = read_recipes(recipes_folder()).model("python_assistant")
    stages = model_stages("clerk", recipe.model_copy(update=dict.fromkeys(left_out)))
    inputs = {stage.name.stage: {given.name: given.stage for given in stage.inputs} for stage in stages}
    trained = ["base_model", *(stage for part, stage in OPTIONAL.items() if part not in left_out)]
    assert [name for name in inputs if name in EVALUATIONS] == trained
    for before, name in pairwise(trained):
        assert inputs[name]["initial_model"] == StageName("clerk", before)
    for name in trained:
        assert inputs[EVALUATIONS[name]]["model"] == StageName("clerk", name)
    assert {EVALUATIONS[name] for name in trained} == set(EVALUATIONS.values()) & set(inputs)
    needed = {name for given in inputs.values() for name in given.values() if name.owner == "clerk"}
    assert {name.stage for name in needed} <= set(inputs)
