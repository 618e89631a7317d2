"""A packet in words names what its protocol has, and nothing else."""

from __future__ import annotations

import pytest

from sgagent.core.evaluate import Packet
from sgagent.core.explanation import describe_packet
from sgagent.core.model import Direction, Family


@pytest.mark.parametrize(
    ("protocol", "ports", "interface", "text"),
    (
        (6, (40_000, 443), "eth0", "tcp from 192.0.2.1 port 40000 to 192.0.2.2 port 443 on eth0"),
        (17, (53, 1024), "", "udp from 192.0.2.1 port 53 to 192.0.2.2 port 1024"),
        (1, (None, None), "eth0", "icmp from 192.0.2.1 to 192.0.2.2 on eth0"),
        (47, (None, None), "", "gre from 192.0.2.1 to 192.0.2.2"),
        (99, (None, None), "", "protocol 99 from 192.0.2.1 to 192.0.2.2"),
    ),
)
@pytest.mark.parametrize("direction", Direction)
def test_ports_are_named_where_there_are_some(
    direction: Direction, protocol: int, ports: tuple[int | None, int | None], interface: str, text: str
) -> None:
    """Both ends have a port, or neither."""
    packet = Packet(
        interface=interface,
        direction=direction,
        family=Family.IPV4,
        source=0xC0000201,
        destination=0xC0000202,
        protocol=protocol,
        source_port=ports[0],
        destination_port=ports[1],
    )
    assert describe_packet(packet) == f"{direction.value} {text}"
