"""Collect all that is wrong with a set of documents, so that every error is told at once (§8.1)."""

from __future__ import annotations

from sgagent.core.errors import Origin, Problem, Severity


class Findings:
    """The problems of all documents of one reading, in the order they were found."""

    def __init__(self, most: int) -> None:
        """Start empty; past ``most`` errors, or warnings, only their number is kept."""
        self._most = most
        self._kept: dict[Severity, list[Problem]] = {severity: [] for severity in Severity}
        self._dropped: dict[Severity, Problem] = {}
        self._found = dict.fromkeys(Severity, 0)

    def add(self, problem: Problem) -> None:
        """Take a problem."""
        kept = self._kept[problem.severity]
        self._found[problem.severity] += 1
        if len(kept) < self._most:
            kept.append(problem)
        else:
            self._dropped[problem.severity] = problem

    @property
    def has_errors(self) -> bool:
        """Tell whether the documents must be refused."""
        return self._found[Severity.ERROR] > 0

    def all(self) -> tuple[Problem, ...]:
        """Return the problems, errors first, each kind with a last line for those that were not kept."""
        problems: list[Problem] = []
        for severity in (Severity.ERROR, Severity.WARNING):
            problems += self._kept[severity]
            if severity in self._dropped:
                problems.append(self._summary(severity, self._dropped[severity]))
        return tuple(problems)

    def _summary(self, severity: Severity, last: Problem) -> Problem:
        """Return a problem that stands for those that were not kept."""
        more = self._found[severity] - len(self._kept[severity])
        return Problem(
            severity=severity,
            code="more_problems",
            origin=Origin(file=last.origin.file),
            message=f"{more} more like these",
        )
