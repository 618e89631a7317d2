"""Know every check by its code, and run those that are wanted."""

from __future__ import annotations

from collections.abc import Container, Mapping

from sgagent.core.lint import life, objects, openness, planning, reaching
from sgagent.core.lint.finding import Check, Finding, order
from sgagent.core.lint.subject import Subject

CHECKS: Mapping[str, Check] = {
    check.code: check for family in (openness, reaching, objects, planning, life) for check in family.CHECKS
}
"""Those that :data:`sgagent.core.lint.codes.CODES` names, in that order."""


def lint(subject: Subject, disabled: Container[str] = frozenset()) -> tuple[Finding, ...]:
    """Return what all checks find that are not disabled, the heaviest first."""
    found = [
        finding
        for code, check in CHECKS.items()
        if code not in disabled
        for finding in check.find(subject, check)
    ]
    return tuple(sorted(found, key=order))
