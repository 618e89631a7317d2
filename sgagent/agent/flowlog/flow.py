"""A flow: both ends of a logged packet, the verdict, and what decided."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.errors import printable
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
    """Packets with the same verdict that the kernel counted but did not log."""

    seen_at: float
    """When the agent noticed, up to two seconds after the packets; seconds since the epoch."""

    interface: str
    direction: Direction
    verdict: Policy
    mode: Mode
    decided_by: DecidedBy
    rule_id: str | None = None
    security_group_id: str | None = None
    left_out: int


def sentence(entry: Flow | FlowsLeftOut) -> str:
    """Return an entry as a sentence."""
    place = f"{done(entry)} on {entry.interface} {entry.direction.value} by {decider(entry)}"
    if isinstance(entry, FlowsLeftOut):
        packets = "packet" if entry.left_out == 1 else "packets"
        return printable(f"{entry.left_out} more {packets} {place}, not logged one by one")
    port = "" if entry.source.port is None else f" port {entry.source.port}"
    return printable(f"{place}: {traffic(entry)} from {end(entry.source)}{port} to {end(entry.destination)}")


def done(entry: Flow | FlowsLeftOut) -> str:
    """Return what was done: ``dropped``, ``would be dropped``, ``accepted``."""
    if entry.verdict is Policy.ACCEPT:
        return "accepted"
    return "would be dropped" if entry.mode is Mode.OBSERVE else "dropped"


def decider(entry: Flow | FlowsLeftOut) -> str:
    """Return what decided: ``rule sgr-1 of sg-web``, ``the default``."""
    if entry.rule_id is not None:
        return f"rule {entry.rule_id} of {entry.security_group_id}"
    return _STEPS[entry.decided_by]


_STEPS = {
    DecidedBy.SESSION: "its session",
    DecidedBy.ALWAYS: "the platform list",
    DecidedBy.FAILSAFE: "the fail-safe list",
    DecidedBy.INNER: "fellow membership",
    DecidedBy.RULE: "a rule",
    DecidedBy.DEFAULT: "the default",
    DecidedBy.UNBOUND: "nobody",
    DecidedBy.INVALID: "connection tracking, which calls it invalid",
}


def traffic(flow: Flow) -> str:
    """Return the protocol and what is asked of it: ``tcp 22``, ``icmp type 8``, ``47``."""
    if flow.icmp_type is not None:
        return f"{flow.protocol} type {flow.icmp_type}"
    port = flow.destination.port
    return flow.protocol if port is None else f"{flow.protocol} {port}"


def end(one: FlowEnd) -> str:
    """Return an end by its names, with the address behind them: ``eni-web-1 (sg-web) 10.0.0.11``."""
    groups = ", ".join(one.security_group_ids)
    names = f"{one.network_interface_id} ({groups})" if one.network_interface_id and groups else groups
    return " ".join(word for word in (names or one.network_interface_id or "", one.address) if word)
