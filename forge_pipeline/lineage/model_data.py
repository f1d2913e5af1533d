"""The stages of a model before any training: its compute plan, and the tasks, examples and pairs it learns from."""

from __future__ import annotations

from forge_pipeline.agents.settings import AgentSettings
from forge_pipeline.alignment.settings import ExampleSettings, PairSettings
from forge_pipeline.lineage.model_stage import Model
from forge_pipeline.lineage.stage import Stage, StageRun
from forge_pipeline.reporting import Outcome

# What the reward audit checks: that no policy which solves nothing is paid, and that the reward is sound.
PAID_POLICIES = (
    *("empty", "constant", "constant_by_kind", "copied_prompt", "copied_name", "every_candidate", "listed_results"),
    *("form_only", "tool_spam", "malformed_spam", "injected_reward", "injected_query", "guess_without_tools"),
    "mutated_oracle",
)
REWARD_AUDIT_CHECKS = (
    "oracle_reaches_the_maximum",
    *(f"{policy}_is_not_paid" for policy in PAID_POLICIES),
    *("prompts_hide_answers", "scoring_is_deterministic", "scoring_never_fails", "rewards_are_bounded"),
)


def data_stages(model: Model) -> list[Stage]:
    """The compute plan, and the data of those later stages that the recipe has."""
    recipe = model.recipe
    stages = [_compute_plan(model)]
    if recipe.agent is not None:
        stages += [_agent_tasks(model, recipe.agent.settings), _reward_audit(model, recipe.agent.settings)]
    if recipe.supervised is not None:
        stages.append(_sft_examples(model, recipe.supervised.examples))
    if recipe.preferences is not None:
        stages.append(_preference_pairs(model, recipe.preferences.pairs))
    return stages


def _compute_plan(model: Model) -> Stage:
    recipe = model.recipe

    def plan(run: StageRun) -> Outcome:
        from forge_pipeline.planning.compute_plan import plan_compute

        return plan_compute(
            recipe.planning,
            recipe.architecture.model_dump(),
            recipe.pretraining.model_dump(),
            run.many("token_shards"),
            run.output,
            run.progress,
        )

    return model.stage(
        "compute_plan",
        "planning.compute_plan",
        plan,
        group="planning",
        description="Parameters, FLOPs, memory and time, on this machine and on a GPU, before training starts.",
        kinds=("json",),
        inputs=(model.corpus("token_shards"),),
        parameters={
            "planning": recipe.planning.model_dump(mode="json"),
            "architecture": recipe.architecture.model_dump(mode="json"),
            "pretraining": recipe.pretraining.model_dump(mode="json"),
        },
        checks=("fits_this_machine", "data_is_not_worn_out"),
    )


def _agent_tasks(model: Model, settings: AgentSettings) -> Stage:
    def build(run: StageRun) -> Outcome:
        from forge_pipeline.agents.tasks import build_tasks

        return build_tasks(settings.tasks, run.many("training_documents"), run.output, run.progress)

    return model.stage(
        "agent_tasks",
        "agents.tasks",
        build,
        group="agents",
        description="Multi-step tasks over tools that query a SQLite index of the corpus.",
        kinds=("sqlite", "parquet"),
        inputs=(model.corpus("training_documents"),),
        parameters=settings.tasks.model_dump(mode="json"),
        checks=("held_out_entities_are_unseen", "enough_test_tasks"),
    )


def _reward_audit(model: Model, settings: AgentSettings) -> Stage:
    def audit(run: StageRun) -> Outcome:
        from forge_pipeline.agents.audit import audit_rewards

        return audit_rewards(settings, run.one("agent_tasks"), run.output, run.progress)

    return model.stage(
        "reward_audit",
        "agents.audit",
        audit,
        group="agents",
        description="Degenerate policies against the reward: if one of them scores, no training starts.",
        kinds=("parquet",),
        inputs=(model.own("agent_tasks"),),
        parameters=settings.model_dump(mode="json", include={"episode", "reward", "audit"}),
        checks=REWARD_AUDIT_CHECKS,
    )


def _sft_examples(model: Model, settings: ExampleSettings) -> Stage:
    with_tasks = model.recipe.agent is not None

    def build(run: StageRun) -> Outcome:
        from forge_pipeline.alignment.examples import build_examples

        tasks = run.one("agent_tasks") if with_tasks else None
        return build_examples(settings, run.many("training_documents"), tasks, run.output, run.progress)

    return model.stage(
        "sft_examples",
        "alignment.examples",
        build,
        group="alignment",
        description="Chat examples made from the corpus itself, and held-out questions that never train.",
        kinds=("parquet",),
        inputs=(model.corpus("training_documents"), *([model.own("agent_tasks")] if with_tasks else [])),
        parameters=settings.model_dump(mode="json"),
        checks=("enough_examples", "nothing_held_out_trains"),
    )


def _preference_pairs(model: Model, settings: PairSettings) -> Stage:
    def build(run: StageRun) -> Outcome:
        from forge_pipeline.alignment.preferences import build_pairs

        return build_pairs(settings, run.many("training_documents"), run.output, run.progress)

    return model.stage(
        "preference_pairs",
        "alignment.preferences",
        build,
        group="alignment",
        description="Pairs of a true answer and a plausible wrong one, for training and held out.",
        kinds=("parquet",),
        inputs=(model.corpus("training_documents"),),
        parameters=settings.model_dump(mode="json"),
        checks=("enough_pairs", "nothing_held_out_trains"),
    )
