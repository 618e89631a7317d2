"""Parse cache of one file: after a change, values are made only of the changed passages.

A passage is the source text of a list or mapping that contains no other. Its value depends only on its text,
except for its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from sgagent.documents.problems import Budget, Findings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedPassage:
    """The value of a passage without problems, and the budget that it used."""

    value: object
    rules: int
    addresses: int


class ParseCache:
    """The cached passages of one file."""

    def __init__(self, before: ParseCache | None = None) -> None:
        """Start a reading; ``before`` is the cache of the previous one."""
        self._before = before
        self._now: defaultdict[Hashable, dict[str, ParsedPassage]] = defaultdict(dict)
        """By the kind of value and the passage."""

    def recall(
        self, of: Hashable, written: str, make: Callable[[], T], findings: Findings, budget: Budget
    ) -> T:
        """Return the cached value of a passage, at any previous place, or call ``make``.

        Args:
            of: the kind of value, a cache key beside the text.
            written: the passage.
            make: parses the passage, adds problems and uses up the budget.
            findings: receives the problems; a value with problems is not cached, because they name a place.
            budget: what the value uses up.
        """
        found = self._before._now[of].get(written) if self._before else None  # noqa: SLF001 - of its own class
        if found is not None and budget.has_room_for(found.rules, found.addresses):
            budget.use_up(found.rules, found.addresses)
            self._now[of][written] = found
            return cast("T", found.value)
        mark, rules, addresses = findings.mark(), budget.rules, budget.addresses
        value = make()
        if findings.warnings_since(mark) == ():
            self._now[of][written] = ParsedPassage(value, budget.rules - rules, budget.addresses - addresses)
        return value

    def replace(self, of: Hashable, written: str, value: object) -> None:
        """Replace the cached value of a passage, if there is one, by an equal one with another place."""
        found = self._now[of].get(written)
        if found is not None:
            self._now[of][written] = replace(found, value=value)

    def end(self) -> None:
        """Drop the cache of the previous reading."""
        self._before = None
