"""The request for the hits, and its answer."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.counter_keys import HitStep, HitTimes
from sgagent.core.model import Direction, Mode, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class HitsQuery:
    """Ask for the hits of rules, defaults and exemptions."""

    interface: str | None = None
    """One only; null is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """The packets of one counter since the host came up; fields of rules only are null elsewhere."""

    step: HitStep
    verdict: Policy
    packets: int
    bytes: int
    rule_id: str | None = None
    security_group_id: str | None = None
    priority: int | None = None
    protocol: str | None = None
    ports: str | None = None
    """Like ``80/80,443/443``; null is any."""

    authorization_object: str | None = None
    counted_since: float | None = None
    """From when on this was counted without a known gap; over boots."""

    last_hit_at: float | None = None
    """Null where there was no hit in that time."""

    expires_at: float | None = None
    """When the rule ends, in seconds since the epoch; null is never."""

    @property
    def times(self) -> HitTimes | None:
        """Return since when this was counted, and when it was hit last; None where it was never counted."""
        if self.counted_since is None:
            return None
        return HitTimes(counted_since=self.counted_since, last_hit_at=self.last_hit_at)

    @property
    def name(self) -> str:
        """Return what counted, for people: ``sgr-1``, ``sgr-1 (over_limit)``, ``(default)``."""
        if self.step is HitStep.RULE:
            return self.rule_id or ""
        return f"{self.rule_id} ({self.step.value})" if self.rule_id else f"({self.step.value})"

    @property
    def ports_text(self) -> str:
        """Return the ports for people, like ``80, 443, 8000-8100``; empty for a hit of no rule."""
        if self.ports is None:
            return "any" if self.step is HitStep.RULE else ""
        ranges = (ports.partition("/") for ports in self.ports.split(","))
        return ", ".join(first if last in ("", first) else f"{first}-{last}" for first, _, last in ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceHits:
    """All counters of one interface and direction, in the order in which they decide (§3)."""

    interface: str
    direction: Direction
    mode: Mode
    hits: tuple[Hit, ...]
    would_drop_packets: int | None = None
    """What would have been dropped while the interface was only observed (§9.1); null if it never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HitsAnswer:
    """The hits, by interface, ingress first."""

    snapshot_version: str | None
    interfaces: tuple[InterfaceHits, ...]
