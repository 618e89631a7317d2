"""Say what a named counter of the kernel counts, in the cloud's words.

The compiler gives each counter that it declares one of these keys. Totals are kept by key, not by the
kernel's name, so they go on when names change.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sgagent.core.model import Direction, Policy


class ExemptionKind(enum.Enum):
    """Why traffic passes that no group was asked about (§7)."""

    PLATFORM = "platform"
    """The platform list of the configuration: the metadata service (§7.3)."""

    FAILSAFE = "failsafe"
    """The fail-safe list of the configuration (§7.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCounter:
    """Count the sessions that a rule decided on an interface."""

    interface: str
    """The link's name, as in every key here."""

    security_group_id: str
    rule_id: str
    direction: Direction
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultCounter:
    """Count the sessions that no rule decided (§3.6)."""

    interface: str
    direction: Direction
    verdict: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerCounter:
    """Count the sessions from fellow members (§3.4)."""

    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidCounter:
    """Count the packets that conntrack calls invalid (§6.6)."""

    interface: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemptionCounter:
    """Count what passes without a group being asked (§7)."""

    interface: str
    direction: Direction
    kind: ExemptionKind


CounterKey = RuleCounter | DefaultCounter | InnerCounter | InvalidCounter | ExemptionCounter
"""What one total is kept for."""
