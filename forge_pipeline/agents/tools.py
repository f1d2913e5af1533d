"""Tools as a model calls them: their schemas, and running a call that may not fit."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from forge_pipeline.agents.environment import LibraryEnvironment, ToolError
from forge_pipeline.tokens.chat import ToolCall

# What TRL does not take for tools either.
_NOT_TOOLS = frozenset({"reset", "get_reward"})
_ARGUMENT = re.compile(r"^\s+(\w+): (.+)$")


def call_message(call: ToolCall) -> dict[str, Any]:
    """The assistant's message that makes ``call``."""
    function = {"name": call.name, "arguments": dict(call.arguments)}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def tool_parameters(environment: LibraryEnvironment | type[LibraryEnvironment]) -> dict[str, tuple[str, ...]]:
    """The tools' names, in the order in which the class defines them, each with its parameters."""
    kind = environment if isinstance(environment, type) else type(environment)
    return {
        name: tuple(parameter for parameter in inspect.signature(member).parameters if parameter != "self")
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_") and name not in _NOT_TOOLS
    }


def tool_schemas(kind: type[LibraryEnvironment] = LibraryEnvironment) -> list[dict[str, Any]]:
    """OpenAI-style schemas from signatures and docstrings, equal to transformers' `get_json_schema`."""
    return [_schema(getattr(kind, name), name, parameters) for name, parameters in tool_parameters(kind).items()]


def _schema(function: Any, name: str, parameters: tuple[str, ...]) -> dict[str, Any]:
    description, _, arguments = inspect.cleandoc(function.__doc__).partition("\n\nArgs:\n")
    described = {match[1]: match[2] for line in arguments.splitlines() if (match := _ARGUMENT.match(line))}
    properties = {parameter: {"type": "string", "description": described[parameter]} for parameter in parameters}
    body = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description.strip(), "parameters": body}}


def run_call(environment: LibraryEnvironment, call: ToolCall) -> str:
    """The tool's result. Raises ToolError, for the model to read, for a call that does not fit."""
    arguments: Mapping[str, Any] = call.arguments
    parameters = tool_parameters(environment).get(call.name)
    if parameters is None:
        raise ToolError("no such tool")
    if set(arguments) != set(parameters):
        raise ToolError(f"{call.name} takes {', '.join(parameters)}")
    if not all(isinstance(value, str) for value in arguments.values()):
        raise ToolError("arguments are strings")
    result: str = getattr(environment, call.name)(**arguments)
    return result
