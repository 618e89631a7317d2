"""Remember what passages of a file came to, so that where the file changed only what is new in it is judged.

A passage is a list or mapping that holds no other, by the very way it is written. What comes of it depends on
nothing else, but for the place at which it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar, cast

from sgagent.documents.budget import Budget
from sgagent.documents.findings import Findings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Passage:
    """What a passage came to without any problem, and what that used up."""

    value: object
    rules: int
    addresses: int


class Passages:
    """Those of one file."""

    def __init__(self, before: Passages | None = None) -> None:
        """Begin to read the file, with what it came to the last time."""
        self._before = before
        self._now: dict[tuple[Hashable, str], Passage] = {}

    def recall(
        self, of: Hashable, written: str, make: Callable[[], T], findings: Findings, budget: Budget
    ) -> T:
        """Return what a passage came to the last time, wherever it stood, or make it.

        Args:
            of: what is made of it.
            written: the passage.
            make: makes it, notes what is wrong, and uses up what it holds.
            findings: where that is noted; what is noted has a place, so the value is not kept.
            budget: what is used up.
        """
        found = None if self._before is None else self._before.kept(of, written)
        if found is not None and budget.has_room_for(found.rules, found.addresses):
            budget.use_up(found.rules, found.addresses)
            self._now[of, written] = found
            return cast("T", found.value)
        mark, rules, addresses = findings.mark(), budget.rules, budget.addresses
        value = make()
        if findings.warnings_since(mark) == ():
            self._now[of, written] = Passage(value, budget.rules - rules, budget.addresses - addresses)
        return value

    def kept(self, of: Hashable, written: str) -> Passage | None:
        """Return what a passage came to in this reading."""
        return self._now.get((of, written))

    def replace(self, of: Hashable, written: str, value: object) -> None:
        """Keep another value for a passage that was just recalled: it is the same but for its place."""
        found = self.kept(of, written)
        if found is not None:
            self._now[of, written] = Passage(value, found.rules, found.addresses)

    def end(self) -> None:
        """End the reading: of the one before nothing is needed any more."""
        self._before = None
