"""`forge chat`: talk to a packaged model."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from forge_pipeline.cli import output
from forge_pipeline.cli.options import HomeOption, JsonOption, ModelArgument


def chat(
    model: ModelArgument = "python_assistant",
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="Ask this alone, and exit.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="0: always the likeliest token.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest reply.")] = 64,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling.")] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a model's newest package questions, one at a time. It may use its tools."""
    from forge_pipeline.agents.assistant import Assistant
    from forge_pipeline.errors import ForgeError, StorageError
    from forge_pipeline.governance.lineage_view import LineageView
    from forge_pipeline.storage import ArtifactKey, Home, open_store

    if as_json and prompt is None:
        raise ForgeError("--json needs a question", fix="give one with --prompt TEXT")
    store = open_store(Home.locate())
    package = store.current(ArtifactKey(model, "model_package"))
    if package is None:
        raise StorageError(f"{model} has no package yet", where=str(store.home.root), fix=f"run forge run {model}")
    tasks = LineageView.of_record(store, package).stage("agent_tasks")
    index = store.read(tasks[-1]) / "index.sqlite" if tasks else None
    assistant = Assistant(store.read(package) / "model", index, temperature=temperature, seed=seed)
    if prompt is not None:
        messages = assistant.answer(prompt, max_new_tokens)
        if as_json:
            output.print_json({"model": model, "fingerprint": package.fingerprint, "messages": messages})
        else:
            _show(messages)
        return
    output.error_console().print(f"{model}, fingerprint {package.fingerprint[:16]}. An empty line ends.", style="dim")
    while True:
        sys.stderr.write("> ")
        sys.stderr.flush()
        question = sys.stdin.readline().strip()
        if not question:
            return
        _show(assistant.answer(question, max_new_tokens))


def _show(messages: list[dict[str, Any]]) -> None:
    """The answer on stdout, the tool calls on the way to it on stderr."""
    from rich.text import Text

    for message in messages[:-1]:
        for call in message.get("tool_calls", ()):
            function = call["function"]
            arguments = ", ".join(f"{name}={value!r}" for name, value in function["arguments"].items())
            output.error_console().print(Text(f"  {function['name']}({arguments})", style="dim"))
        if message["role"] == "tool":
            output.error_console().print(Text(f"  {message['content']}", style="dim"))
    output.console().print(Text(messages[-1]["content"]))
