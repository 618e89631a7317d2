"""Findings: severity, place, message and remedy."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sgagent.analysis.lint.subject import LintSubject
from sgagent.core.errors import NOWHERE, Origin


class FindingSeverity(enum.Enum):
    """How much a finding weighs, the heaviest first."""

    ERROR = "error"
    """Something is open, or shut, that surely was not meant to be."""

    WARNING = "warning"
    """Something is open wider than the guide advises, or has no effect."""

    NOTICE = "notice"
    """Something could be said better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a person should look at."""

    code: str
    severity: FindingSeverity
    message: str
    """Why, as a clause without a full stop."""

    remedy: str
    """What to do, as a clause without a full stop."""

    security_group_id: str | None = None
    rule_ids: tuple[str, ...] = ()
    """The rules that it is about, the one to look at first."""

    not_with: tuple[str, ...] = ()
    """The rules that have to stay if the one to look at is taken out, though they could go as well."""

    object_id: str | None = None
    """The group or list that it is about, where it is no rule."""

    interfaces: tuple[str, ...] = ()
    """Where it is so, if not wherever the rule is."""

    origin: Origin = NOWHERE

    @property
    def subject(self) -> str:
        """Return what it is about, in the words of the documents."""
        rule = self.rule_ids[0] if self.rule_ids else None
        parts = (rule or self.object_id, self.security_group_id if rule else None)
        return " of ".join(part for part in parts if part) or "this host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something to look for."""

    code: str
    severity: FindingSeverity
    summary: str
    """What it finds, as a clause without a full stop."""

    find: Callable[[LintSubject, Check], Iterable[Finding]]
    """Given itself, so that what it finds can have its code and weight."""


def order(finding: Finding) -> tuple[object, ...]:
    """Return a sort key: the heaviest first, then as the documents are written."""
    return (
        _SEVERITIES.index(finding.severity),
        finding.code,
        finding.origin,
        finding.security_group_id or "",
        finding.rule_ids,
        finding.object_id or "",
        finding.interfaces,
        finding.message,
    )


_SEVERITIES = tuple(FindingSeverity)
