"""Refuse a configuration, and hand over what could be read of it all the same."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from sgagent.core.errors import Problem, UsageError
from sgagent.settings.values import Settings

_END_OF_TABLE = re.compile(r"[.\[]")


class RefusedSettingsError(UsageError):
    """Say that a configuration has errors; documents may be looked at by what could be read."""

    def __init__(self, problems: Iterable[Problem], readable: Settings) -> None:
        """Keep all the problems, and what could be read, with defaults in the place of the rest."""
        self.problems = tuple(problems)
        self.readable = readable
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def spares(self, tables: Collection[str]) -> bool:
        """Return whether these tables were read as they are meant."""
        return not any(_may_concern(problem, tables) for problem in self.problems)


def _may_concern(problem: Problem, tables: Collection[str]) -> bool:
    """Return whether a problem is in one of the tables, or in one whose name may be mistyped."""
    path = problem.origin.path
    table = _END_OF_TABLE.split(path)[0]
    is_unknown_table = problem.code == "unknown_field" and path == table and problem.value is None
    return is_unknown_table or table in tables
