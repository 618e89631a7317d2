"""Hold what an import comes to, and read the files that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.field import Field, Reading
from sgagent.documents.findings import Budget, Findings, OverBudgetError
from sgagent.documents.text import read_tree
from sgagent.importers.context import Gathered, settle
from sgagent.importers.notes import Note, Notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Definitions in our own words."""

    snapshot: Snapshot
    """Rules that had no id have an empty one; the version is empty."""

    notes: tuple[Note, ...] = ()
    """What is not what it was."""

    problems: tuple[Problem, ...] = ()
    """Warnings about the form of what was read."""


def import_files(
    files: Sequence[DocumentFile], limits: Limits, read: Callable[[Field, Gathered], None]
) -> Imported:
    """Return what files come to.

    Args:
        files: all of them; one may complete another.
        limits: what they may cost.
        read: takes what the one value of a file says.

    Raises:
        DocumentError: something can't be understood, or there is nothing in it to import; with all that is
            wrong.
    """
    findings, notes = Findings(limits.problems), Notes()
    gathered = Gathered(notes)
    budget = Budget(limits=limits)
    try:
        for file in files:
            root = read_tree(file, Reading(file=file.name, findings=findings, budget=budget))
            if root is not None:
                read(root, gathered)
    except OverBudgetError:
        raise DocumentError(findings.all()) from None
    snapshot = settle(gathered)
    if not findings.has_errors and not (snapshot.security_groups or snapshot.prefix_lists):
        findings.add(_nothing(files))
    if findings.has_errors:
        raise DocumentError(findings.all())
    return Imported(snapshot=snapshot, notes=notes.all(), problems=findings.all())


def _nothing(files: Sequence[DocumentFile]) -> Problem:
    """Return the problem of files without a group: most likely they are others than were meant."""
    return Problem(
        severity=Severity.ERROR,
        code="nothing_to_import",
        origin=Origin(file=", ".join(file.name for file in files)),
        message="no security group in it",
        remedy="see docs/import.md for what is read",
    )
