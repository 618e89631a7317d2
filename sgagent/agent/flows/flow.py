"""Say of one packet that was judged where it came from, where it went, and what decided about it."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import Direction, Family, Mode, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEnd:
    """One end, and what the definitions in force call it."""

    address: str
    port: int | None = None
    """None for protocols without ports, and for packets too short to hold any."""

    network_interface_id: str | None = None
    """None where the address is on no interface of the definitions, or on several."""

    security_group_ids: tuple[str, ...] = ()
    """The groups of which the address is a member, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A packet that was judged: the first of a session, or of one that is judged again (§6.3)."""

    number: int
    """From 1, in the order in which the agent saw them since it started."""

    seen_at: float
    """When the agent saw it, about a tenth of a second after the kernel; seconds since the epoch."""

    interface: str
    direction: Direction
    """Of the session: the way its first packet went."""

    verdict: Policy
    mode: Mode
    """Whether a drop was carried out, or only observed (§9.1)."""

    decided_by: DecidedBy
    rule_id: str | None = None
    security_group_id: str | None = None
    priority: int | None = None
    family: Family
    protocol: str
    """By name where there is one: ``tcp``, ``icmpv6``, ``47``."""

    source: FlowEnd
    """Who opened the session, also where the packet is an answer; for ICMP, who sent the packet."""

    destination: FlowEnd
    icmp_type: int | None = None
    is_reply: bool = False
    """Whether the packet goes against its session's direction: its session was open, and is judged again."""

    bytes: int
    """Of the packet, from the IP header on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowsLeftOut:
    """Packets that were judged alike and counted, and not told of one by one."""

    seen_at: float
    """When that was found out, up to two seconds later; seconds since the epoch."""

    interface: str
    direction: Direction
    verdict: Policy
    mode: Mode
    decided_by: DecidedBy
    rule_id: str | None = None
    security_group_id: str | None = None
    left_out: int
