"""The stages of a model: from token shards to a registered version."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge_pipeline.lineage.code import code_version
from forge_pipeline.lineage.facts import stage_costs, training_histories
from forge_pipeline.lineage.recipes import ModelRecipe
from forge_pipeline.lineage.stage import Input, Scope, Stage, StageName, StageRun
from forge_pipeline.reporting import Outcome

if TYPE_CHECKING:
    from forge_pipeline.governance.lineage_view import LineageView

# Training stages in order, and what each one's evaluation is called.
EVALUATIONS = {
    "base_model": "base_evaluation",
    "sft_model": "sft_evaluation",
    "aligned_model": "aligned_evaluation",
    "agent_model": "agent_evaluation",
}

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


def model_stages(owner: str, recipe: ModelRecipe) -> list[Stage]:
    """The stages of the model ``owner``; those that the recipe leaves out are not there."""
    stages = _Stages(owner, recipe)
    stages.plan()
    if recipe.agent is not None:
        stages.agent_tasks()
    if recipe.supervised is not None:
        stages.examples()
    if recipe.preferences is not None:
        stages.pairs()
    stages.base_model()
    if recipe.supervised is not None:
        stages.sft_model()
    if recipe.preferences is not None:
        stages.aligned_model()
    if recipe.agent is not None:
        stages.agent_model()
    stages.release()
    return stages.made


@dataclass
class _Stages:
    """Collects the stages; ``trained`` are the training stages so far, each starting from the one before."""

    owner: str
    recipe: ModelRecipe

    def __post_init__(self) -> None:
        self.made: list[Stage] = []
        self.trained: list[str] = []

    # -- building blocks -----------------------------------------------------------------------------------

    def own(self, stage: str, name: str | None = None) -> Input:
        return Input(name or stage, StageName(self.owner, stage))

    def corpus(self, stage: str, scope: Scope = Scope.ALL_BATCHES) -> Input:
        return Input(stage, StageName(self.recipe.corpus, stage), scope)

    @property
    def tokenizer(self) -> Input:
        return self.corpus("tokenizer", Scope.WHOLE)

    def add(
        self,
        name: str,
        module: str,
        function: Callable[[StageRun], Outcome],
        *,
        group: str,
        description: str,
        kinds: tuple[str, ...],
        inputs: tuple[Input, ...],
        parameters: dict[str, Any],
        checks: tuple[str, ...] = (),
    ) -> None:
        self.made.append(
            Stage(
                name=StageName(self.owner, name),
                group=group,
                description=description,
                kinds=kinds,
                inputs=inputs,
                parameters=parameters,
                code_version=code_version(module),
                function=function,
                checks=checks,
            )
        )

    # -- data of the later stages --------------------------------------------------------------------------

    def plan(self) -> None:
        recipe = self.recipe
        parameters = {
            "planning": recipe.planning.model_dump(mode="json"),
            "architecture": recipe.architecture.model_dump(mode="json"),
            "pretraining": recipe.pretraining.model_dump(mode="json"),
        }

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

        self.add(
            "compute_plan",
            "planning.compute_plan",
            plan,
            group="planning",
            description="Parameters, FLOPs, memory and time, on this machine and on a GPU, before training starts.",
            kinds=("json",),
            inputs=(self.corpus("token_shards"),),
            parameters=parameters,
            checks=("fits_this_machine", "data_is_not_worn_out"),
        )

    def agent_tasks(self) -> None:
        assert self.recipe.agent is not None
        settings = self.recipe.agent.settings

        def build(run: StageRun) -> Outcome:
            from forge_pipeline.agents.tasks import build_tasks

            return build_tasks(settings.tasks, run.many("training_documents"), run.output, run.progress)

        def audit(run: StageRun) -> Outcome:
            from forge_pipeline.agents.audit import audit_rewards

            return audit_rewards(settings, run.one("agent_tasks"), run.output, run.progress)

        self.add(
            "agent_tasks",
            "agents.tasks",
            build,
            group="agents",
            description="Multi-step tasks over tools that query a SQLite index of the corpus.",
            kinds=("sqlite", "parquet"),
            inputs=(self.corpus("training_documents"),),
            parameters=settings.tasks.model_dump(mode="json"),
            checks=("held_out_entities_are_unseen", "enough_test_tasks"),
        )
        self.add(
            "reward_audit",
            "agents.audit",
            audit,
            group="agents",
            description="Degenerate policies against the reward: if one of them scores, no training starts.",
            kinds=("parquet",),
            inputs=(self.own("agent_tasks"),),
            parameters=settings.model_dump(mode="json", include={"episode", "reward", "audit"}),
            checks=REWARD_AUDIT_CHECKS,
        )

    def examples(self) -> None:
        assert self.recipe.supervised is not None
        settings = self.recipe.supervised.examples
        with_tasks = self.recipe.agent is not None

        def build(run: StageRun) -> Outcome:
            from forge_pipeline.alignment.examples import build_examples

            tasks = run.one("agent_tasks") if with_tasks else None
            return build_examples(settings, run.many("training_documents"), tasks, run.output, run.progress)

        self.add(
            "sft_examples",
            "alignment.examples",
            build,
            group="alignment",
            description="Chat examples made from the corpus itself, and held-out questions that never train.",
            kinds=("parquet",),
            inputs=(self.corpus("training_documents"), *([self.own("agent_tasks")] if with_tasks else [])),
            parameters=settings.model_dump(mode="json"),
            checks=("enough_examples", "nothing_held_out_trains"),
        )

    def pairs(self) -> None:
        assert self.recipe.preferences is not None
        settings = self.recipe.preferences.pairs

        def build(run: StageRun) -> Outcome:
            from forge_pipeline.alignment.preferences import build_pairs

            return build_pairs(settings, run.many("training_documents"), run.output, run.progress)

        self.add(
            "preference_pairs",
            "alignment.preferences",
            build,
            group="alignment",
            description="Pairs of a true answer and a plausible wrong one, for training and held out.",
            kinds=("parquet",),
            inputs=(self.corpus("training_documents"),),
            parameters=settings.model_dump(mode="json"),
            checks=("enough_pairs", "nothing_held_out_trains"),
        )

    # -- training stages -----------------------------------------------------------------------------------

    def base_model(self) -> None:
        recipe = self.recipe

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

        self.add(
            "base_model",
            "training.pretraining",
            train,
            group="pretraining",
            description="A Mistral model trained from random initialisation on the corpus.",
            kinds=("deepspeed", "pytorch"),
            # The plan is no input of the computation; it stands before it so that the cost is known first.
            inputs=(self.corpus("token_shards"), self.tokenizer, self.own("compute_plan")),
            parameters={
                "architecture": recipe.architecture.model_dump(mode="json"),
                "pretraining": recipe.pretraining.model_dump(mode="json"),
            },
        )
        self.evaluation("base_model")

    def sft_model(self) -> None:
        assert self.recipe.supervised is not None
        settings, before = self.recipe.supervised.training, self.trained[-1]

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

        self.add(
            "sft_model",
            "alignment.supervised",
            train,
            group="alignment",
            description="Supervised fine-tuning on the examples, all parameters.",
            kinds=("deepspeed", "pytorch"),
            inputs=(self.own(before, "initial_model"), self.own("sft_examples"), self.tokenizer),
            parameters=settings.model_dump(mode="json"),
            checks=("most_examples_fit",),
        )
        self.evaluation("sft_model")

    def aligned_model(self) -> None:
        assert self.recipe.preferences is not None
        settings, before = self.recipe.preferences.training, self.trained[-1]

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

        self.add(
            "aligned_model",
            "alignment.preference_optimisation",
            train,
            group="alignment",
            description="Direct preference optimisation (DPO) on the pairs.",
            kinds=("deepspeed", "pytorch"),
            inputs=(self.own(before, "initial_model"), self.own("preference_pairs"), self.tokenizer),
            parameters=settings.model_dump(mode="json"),
            checks=("most_pairs_fit",),
        )
        self.evaluation("aligned_model")

    def agent_model(self) -> None:
        assert self.recipe.agent is not None
        agent, before = self.recipe.agent, self.trained[-1]

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

        self.add(
            "agent_model",
            "agents.policy",
            train,
            group="agents",
            description="Policy gradient (GRPO) on multi-step tasks whose reward is checked in the database.",
            kinds=("deepspeed", "pytorch"),
            # The audit gives no data: it must have been sealed, that is passed, before training starts.
            inputs=(
                self.own(before, "initial_model"),
                self.own("agent_tasks"),
                self.own("reward_audit"),
                self.tokenizer,
            ),
            parameters={
                "agent": agent.settings.model_dump(mode="json", include={"episode", "reward", "policy"}),
                "engine": agent.engine.model_dump(mode="json"),
            },
            checks=("reward_follows_success", "scoring_never_failed"),
        )
        self.evaluation("agent_model")

    def evaluation(self, trained: str) -> None:
        """The evaluation of a training stage: the same measures on the same held-out items after each."""
        recipe = self.recipe
        self.trained.append(trained)
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

        self.add(
            EVALUATIONS[trained],
            "evaluation.stage",
            evaluate,
            group="evaluation",
            description=f"What {trained} can do on held-out documents, questions, pairs and tasks.",
            kinds=("parquet",),
            inputs=(
                self.own(trained, "model"),
                self.corpus("token_shards"),
                self.corpus("training_documents"),
                self.tokenizer,
                *(self.own(name) for name in present),
            ),
            parameters={
                "evaluation": settings.model_dump(mode="json"),
                "agent": agent.model_dump(mode="json", include={"episode", "reward", "evaluation"}) if agent else None,
            },
            checks=("something_was_measured",),
        )

    # -- release -------------------------------------------------------------------------------------------

    def release(self) -> None:
        settings = self.recipe.release
        released = settings.released_stage or self.trained[-1]
        evaluations = {name: EVALUATIONS[name] for name in self.trained}
        parameters = settings.model_dump(mode="json")
        trained = list(self.trained)

        def decide(run: StageRun) -> Outcome:
            from forge_pipeline.release.decision import decide_release

            given = {name: run.one(evaluation) for name, evaluation in evaluations.items()}
            return decide_release(settings, given, stage_costs(run, trained), run.output, run.progress)

        def package(run: StageRun) -> Outcome:
            from forge_pipeline.governance.facts import facts_of_model
            from forge_pipeline.release.package import package_model

            facts = facts_of_model(_view(run), self.owner)
            return package_model(
                settings, run.one(released), run.one("release_decision"), facts, run.output, run.progress
            )

        def register(run: StageRun) -> Outcome:
            from forge_pipeline.release.registry import register_model

            return register_model(
                settings,
                run.one("model_package"),
                run.one("release_decision"),
                training_histories(run, trained),
                os.environ["MLFLOW_TRACKING_URI"],
                run.output,
                run.progress,
            )

        def check_serving(run: StageRun) -> Outcome:
            from forge_pipeline.release.serving import check_serving

            return check_serving(settings, run.one("model_package"), run.output, run.progress)

        models = tuple(self.own(name) for name in trained)
        self.add(
            "release_decision",
            "release.decision",
            decide,
            group="release",
            description="Which thresholds held, and which stage is the cheapest that meets the target.",
            kinds=("json",),
            inputs=(*models, *(self.own(evaluation) for evaluation in evaluations.values())),
            parameters=parameters,
            checks=tuple(f"{limit.metric}_of_{limit.stage or released}" for limit in settings.thresholds),
        )
        self.add(
            "model_package",
            "release.package",
            package,
            group="release",
            description="Weights, tokenizer, chat template and model card, in the Hugging Face layout.",
            kinds=("huggingface",),
            inputs=(*models, self.own("release_decision")),
            parameters=parameters,
            checks=("weights_are_whole_and_finite", "chat_template_is_present"),
        )
        self.add(
            "registered_model",
            "release.registry",
            register,
            group="release",
            description="A version in the MLflow registry; a passed gate makes it the champion.",
            kinds=("mlflow",),
            inputs=(*models, self.own("model_package"), self.own("release_decision")),
            parameters=parameters,
            checks=("package_is_unaltered", "champion_follows_the_gate"),
        )
        self.add(
            "serving_check",
            "release.serving",
            check_serving,
            group="release",
            description="The package loaded in a fresh process by transformers alone, answering prompts.",
            kinds=("transformers",),
            inputs=(self.own("model_package"),),
            parameters=parameters,
            checks=("loads_in_a_fresh_process", "needs_nothing_of_this_project", "chat_template_works", "generates"),
        )
        self.audit_report()

    def audit_report(self) -> None:
        settings = self.recipe.audit

        def report(run: StageRun) -> Outcome:
            from forge_pipeline.governance.audit import write_audit_report

            return write_audit_report(settings, self.owner, _view(run), run.output, run.progress)

        self.add(
            "audit_report",
            "governance.audit",
            report,
            group="governance",
            description="One page for an auditor: sources, counts, decisions, fingerprints and evaluations.",
            kinds=("html",),
            inputs=(
                self.own("model_package"),
                self.own("registered_model"),
                self.own("serving_check"),
                Input("data_inventory", StageName(self.recipe.corpus, "data_inventory")),
            ),
            parameters=settings.model_dump(mode="json"),
            checks=("files_have_their_sealed_digests",),
        )


def _view(run: StageRun) -> LineageView:
    """The lineage of everything that a stage reads."""
    from forge_pipeline.governance.lineage_view import LineageView

    used = [(record.key, record.fingerprint) for records in run.records.values() for record in records]
    return LineageView.of_entries(run.store, used)
