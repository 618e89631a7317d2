"""Let the kernel judge packets as the specification sees them."""

from __future__ import annotations

import ipaddress
import json
from collections import defaultdict
from collections.abc import Sequence

from integration.lab import Lab
from integration.wire import ROUTER_ALERT, Address, Extension, WirePacket, icmp, icmpv6, tcp, udp
from sgagent.core.always import MULTICAST_LISTENER_TYPES
from sgagent.core.compiling.compiler import compile_
from sgagent.core.compiling.marks import MarkLayout, first_state
from sgagent.core.evaluate import Packet
from sgagent.core.kernel.nftjson import encode_plan
from sgagent.core.kernel.plan import make_plan
from sgagent.core.model import Direction, Family
from sgagent.core.policy import ResolvedPolicy

LAYOUT = MarkLayout(0xFFFF0000)

NOTRACK = """
table inet testnotrack {
    chain in { type filter hook prerouting priority -300; policy accept; notrack; }
    chain out { type filter hook output priority -300; policy accept; notrack; }
}
"""
"""Takes every packet out of conntrack's hands (§6.6)."""

_TOO_SHORT = b"\0\0"


def enforce(lab: Lab, policy: ResolvedPolicy) -> None:
    """Load a policy on the host in place of what was enforced, as from a fresh start."""
    names = [interface.name for interface in policy.interfaces]
    compiled = compile_(policy, LAYOUT, first_state(names, LAYOUT))
    lab.host.nft("destroy", "table", "inet", "sgagent")
    lab.host.nft("-j", "-f", "-", stdin=json.dumps(encode_plan(make_plan(compiled.ruleset, None))))


def judge(lab: Lab, packets: Sequence[Packet]) -> list[bool]:
    """Send packets, each the first of a new session, and tell of each whether it got past the edge."""
    places: dict[tuple[str, Direction], list[int]] = defaultdict(list)
    for place, packet in enumerate(packets):
        places[packet.interface, packet.direction].append(place)
    verdicts = [False] * len(packets)
    for (interface, direction), chosen in places.items():
        send = lab.send_ingress if direction is Direction.INGRESS else lab.send_egress
        seen = send([as_wire(packets[place]) for place in chosen], interface)
        for place, verdict in zip(chosen, seen, strict=True):
            verdicts[place] = verdict
    return verdicts


def as_wire(packet: Packet) -> WirePacket:
    """Return bytes that the packet could have been read from."""
    source, destination = _address(packet.family, packet.source), _address(packet.family, packet.destination)
    if packet.source_port is not None and packet.destination_port is not None:
        build = tcp if packet.protocol == 6 else udp
        return build(source, destination, packet.source_port, packet.destination_port)
    if packet.icmp_type is None:
        payload = _TOO_SHORT if packet.protocol in (6, 17) else b""
        return WirePacket(source=source, destination=destination, protocol=packet.protocol, payload=payload)
    if packet.family is Family.IPV4:
        return icmp(source, destination, packet.icmp_type)
    alert = (Extension(number=0, body=ROUTER_ALERT),) if packet.icmp_type in MULTICAST_LISTENER_TYPES else ()
    hop_limit = 64 if packet.hop_limit is None else packet.hop_limit
    return icmpv6(source, destination, packet.icmp_type, hop_limit=hop_limit, extensions=alert)


def _address(family: Family, number: int) -> Address:
    """Return an address as a value; a small number alone would be read as IPv4."""
    return ipaddress.IPv4Address(number) if family is Family.IPV4 else ipaddress.IPv6Address(number)
