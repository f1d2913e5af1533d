"""The environment: a library that can be asked, in the form that TRL takes (`environment_factory=`).

`reset(**row)` starts an episode; every other public method is a tool, described to the model by its signature
and docstring. All of it is short, for small models read it: most tool names, arguments and descriptions are one
token a word, and names stand at the beginning of a line, where they are tokenised as between quotes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forge_pipeline.agents.index import LibraryIndex
from forge_pipeline.errors import ForgeError

LISTED = 8
LISTED_CHARACTERS = 160
MAXIMUM_CALLS = 8


class ToolError(ForgeError):
    """A call that asks for something that is not there. Its message goes to the model."""


class LibraryEnvironment:
    """Tools over one index. Episodes share nothing: the index cannot be written."""

    def __init__(self, index: Path | LibraryIndex, maximum_calls: int = MAXIMUM_CALLS) -> None:
        self._index = index if isinstance(index, LibraryIndex) else LibraryIndex(index)
        self._maximum_calls = maximum_calls
        self._calls = 0

    def reset(self, **row: Any) -> str | None:
        """Start an episode. The task's prompt says it all: nothing is added to it."""
        self._calls = 0
        return None

    def find(self, name: str) -> str:
        """where it is

        Args:
            name: a defined name or a section's title
        """
        self._count()
        containers = self._index.containers_of(name)
        if not containers:
            raise ToolError("unknown name")
        return short_lines(containers)

    def read(self, name: str, module: str) -> str:
        """return and args

        Args:
            name: a defined name or a section's title
            module: the module or document that it is in
        """
        self._count()
        entity = self._index.entity(name, module)
        if entity is None:
            raise ToolError("no such name there")
        lines = ["return", entity.returns] if entity.returns else []
        if entity.parameters:
            lines += ["args", *entity.parameters]
        return short_lines(lines or [entity.kind])

    def list(self, module: str) -> str:
        """names in order

        Args:
            module: a module or document
        """
        self._count()
        names = self._index.names_in(module)
        if not names:
            raise ToolError("nothing of that name")
        return short_lines(names)

    def _count(self) -> None:
        self._calls += 1
        if self._calls > self._maximum_calls:
            raise ToolError("no calls left")


def is_complete(result: str) -> bool:
    """Whether a tool's result shows everything."""
    return not result.endswith("\n...")


def short_lines(items: list[str]) -> str:
    """Up to LISTED lines and about LISTED_CHARACTERS characters, with a last line "..." if more was left out."""
    shown: list[str] = []
    characters = 0
    for item in items:
        characters += len(item) + 1
        if len(shown) == LISTED or (shown and characters > LISTED_CHARACTERS):
            return "\n".join([*shown, "..."])
        shown.append(" ".join(item.split())[:LISTED_CHARACTERS])
    return "\n".join(shown)
