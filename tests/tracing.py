"""Walk the packets of the specification through a compiled table."""

from __future__ import annotations

from sgagent.core.evaluate import Packet, Tracking
from sgagent.core.model import Direction
from sgagent.nft.ruleset import Ruleset
from tests.tracer import Session, Tuple, Walk, WirePacket, trace

_ELSEWHERE = Tuple(source=1, destination=2, source_port=3, destination_port=4)
"""What NAT made of the ends that are not on the wire of the interface: nothing may be read there."""

_STATES = {
    Tracking.NEW: "new",
    Tracking.ALLOWED: "established",
    Tracking.UNTRACKED: "untracked",
    Tracking.INVALID: "invalid",
}


def session_of(packet: Packet, *, mark: int = 0) -> Session | None:
    """Return what conntrack keeps of the session that a packet opens; None where it keeps nothing."""
    if packet.tracking in (Tracking.UNTRACKED, Tracking.INVALID):
        return None
    onward = Tuple(
        source=packet.source,
        destination=packet.destination,
        source_port=packet.source_port or 0,
        destination_port=packet.destination_port or 0,
    )
    if packet.direction is Direction.INGRESS:
        return Session(protocol=packet.protocol, original=onward, reply=_ELSEWHERE, mark=mark)
    backward = Tuple(
        source=onward.destination,
        destination=onward.source,
        source_port=onward.destination_port,
        destination_port=onward.source_port,
    )
    return Session(protocol=packet.protocol, original=_ELSEWHERE, reply=backward, mark=mark)


def walk(
    ruleset: Ruleset,
    packet: Packet,
    session: Session | None = None,
    *,
    is_limited: bool = False,
    is_over: bool = False,
) -> Walk:
    """Return what becomes of the packet that opens a session; on request where every limit is used up."""
    hook = "prerouting" if packet.direction is Direction.INGRESS else "postrouting"
    wire = WirePacket(
        hook=hook,
        interface=packet.interface,
        family=packet.family,
        source=packet.source,
        destination=packet.destination,
        protocol=packet.protocol,
        source_port=packet.source_port,
        destination_port=packet.destination_port,
        icmp_type=packet.icmp_type,
        hop_limit=packet.hop_limit or 0,
        state=_STATES[packet.tracking],
        is_fragment=packet.is_fragment,
    )
    session = session_of(packet) if session is None else session
    return trace(ruleset, wire, session, is_limited=is_limited, is_over=is_over)


def walk_reply(
    ruleset: Ruleset, packet: Packet, session: Session | None = None, *, is_over: bool = False
) -> Walk:
    """Return what becomes of the answer to a packet, on the interface that the packet passed."""
    hook = "postrouting" if packet.direction is Direction.INGRESS else "prerouting"
    wire = WirePacket(
        hook=hook,
        interface=packet.interface,
        family=packet.family,
        source=packet.destination,
        destination=packet.source,
        protocol=packet.protocol,
        source_port=packet.destination_port,
        destination_port=packet.source_port,
        hop_limit=packet.hop_limit or 0,
        state="established",
        packet_direction="reply",
    )
    return trace(ruleset, wire, session_of(packet) if session is None else session, is_over=is_over)


def session_elsewhere(packet: Packet, *, mark: int) -> Session | None:
    """Return the entry that somebody opened elsewhere, of which a packet is an answer."""
    session = session_of(packet)
    if session is None:
        return None
    opened_inwards = packet.direction is Direction.INGRESS
    known = session.original if opened_inwards else session.reply
    if opened_inwards:  # an answer that comes in is as the reply tuple says
        return Session(protocol=packet.protocol, original=_ELSEWHERE, reply=known, mark=mark)
    return Session(protocol=packet.protocol, original=known, reply=_ELSEWHERE, mark=mark)


def walk_own(ruleset: Ruleset, packet: Packet, session: Session) -> Walk:
    """Return what becomes of a packet that is an answer to conntrack, and passes as an opening one."""
    hook = "prerouting" if packet.direction is Direction.INGRESS else "postrouting"
    return trace(ruleset, _established(packet, hook, "reply"), session)


def walk_other(ruleset: Ruleset, packet: Packet, session: Session) -> Walk:
    """Return what becomes of the packet that answers such a packet: to conntrack it goes the original way."""
    hook = "postrouting" if packet.direction is Direction.INGRESS else "prerouting"
    return trace(ruleset, _established(packet, hook, "original"), session)


def _established(packet: Packet, hook: str, packet_direction: str) -> WirePacket:
    is_own = (hook == "prerouting") is (packet.direction is Direction.INGRESS)
    ends = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
    (source, source_port), (destination, port) = ends if is_own else ends[::-1]
    return WirePacket(
        hook=hook,
        interface=packet.interface,
        family=packet.family,
        source=source,
        destination=destination,
        protocol=packet.protocol,
        source_port=source_port,
        destination_port=port,
        hop_limit=packet.hop_limit or 0,
        state="established",
        packet_direction=packet_direction,
        other_interface="",
    )
