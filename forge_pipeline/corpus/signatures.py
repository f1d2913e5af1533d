"""Signatures of the catalog, taken apart."""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """One parameter as written; ``default`` is source text, None where the caller must give a value."""

    name: str
    default: str | None
    star: str = ""
    keyword_only: bool = False

    def __str__(self) -> str:
        return f"{self.star}{self.name}" + (f"={self.default}" if self.default is not None else "")


def parse_parameters(signature: str) -> tuple[Parameter, ...] | None:
    """The parameters of a Python signature, with or without a name before them, receiver left out.

    None if there are no parentheses or Python cannot parse what is between them. The separators `*` and `/`
    are no parameters.
    """
    start = signature.find("(")
    if start < 0:
        return None
    try:
        function = ast.parse(f"def _{signature[start:].strip().rstrip(':')}: pass").body[0]
    except (SyntaxError, ValueError):
        return None
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + [ast.unparse(d) for d in arguments.defaults]
    found = [Parameter(a.arg, default) for a, default in zip(positional, defaults, strict=True)]
    if found and found[0].name in ("self", "cls", "mcs", "metacls"):
        del found[0]
    if arguments.vararg:
        found.append(Parameter(arguments.vararg.arg, None, "*"))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        written = ast.unparse(default) if default is not None else None
        found.append(Parameter(argument.arg, written, keyword_only=True))
    if arguments.kwarg:
        found.append(Parameter(arguments.kwarg.arg, None, "**"))
    return tuple(found)
