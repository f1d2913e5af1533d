"""`forge trace`: from a model to its documents, and from a document to its models."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forge_pipeline.cli import output
from forge_pipeline.cli.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from forge_pipeline.reporting import Scalar, Table
    from forge_pipeline.storage import ArtifactStore

SHOWN = ("path", "part", "source", "licence", "split", "tokens", "tokens_seen", "first_step", "last_step", "epochs")


def trace(
    target: Annotated[str, typer.Argument(metavar="MODEL|DOC_ID|PATH", help="A model, a document's id, or a file.")],
    limit: Annotated[int, typer.Option("--limit", min=1, help="Documents of a model that are listed.")] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which documents made a model; or what became of a document, and which models it reached."""
    from forge_pipeline.governance.lineage_view import model_names
    from forge_pipeline.storage import Home, open_store

    store = open_store(Home.locate())
    if target in model_names(store):
        _trace_model(store, target, limit, as_json)
    else:
        _trace_document(store, target, as_json)


def _trace_model(store: ArtifactStore, model: str, limit: int, as_json: bool) -> None:
    import pyarrow.compute as pc

    from forge_pipeline.cli.terminal import summary_view
    from forge_pipeline.governance.lineage_view import LineageView
    from forge_pipeline.governance.trace import documents_of_model

    documents = documents_of_model(LineageView.of_model(store, model))
    totals: dict[str, Scalar] = {
        "documents": documents.num_rows,
        "tokens": pc.sum(documents["tokens"]).as_py(),
        "tokens seen in training": pc.sum(documents["tokens_seen"]).as_py(),
    }
    if as_json:
        output.print_json({"model": model, "totals": totals, "documents": documents.to_pylist()})
        return
    table = _table(f"The {min(limit, documents.num_rows)} documents seen most", documents.slice(0, limit).to_pylist())
    output.console().print(summary_view(f"Documents of {model}", [("In all", totals), table]))


def _trace_document(store: ArtifactStore, target: str, as_json: bool) -> None:
    from forge_pipeline.cli.terminal import summary_view
    from forge_pipeline.errors import SourceError
    from forge_pipeline.governance.explain import why
    from forge_pipeline.governance.lineage_view import LineageView, corpus_names, model_names
    from forge_pipeline.governance.trace import models_of_document

    explanations = []
    for corpus in corpus_names(store):
        try:
            explanations.append(why(LineageView.of_corpus(store, corpus), target))
        except SourceError:
            # Another corpus may know it.
            continue
    if not explanations:
        raise SourceError(
            f"{target!r} is no model, and no corpus has such a document or file",
            where=str(store.home.root),
            fix=f"name a model ({', '.join(model_names(store)) or 'none is made yet'}), a document id or a file's path",
        )
    reached = models_of_document([LineageView.of_model(store, model) for model in model_names(store)], target)
    if as_json:
        output.print_json(
            {
                "target": target,
                "documents": [doc_id for found in explanations for doc_id in found.documents],
                "events": [asdict(event) for found in explanations for event in found.events],
                "reached": [asdict(reach) for reach in reached],
            }
        )
        return
    events = [
        _shown(asdict(event), ("stage", "action", "doc_id", "rule", "detail"))
        for e in explanations
        for event in e.events
    ]
    ways = [
        _shown(asdict(reach), ("model", "stage", "via", "use", "tokens", "first_step", "last_step"))
        for reach in reached
    ]
    output.console().print(
        summary_view(target, [_plain("What happened to it", events), _plain("Which models it reached", ways)])
    )


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    return _plain(title, [_shown(row, SHOWN) for row in rows])


def _plain(title: str, rows: list[dict[str, Any]]) -> Table:
    from forge_pipeline.reporting import Table

    return Table.of(title if rows else f"{title}: nothing", rows)


def _shown(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in names}
