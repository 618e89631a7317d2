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
    ruleset: Ruleset, packet: Packet, session: Session | None = None, *, is_limited: bool = False
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
    )
    session = session_of(packet) if session is None else session
    return trace(ruleset, wire, session, is_limited=is_limited)


def walk_reply(ruleset: Ruleset, packet: Packet, session: Session | None = None) -> Walk:
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
    return trace(ruleset, wire, session_of(packet) if session is None else session)
