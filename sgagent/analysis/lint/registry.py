"""The registry of checks by code, and the runner."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from sgagent.analysis.lint import (
    exposure,
    group_design,
    objects,
    one_sided,
    shut_services,
    usage,
    void_rules,
)
from sgagent.analysis.lint.findings import CODES, Finding, order
from sgagent.analysis.lint.subject import Check, LintSubject

_FAMILIES = (exposure, shut_services, void_rules, objects, one_sided, group_design, usage)
_DECLARED = {one.code: one for family in _FAMILIES for one in vars(family).values() if isinstance(one, Check)}

CHECKS: Mapping[str, Check] = {code: _DECLARED[code] for code in CODES}


def lint(
    subject: LintSubject, disabled: Container[str] = frozenset(), tick: Callable[[], None] = lambda: None
) -> tuple[Finding, ...]:
    """Return the findings of all checks that are not disabled, the heaviest first.

    Args:
        subject: what is looked at.
        disabled: codes of checks.
        tick: is called after each of :func:`steps`.
    """
    for _, reach in subject.reaches:
        _ = reach.deciding  # what most checks stand on
        tick()
    found: list[Finding] = []
    for code, check in CHECKS.items():
        if code not in disabled:
            found += check.run(subject)
        tick()
    return tuple(sorted(found, key=order))


def steps(subject: LintSubject) -> int:
    """Return how many steps it takes to look at a subject."""
    return len(tuple(subject.reaches)) + len(CHECKS)
