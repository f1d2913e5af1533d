"""The version that a library module declares for its results, read without importing the module."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

DECLARATION = re.compile(r'^CODE_VERSION = "([^"]+)"$', re.MULTILINE)


@cache
def code_version(module: str) -> str:
    """The CODE_VERSION of ``forge_pipeline.<module>``.

    Importing it would load torch and the like into every process that only looks at the lineage. Raises
    LookupError if the module declares none.
    """
    path = (Path(__file__).parents[1] / module.replace(".", "/")).with_suffix(".py")
    match = DECLARATION.search(path.read_text(encoding="utf-8"))
    if match is None:
        raise LookupError(f'{path} has no line CODE_VERSION = "..."')
    return match.group(1)
