"""Collect all that is wrong with a set of documents, so that every error is told at once (§8.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from sgagent.core.errors import Origin, Problem, Severity
from sgagent.core.model import CidrBlock


class Findings:
    """The problems of all documents of one reading, in the order they were found."""

    def __init__(self, most: int) -> None:
        """Start empty; past ``most`` errors, or warnings, only their number is kept."""
        self._most = most
        self._kept: dict[Severity, list[Problem]] = {severity: [] for severity in Severity}
        self._dropped = dict.fromkeys(Severity, 0)

    def add(self, problem: Problem) -> None:
        """Take a problem."""
        if self.is_full(problem.severity):
            self.count(problem.severity)
        else:
            self._kept[problem.severity].append(problem)

    def is_full(self, severity: Severity) -> bool:
        """Return whether problems are only counted from here on, so that nobody need word them."""
        return len(self._kept[severity]) >= self._most

    def has_room_for(self, number: int, severity: Severity) -> bool:
        """Return whether so many more problems would all be told one by one."""
        return len(self._kept[severity]) + number <= self._most

    def mark(self) -> tuple[int, int, int]:
        """Return where the findings stand, for :meth:`warnings_since`."""
        kept = self._kept
        return len(kept[Severity.ERROR]), len(kept[Severity.WARNING]), sum(self._dropped.values())

    def warnings_since(self, mark: tuple[int, int, int]) -> tuple[Problem, ...] | None:
        """Return what was noted since then; None if that is more than warnings that are told one by one."""
        errors, warnings, dropped = mark
        if len(self._kept[Severity.ERROR]) != errors or sum(self._dropped.values()) != dropped:
            return None
        return tuple(self._kept[Severity.WARNING][warnings:])

    def count(self, severity: Severity) -> None:
        """Take note of a problem that nobody worded."""
        self._dropped[severity] += 1

    @property
    def has_errors(self) -> bool:
        """Return whether the documents must be refused."""
        return bool(self._kept[Severity.ERROR])

    def all(self) -> tuple[Problem, ...]:
        """Return the problems, errors first, each kind with a last line for those that were not kept."""
        problems: list[Problem] = []
        for severity in (Severity.ERROR, Severity.WARNING):
            problems += self._kept[severity]
            if self._dropped[severity]:
                problems.append(self._summary(severity))
        return tuple(problems)

    def _summary(self, severity: Severity) -> Problem:
        """Return a problem that stands for those that were not kept."""
        return Problem(
            severity=severity,
            code="more_problems",
            origin=Origin(file=self._kept[severity][-1].origin.file),
            message=f"{self._dropped[severity]} more like these",
        )


FULL_DOCUMENTS = 4
"""All documents together may be as large as this many of the largest allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest documents that are read; beyond is an error, never a slow machine."""

    document_bytes: int = 64 * 1024 * 1024
    """Of one file."""

    depth: int = 32
    """Lists and mappings inside each other, YAML aliases expanded."""

    rules: int = 100_000
    """Of the whole snapshot."""

    addresses: int = 1_000_000
    """Of the whole snapshot: of interfaces and members, entries of lists, objects of rules."""

    problems: int = 10_000
    """Errors that are told one by one, and warnings likewise; of more only the number is told."""

    @property
    def all_bytes(self) -> int:
        """Return how many bytes all documents may have together, those of a source as of a directory."""
        return FULL_DOCUMENTS * self.document_bytes

    @property
    def nodes(self) -> int:
        """Return how many values one file may hold with YAML aliases expanded.

        A rule of an API document has some twenty fields, an entry of a list up to two.
        """
        return 20 * self.rules + 2 * self.addresses


class OverBudgetError(Exception):
    """Say that the documents hold more rules or addresses than the limits allow; reading ends there."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """What all documents of one reading have used up, and what they share."""

    limits: Limits
    rules: int = 0
    addresses: int = 0
    blocks: dict[str, CidrBlock] = field(default_factory=dict)
    """Addresses and CIDRs that were read before, by their text: the same ones come again and again."""

    def has_room_for(self, rules: int, addresses: int) -> bool:
        """Return whether so many more are within the limits."""
        return self.rules + rules <= self.limits.rules and self.addresses + addresses <= self.limits.addresses

    def use_up(self, rules: int, addresses: int) -> None:
        """Count so many more, for which there is room."""
        self.rules += rules
        self.addresses += addresses
