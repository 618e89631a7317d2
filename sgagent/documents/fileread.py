"""Hold what one file came to, so that it need not be read again while it says the same."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.errors import Problem, Severity
from sgagent.documents.budget import Budget
from sgagent.documents.collected import Collected
from sgagent.documents.findings import Findings
from sgagent.documents.passages import Passages
from sgagent.documents.reading import DocumentFile


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRead:
    """What a file holds, and what it took to read it."""

    content: bytes
    collected: Collected
    """Nobody adds to it any more."""

    warnings: tuple[Problem, ...] | None
    """What is odd about it; None if it has errors, or more than are told one by one."""

    rules: int
    addresses: int
    passages: Passages
    """What it is made of, for when it changes."""

    @property
    def is_repeatable(self) -> bool:
        """Tell whether this is worth keeping.

        Errors are told with all others, in order. What an answer of the API says depends on the others.
        """
        return self.warnings is not None and not self.collected.has_answers

    def says_the_same(self, file: DocumentFile, findings: Findings, budget: Budget) -> bool:
        """Tell whether reading a file of that name would come to this again, within all limits."""
        return (
            self.content == file.content
            and budget.has_room_for(self.rules, self.addresses)
            and findings.has_room_for(len(self.warnings or ()), Severity.WARNING)
        )

    def repeat(self, findings: Findings, budget: Budget) -> None:
        """Do to both what reading the file did."""
        budget.use_up(self.rules, self.addresses)
        for problem in self.warnings or ():
            findings.add(problem)
