"""A flow: both ends of a logged packet, the verdict, and what decided; and the head that the kernel logs."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sgagent.core.errors import printable
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import PROTOCOL_TABLE, Direction, Family, Mode, Policy, PortUse, Protocol


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
    DecidedBy.SPOOFED: "the source check",
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


_IPV4 = struct.Struct("!BxHxxHxBxxII")
_IPV6 = struct.Struct("!IHBx16s16s")
_PORTS = struct.Struct("!HH")
_SHORTEST_IPV4 = 20
_FRAGMENT_OFFSET = 0x1FFF
_IPV6_FRAGMENT_OFFSET = 0xFFF8
_WITH_PORTS = frozenset(row.protocol.number for row in PROTOCOL_TABLE if row.ports is not PortUse.NONE)

_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = frozenset({0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140})
_MOST_EXTENSIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketHead:
    """Who sends what to whom, as far as it could be read."""

    family: Family
    source: int
    destination: int
    protocol: int
    """For IPv6 behind the extension headers that could be read."""

    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    bytes: int
    """Of the whole packet, as its IP header says."""


def read_head(head: bytes) -> PacketHead | None:
    """Return what the first bytes of a packet say; None if they are no IP header.

    Args:
        head: from the IP header on, cut off somewhere.
    """
    version = head[0] >> 4 if head else 0
    if version == 4:
        return _ipv4(head)
    return _ipv6(head) if version == 6 else None


def _ipv4(head: bytes) -> PacketHead | None:
    if len(head) < _SHORTEST_IPV4:
        return None
    first, length, fragment, protocol, source, destination = _IPV4.unpack_from(head)
    begin = 4 * (first & 0xF)
    if begin < _SHORTEST_IPV4:
        return None
    rest = b"" if fragment & _FRAGMENT_OFFSET else head[begin:]
    return _with_rest(Family.IPV4, (source, destination), protocol, rest, length)


def _ipv6(head: bytes) -> PacketHead | None:
    if len(head) < _IPV6.size:
        return None
    _, length, protocol, source, destination = _IPV6.unpack_from(head)
    protocol, rest = _behind_extensions(protocol, head[_IPV6.size :])
    ends = int.from_bytes(source), int.from_bytes(destination)
    return _with_rest(Family.IPV6, ends, protocol, rest, _IPV6.size + length)


def _behind_extensions(protocol: int, rest: bytes) -> tuple[int, bytes]:
    """Return the upper-layer protocol and its bytes; of a later fragment, or where they end, no bytes."""
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS or len(rest) < 8:
            break
        following = rest[0]
        if protocol == _FRAGMENT:
            size, is_later = 8, bool(int.from_bytes(rest[2:4]) & _IPV6_FRAGMENT_OFFSET)
        elif protocol == _AUTHENTICATION:
            size, is_later = 4 * (rest[1] + 2), False
        else:
            size, is_later = 8 * (rest[1] + 1), False
        protocol, rest = following, b"" if is_later else rest[size:]
        if is_later:
            break
    return protocol, rest


def _with_rest(family: Family, ends: tuple[int, int], protocol: int, rest: bytes, length: int) -> PacketHead:
    """Return a head with the fields of the header that follows the IP header."""
    ports: tuple[int | None, int | None] = (None, None)
    if protocol in _WITH_PORTS and len(rest) >= _PORTS.size:
        ports = _PORTS.unpack_from(rest)
    is_icmp = Protocol(protocol).only_family is family
    return PacketHead(
        family=family,
        source=ends[0],
        destination=ends[1],
        protocol=protocol,
        source_port=ports[0],
        destination_port=ports[1],
        icmp_type=rest[0] if is_icmp and rest else None,
        bytes=length,
    )
