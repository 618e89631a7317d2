"""Findings of the checks: the codes of all checks, severity, place, message and remedy."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgagent.core.errors import NOWHERE, Origin
from sgagent.core.model import Family

if TYPE_CHECKING:  # the configuration reads the codes, and does without the comparison of policies
    from sgagent.analysis.lint.edits import Fix

CODES = (
    "open_to_everyone",
    "sensitive_port_open",
    "reflector_open",
    "database_without_closing_drop",
    "one_family_shut",
    "dns_ntp_shut",
    "ftp_without_passive",
    "wide_management_port",
    "deny_before_accepts",
    "void_drop",
    "never_reached",
    "duplicate_rule",
    "contradicting_tie",
    "redundant_rule",
    "expiring_drop",
    "expired_rule",
    "unknown_object",
    "dns_ingress",
    "empty_object",
    "idle_prefix_list",
    "cidr_for_group",
    "one_sided_rule",
    "mixed_services",
    "mixed_environments",
    "needless_inner_accept",
    "too_many_rules",
    "cloud_quota",
    "admits_behind",
    "unused_rule",
    "nothing_listens",
    "unreached_listener",
)
"""In the order in which they are documented."""

MOST_RULES = 100
"""Rules of a group, beyond which it is hard to oversee, unless the configuration says otherwise."""

OFFICES: Mapping[Family, int] = {Family.IPV4: 24, Family.IPV6: 56}
"""Shortest prefixes that still are an office, and not a region, unless the configuration says otherwise."""


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

    message: str
    """Why, as a clause without a full stop."""

    remedy: str
    """The remedy, as a clause without a full stop."""

    code: str = ""
    """Of the check, which sets it."""

    severity: FindingSeverity = FindingSeverity.NOTICE
    """That of the check, which sets it, unless this one is heavier."""

    security_group_id: str | None = None
    rule_ids: tuple[str, ...] = ()
    """The rules that it is about, the one to look at first."""

    object_id: str | None = None
    """The group or list that it is about, where it is no rule."""

    interfaces: tuple[str, ...] = ()
    """Where it is so, if not wherever the rule is."""

    fix: Fix | None = None
    """The edits, where these help, and were tried."""

    origin: Origin = NOWHERE

    @property
    def subject(self) -> str:
        """Return the subject in the words of the documents."""
        rule = self.rule_ids[0] if self.rule_ids else None
        parts = (rule or self.object_id, self.security_group_id if rule else None)
        return " of ".join(part for part in parts if part) or "this host"


def order(finding: Finding) -> tuple[object, ...]:
    """Return a sort key: the heaviest first, then as the documents are written."""
    return (
        SEVERITIES.index(finding.severity),
        finding.code,
        finding.origin,
        finding.security_group_id or "",
        finding.rule_ids,
        finding.object_id or "",
        finding.interfaces,
        finding.message,
    )


SEVERITIES = tuple(FindingSeverity)
