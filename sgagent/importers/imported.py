"""Import of files, and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.field import Field, Reading
from sgagent.documents.findings import Budget, Findings, OverBudgetError
from sgagent.documents.parse import read_tree
from sgagent.importers.context import Gathered, settle
from sgagent.importers.notes import Note, Notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result of an import."""

    snapshot: Snapshot
    """Native definitions; rules without an id have an empty one, and the version is empty."""

    notes: tuple[Note, ...] = ()
    """Differences from the imported definitions."""

    problems: tuple[Problem, ...] = ()
    """Warnings about the syntax and schema of the files."""


def import_files(
    files: Sequence[DocumentFile], limits: Limits, read: Callable[[Field, Gathered], None]
) -> Imported:
    """Return the definitions of all files.

    Args:
        files: all files; one may complete another.
        limits: the largest accepted files.
        read: adds the objects of a file's root value.

    Raises:
        DocumentError: a file has errors, or no file has anything to import; it holds all errors.
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
    """Return the error of files without a security group or prefix list."""
    return Problem(
        severity=Severity.ERROR,
        code="nothing_to_import",
        origin=Origin(file=", ".join(file.name for file in files)),
        message="no security group in it",
        remedy="see docs/import.md for what is read",
    )
