"""The training stages of a model: each starts from the weights of the one before."""

from __future__ import annotations

from forge_pipeline.alignment.settings import PreferenceSettings, SupervisedSettings
from forge_pipeline.lineage.model_stage import Model
from forge_pipeline.lineage.recipes import AgentStage
from forge_pipeline.lineage.stage import Stage, StageRun
from forge_pipeline.reporting import Outcome


def training_stages(model: Model) -> list[Stage]:
    """Pre-training, and those later training stages that the recipe has, in order."""
    recipe = model.recipe
    stages = [_base_model(model)]
    if recipe.supervised is not None:
        stages.append(_sft_model(model, recipe.supervised.training, stages[-1].name.stage))
    if recipe.preferences is not None:
        stages.append(_aligned_model(model, recipe.preferences.training, stages[-1].name.stage))
    if recipe.agent is not None:
        stages.append(_agent_model(model, recipe.agent, stages[-1].name.stage))
    return stages


def _base_model(model: Model) -> Stage:
    recipe = model.recipe

    def train(run: StageRun) -> Outcome:
        from forge_pipeline.training.pretraining import train_base_model

        return train_base_model(
            recipe.pretraining,
            recipe.architecture,
            run.many("token_shards"),
            run.one("tokenizer"),
            run.output,
            run.work,
            run.progress,
        )

    return model.stage(
        "base_model",
        "training.pretraining",
        train,
        group="pretraining",
        description="A Mistral model trained from random initialisation on the corpus.",
        kinds=("deepspeed", "pytorch"),
        # The plan is no input of the computation; it stands before it so that the cost is known first.
        inputs=(model.corpus("token_shards"), model.tokenizer, model.own("compute_plan")),
        parameters={
            "architecture": recipe.architecture.model_dump(mode="json"),
            "pretraining": recipe.pretraining.model_dump(mode="json"),
        },
    )


def _sft_model(model: Model, settings: SupervisedSettings, before: str) -> Stage:
    def train(run: StageRun) -> Outcome:
        from forge_pipeline.alignment.supervised import train_supervised

        return train_supervised(
            settings,
            run.one("initial_model"),
            run.one("sft_examples"),
            run.one("tokenizer"),
            run.output,
            run.work,
            run.progress,
        )

    return model.stage(
        "sft_model",
        "alignment.supervised",
        train,
        group="alignment",
        description="Supervised fine-tuning on the examples, all parameters.",
        kinds=("deepspeed", "pytorch"),
        inputs=(model.own(before, "initial_model"), model.own("sft_examples"), model.tokenizer),
        parameters=settings.model_dump(mode="json"),
        checks=("most_examples_fit",),
    )


def _aligned_model(model: Model, settings: PreferenceSettings, before: str) -> Stage:
    def train(run: StageRun) -> Outcome:
        from forge_pipeline.alignment.preference_optimisation import train_preferences

        return train_preferences(
            settings,
            run.one("initial_model"),
            run.one("preference_pairs"),
            run.one("tokenizer"),
            run.output,
            run.work,
            run.progress,
        )

    return model.stage(
        "aligned_model",
        "alignment.preference_optimisation",
        train,
        group="alignment",
        description="Direct preference optimisation (DPO) on the pairs.",
        kinds=("deepspeed", "pytorch"),
        inputs=(model.own(before, "initial_model"), model.own("preference_pairs"), model.tokenizer),
        parameters=settings.model_dump(mode="json"),
        checks=("most_pairs_fit",),
    )


def _agent_model(model: Model, agent: AgentStage, before: str) -> Stage:
    def train(run: StageRun) -> Outcome:
        from forge_pipeline.agents.policy import train_agent

        return train_agent(
            agent.settings,
            agent.engine,
            run.one("initial_model"),
            run.one("agent_tasks"),
            run.one("tokenizer"),
            run.output,
            run.work,
            run.progress,
        )

    return model.stage(
        "agent_model",
        "agents.policy",
        train,
        group="agents",
        description="Policy gradient (GRPO) on multi-step tasks whose reward is checked in the database.",
        kinds=("deepspeed", "pytorch"),
        # The audit gives no data: it must have been sealed, that is passed, before training starts.
        inputs=(
            model.own(before, "initial_model"),
            model.own("agent_tasks"),
            model.own("reward_audit"),
            model.tokenizer,
        ),
        parameters={
            "agent": agent.settings.model_dump(mode="json", include={"episode", "reward", "policy"}),
            "engine": agent.engine.model_dump(mode="json"),
        },
        checks=("reward_follows_success", "scoring_never_failed"),
    )
