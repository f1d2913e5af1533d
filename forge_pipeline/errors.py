"""The errors a person sees: each says what is wrong, where, and what to do about it."""

from __future__ import annotations


class ForgeError(ValueError):
    """A problem somebody can fix.

    ``problem`` says what is wrong with which value, ``where`` names the file (and field or line) and ``fix``
    says what to do. The three parts are kept apart so that the terminal, the JSON output and the Dagster UI
    can each show them in their own way.
    """

    def __init__(self, problem: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.problem = problem
        self.where = where
        self.fix = fix
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        lines = [self.problem]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return lines

    # Exceptions cross process boundaries (worker pools, the training process group) by pickling, which by
    # default would call ``__init__`` with the joined message alone.
    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.problem, self.where, self.fix))


def _rebuild(kind: type[ForgeError], problem: str, where: str | None, fix: str | None) -> ForgeError:
    return kind(problem, where=where, fix=fix)


class RecipeError(ForgeError):
    """A recipe (``defs.yaml``) that does not say something valid."""


class SourceError(ForgeError):
    """A source of documents that cannot be used: missing, unreadable or empty."""


class StorageError(ForgeError):
    """An artifact that is missing, unsealed, altered or cannot be written."""


class GateError(ForgeError):
    """A stage whose result must not be sealed: the line stops here."""


class TrainingError(ForgeError):
    """A training process group that did not finish."""


class MachineError(ForgeError):
    """Something this machine lacks: disk, memory, a free port, a program."""
