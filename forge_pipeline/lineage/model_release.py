"""The release stages of a model: the decision, the package, its registration, the serving check and the audit page."""

from __future__ import annotations

import os
from collections.abc import Sequence

from forge_pipeline.lineage.facts import lineage_view, stage_costs, training_histories
from forge_pipeline.lineage.model_evaluation import EVALUATIONS
from forge_pipeline.lineage.model_stage import Model
from forge_pipeline.lineage.stage import Input, Scope, Stage, StageRun
from forge_pipeline.reporting import Outcome


def release_stages(model: Model, trained: Sequence[str]) -> list[Stage]:
    """What becomes of the models of the stages ``trained``. The last of them is released, or the recipe's choice."""
    released = model.recipe.release.released_stage or trained[-1]
    return [
        _release_decision(model, trained, released),
        _model_package(model, trained, released),
        _registered_model(model, trained),
        _serving_check(model),
        _audit_report(model),
    ]


def _models(model: Model, trained: Sequence[str]) -> tuple[Input, ...]:
    return tuple(model.own(name) for name in trained)


def _release_decision(model: Model, trained: Sequence[str], released: str) -> Stage:
    settings = model.recipe.release
    evaluations = {name: EVALUATIONS[name] for name in trained}

    def decide(run: StageRun) -> Outcome:
        from forge_pipeline.release.decision import decide_release

        given = {name: run.one(evaluation) for name, evaluation in evaluations.items()}
        return decide_release(settings, given, stage_costs(run, trained), run.output, run.progress)

    return model.stage(
        "release_decision",
        "release.decision",
        decide,
        group="release",
        description="Which thresholds held, and which stage is the cheapest that meets the target.",
        kinds=("json",),
        inputs=(*_models(model, trained), *(model.own(evaluation) for evaluation in evaluations.values())),
        parameters=settings.model_dump(mode="json"),
        checks=tuple(f"{limit.metric}_of_{limit.stage or released}" for limit in settings.thresholds),
    )


def _model_package(model: Model, trained: Sequence[str], released: str) -> Stage:
    settings = model.recipe.release

    def package(run: StageRun) -> Outcome:
        from forge_pipeline.governance.facts import facts_of_model
        from forge_pipeline.release.package import package_model

        facts = facts_of_model(lineage_view(run), model.name)
        return package_model(settings, run.one(released), run.one("release_decision"), facts, run.output, run.progress)

    return model.stage(
        "model_package",
        "release.package",
        package,
        group="release",
        description="Weights, tokenizer, chat template and model card, in the Hugging Face layout.",
        kinds=("huggingface",),
        inputs=(*_models(model, trained), model.own("release_decision")),
        parameters=settings.model_dump(mode="json"),
        checks=("weights_are_whole_and_finite", "chat_template_is_present"),
    )


def _registered_model(model: Model, trained: Sequence[str]) -> Stage:
    settings = model.recipe.release

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

    return model.stage(
        "registered_model",
        "release.registry",
        register,
        group="release",
        description="A version in the MLflow registry; a passed gate makes it the champion.",
        kinds=("mlflow",),
        inputs=(*_models(model, trained), model.own("model_package"), model.own("release_decision")),
        parameters=settings.model_dump(mode="json"),
        checks=("package_is_unaltered", "champion_follows_the_gate"),
    )


def _serving_check(model: Model) -> Stage:
    settings = model.recipe.release

    def check_serving(run: StageRun) -> Outcome:
        from forge_pipeline.release.serving import check_serving

        return check_serving(settings, run.one("model_package"), run.output, run.progress)

    return model.stage(
        "serving_check",
        "release.serving",
        check_serving,
        group="release",
        description="The package loaded in a fresh process by transformers alone, answering prompts.",
        kinds=("transformers",),
        inputs=(model.own("model_package"),),
        parameters=settings.model_dump(mode="json"),
        checks=("loads_in_a_fresh_process", "needs_nothing_of_this_project", "chat_template_works", "generates"),
    )


def _audit_report(model: Model) -> Stage:
    settings = model.recipe.audit

    def report(run: StageRun) -> Outcome:
        from forge_pipeline.governance.audit import write_audit_report

        return write_audit_report(settings, model.name, lineage_view(run), run.output, run.progress)

    return model.stage(
        "audit_report",
        "governance.audit",
        report,
        group="governance",
        description="One page for an auditor: sources, counts, decisions, fingerprints and evaluations.",
        kinds=("html",),
        inputs=(
            model.own("model_package"),
            model.own("registered_model"),
            model.own("serving_check"),
            model.corpus("data_inventory", Scope.WHOLE),
        ),
        parameters=settings.model_dump(mode="json"),
        checks=("files_have_their_sealed_digests",),
    )
