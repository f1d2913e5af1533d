"""The evaluation stages of a model: the same measures on the same held-out items after each training stage."""

from __future__ import annotations

from forge_pipeline.lineage.model_stage import Model
from forge_pipeline.lineage.stage import Stage, StageRun
from forge_pipeline.reporting import Outcome

# Training stages in order, and what each one's evaluation is called.
EVALUATIONS = {
    "base_model": "base_evaluation",
    "sft_model": "sft_evaluation",
    "aligned_model": "aligned_evaluation",
    "agent_model": "agent_evaluation",
}


def evaluation_stage(model: Model, trained: str) -> Stage:
    """The evaluation of the training stage ``trained``."""
    recipe = model.recipe
    optional = {
        "sft_examples": recipe.supervised is not None,
        "preference_pairs": recipe.preferences is not None,
        "agent_tasks": recipe.agent is not None,
    }
    present = [name for name, there in optional.items() if there]
    settings = recipe.evaluation_of(trained)
    agent = recipe.agent.settings if recipe.agent is not None else None

    def evaluate(run: StageRun) -> Outcome:
        from forge_pipeline.evaluation.stage import evaluate_stage

        given = {name: run.one(name) if name in present else None for name in optional}
        return evaluate_stage(
            settings,
            agent,
            run.one("model"),
            run.many("token_shards"),
            run.many("training_documents"),
            run.one("tokenizer"),
            given["sft_examples"],
            given["preference_pairs"],
            given["agent_tasks"],
            run.output,
            run.progress,
        )

    return model.stage(
        EVALUATIONS[trained],
        "evaluation.stage",
        evaluate,
        group="evaluation",
        description=f"What {trained} can do on held-out documents, questions, pairs and tasks.",
        kinds=("parquet",),
        inputs=(
            model.own(trained, "model"),
            model.corpus("token_shards"),
            model.corpus("training_documents"),
            model.tokenizer,
            *(model.own(name) for name in present),
        ),
        parameters={
            "evaluation": settings.model_dump(mode="json"),
            "agent": agent.model_dump(mode="json", include={"episode", "reward", "evaluation"}) if agent else None,
        },
        checks=("something_was_measured",),
    )
