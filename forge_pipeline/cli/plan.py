"""`forge plan`: what a model will cost, before it is trained."""

from __future__ import annotations

import json
from dataclasses import asdict

from forge_pipeline.cli import output
from forge_pipeline.cli.options import HomeOption, JsonOption, ModelArgument


def plan(model: ModelArgument = "python_assistant", home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show parameters, FLOPs, memory and time. Makes the corpus first, whose tokens it counts."""
    from forge_pipeline.cli.run import bring_up_to_date
    from forge_pipeline.cli.terminal import outcome_view
    from forge_pipeline.lineage.open import Project
    from forge_pipeline.lineage.stage import StageName

    project = Project.locate()
    lineage, _ = bring_up_to_date(project, model, until="compute_plan")
    (unit,) = lineage.units(lineage.by_name[StageName(model, "compute_plan")])
    record = lineage.record(unit)
    assert record is not None
    outcome = project.store.outcome(record)
    if as_json:
        body = json.loads((project.store.read(record) / "plan.json").read_text(encoding="utf-8"))
        tables = [asdict(table) for table in outcome.tables]
        output.print_json({"model": model, "plan": body, "counts": outcome.counts, "tables": tables})
    else:
        output.console().print(outcome_view(f"Compute plan of {model}", outcome))
