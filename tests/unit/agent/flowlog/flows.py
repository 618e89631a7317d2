"""Make flows, and packets as the kernel tells of them, for tests."""

from __future__ import annotations

import ipaddress
import struct

from sgagent.agent.flowlog.flow import Flow, FlowEnd, FlowsLeftOut
from sgagent.core.clauses import DecidedBy
from sgagent.core.model import Direction, Family, Mode, Policy
from sgagent.dataplane.nflog import LoggedPacket

DEFAULT = "default/eth0/ingress"


def dropped(number: int, port: int = 22) -> Flow:
    """Return a SYN from a stranger that the default dropped."""
    return Flow(
        number=number,
        seen_at=1_700_000_000.0 + number,
        interface="eth0",
        direction=Direction.INGRESS,
        verdict=Policy.DROP,
        mode=Mode.ENFORCE,
        decided_by=DecidedBy.DEFAULT,
        family=Family.IPV4,
        protocol="tcp",
        source=FlowEnd(address="203.0.113.9", port=40_000),
        destination=FlowEnd(
            address="10.0.0.11", port=port, network_interface_id="eni-web-1", security_group_ids=("sg-web",)
        ),
        bytes=60,
    )


def left_out(packets: int) -> FlowsLeftOut:
    """Return that the default dropped more than was told of."""
    return FlowsLeftOut(
        seen_at=1_700_000_009.0,
        interface="eth0",
        direction=Direction.INGRESS,
        verdict=Policy.DROP,
        mode=Mode.ENFORCE,
        decided_by=DecidedBy.DEFAULT,
        left_out=packets,
    )


def ipv4(source: str, destination: str, protocol: int, rest: bytes, *, fragment: int = 0) -> bytes:
    """Return a packet with a header of twenty bytes.

    Args:
        source: its address.
        destination: likewise.
        protocol: its number.
        rest: what stands behind the header.
        fragment: flags and offset.
    """
    ends = (int(ipaddress.IPv4Address(text)).to_bytes(4) for text in (source, destination))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(rest), 0, fragment, 64, protocol, 0)
    return head + b"".join(ends) + rest


def ipv6(source: str, destination: str, protocol: int, rest: bytes) -> bytes:
    """Return a packet; extension headers are part of the rest."""
    ends = (int(ipaddress.IPv6Address(text)).to_bytes(16) for text in (source, destination))
    return struct.pack("!IHBB", 6 << 28, len(rest), protocol, 64) + b"".join(ends) + rest


def ports(source: int, destination: int) -> bytes:
    """Return what a segment or datagram begins with, and a little more."""
    return struct.pack("!HH", source, destination) + bytes(16)


def logged(
    head: bytes, sequence: int, *, prefix: str = DEFAULT, is_leaving: bool = False, link_index: int = 2
) -> LoggedPacket:
    """Return a packet as the kernel tells of it."""
    return LoggedPacket(
        prefix=prefix, is_leaving=is_leaving, link_index=link_index, sequence=sequence, head=head
    )
