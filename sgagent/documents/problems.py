"""Problems, limits and budget of one reading of all documents (§8.1).

One reading reports every error, not only the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sgagent.core.errors import Origin, Problem, Severity
from sgagent.core.model import CidrBlock


class Findings:
    """The problems of one reading, in the order in which the reader found them."""

    def __init__(self, most: int) -> None:
        """Start empty; beyond ``most`` problems of one severity, only count them."""
        self._most = most
        self._kept: dict[Severity, list[Problem]] = {severity: [] for severity in Severity}
        self._dropped = dict.fromkeys(Severity, 0)

    def add(self, problem: Problem) -> None:
        """Add a problem."""
        if self.is_full(problem.severity):
            self.count(problem.severity)
        else:
            self._kept[problem.severity].append(problem)

    def is_full(self, severity: Severity) -> bool:
        """Return whether further problems are only counted, so that building them is useless."""
        return len(self._kept[severity]) >= self._most

    def has_room_for(self, number: int, severity: Severity) -> bool:
        """Return whether the findings can list ``number`` more problems one by one."""
        return len(self._kept[severity]) + number <= self._most

    def mark(self) -> tuple[int, int, int]:
        """Return the current counts, for :meth:`warnings_since`."""
        return len(self._kept[Severity.ERROR]), len(self._kept[Severity.WARNING]), sum(self._dropped.values())

    def warnings_since(self, mark: tuple[int, int, int]) -> tuple[Problem, ...] | None:
        """Return the warnings added since a mark; None if an error or an unlisted problem came too."""
        errors, warnings, dropped = mark
        if len(self._kept[Severity.ERROR]) != errors or sum(self._dropped.values()) != dropped:
            return None
        return tuple(self._kept[Severity.WARNING][warnings:])

    def count(self, severity: Severity) -> None:
        """Count a problem without listing it."""
        self._dropped[severity] += 1

    @property
    def has_errors(self) -> bool:
        """Return whether the caller must refuse the documents."""
        return bool(self._kept[Severity.ERROR])

    def all(self) -> tuple[Problem, ...]:
        """Return the problems, errors first; a last entry per severity has the number of unlisted ones."""
        problems: list[Problem] = []
        for severity in (Severity.ERROR, Severity.WARNING):
            problems += self._kept[severity]
            if self._dropped[severity]:
                origin = Origin(file=self._kept[severity][-1].origin.file)
                message = f"{self._dropped[severity]} more like these"
                more = Problem(severity=severity, code="more_problems", origin=origin, message=message)
                problems.append(more)
        return tuple(problems)


FULL_DOCUMENTS = 4
"""All documents together may hold this many times the bytes allowed for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest documents that the reader accepts; larger ones are an error."""

    document_bytes: int = 64 * 1024 * 1024
    """Of one file."""

    depth: int = 32
    """Nested lists and mappings, with YAML aliases expanded."""

    rules: int = 100_000
    """Of the whole snapshot."""

    addresses: int = 1_000_000
    """Of the whole snapshot: interface and member addresses, list entries, objects of rules."""

    names: int = 1_000
    """Of the whole snapshot, in the objects of rules."""

    addresses_per_name: int = 64
    """What the DNS may say of one; the oldest beyond it leave (§12.3)."""

    problems: int = 10_000
    """Errors that are listed one by one, and the same number of warnings; further ones are only counted."""

    @property
    def all_bytes(self) -> int:
        """Return the maximum size of all documents together, in bytes."""
        return FULL_DOCUMENTS * self.document_bytes

    @property
    def nodes(self) -> int:
        """Return the maximum number of values in one file, with YAML aliases expanded.

        A rule of an API document has about twenty fields, a list entry at most two.
        """
        return 20 * self.rules + 2 * self.addresses

    @property
    def containers(self) -> int:
        """Return the maximum number of lists and mappings in one file; each takes 300 bytes or more.

        A rule of an EC2 answer has about six; an address has one at most.
        """
        return 6 * self.rules + self.addresses


class OverBudgetError(Exception):
    """The documents hold more rules or addresses than the limits allow; reading stops."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """The rules and addresses read so far, and a cache that all documents of one reading share."""

    limits: Limits
    rules: int = 0
    addresses: int = 0
    blocks: dict[str, CidrBlock] = field(default_factory=dict)
    """Parsed addresses and CIDRs by their text; documents repeat many."""

    def has_room_for(self, rules: int, addresses: int) -> bool:
        """Return whether this many more stay within the limits."""
        return self.rules + rules <= self.limits.rules and self.addresses + addresses <= self.limits.addresses

    def use_up(self, rules: int, addresses: int) -> None:
        """Count more rules and addresses; the caller has checked the limits."""
        self.rules += rules
        self.addresses += addresses
