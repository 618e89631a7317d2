"""The registry of checks by code, and the runner."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from sgagent.analysis.lint import exposure, group_design, objects, one_sided, usage, void_rules
from sgagent.analysis.lint.findings import Finding, order
from sgagent.analysis.lint.subject import Check, LintSubject

CHECKS: Mapping[str, Check] = {
    check.code: check
    for family in (exposure, void_rules, objects, one_sided, group_design, usage)
    for check in family.CHECKS
}
"""Those that :data:`sgagent.analysis.lint.findings.CODES` names, in that order."""


def lint(
    subject: LintSubject, disabled: Container[str] = frozenset(), tick: Callable[[], None] = lambda: None
) -> tuple[Finding, ...]:
    """Return what all checks find that are not disabled, the heaviest first.

    Args:
        subject: what is looked at.
        disabled: codes of checks.
        tick: is called after each of :func:`steps`.
    """
    for stand in subject.stands:
        for reach in stand.reaches:
            _ = reach.deciding  # what most checks stand on
            tick()
    found: list[Finding] = []
    for code, check in CHECKS.items():
        if code not in disabled:
            found += check.find(subject, check)
        tick()
    return tuple(sorted(found, key=order))


def steps(subject: LintSubject) -> int:
    """Return how many steps it takes to look at a subject."""
    return sum(len(stand.reaches) for stand in subject.stands) + len(CHECKS)
