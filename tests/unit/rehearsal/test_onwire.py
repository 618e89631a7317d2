"""Packets of tests become bytes, and so do answers to them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family
from sgagent.rehearsal.onwire import as_answer, as_wire
from sgagent.rehearsal.wire import TCP_ACK, TCP_SYN, icmp, icmpv6, tcp, udp

NEAR, FAR = ip_address("10.0.0.11"), ip_address("198.51.100.7")
NEAR6, FAR6 = ip_address("2001:db8::11"), ip_address("2001:db8:9::7")


def packet(protocol: int, *, icmp_type: int | None = None, family: Family = Family.IPV4) -> Packet:
    """Return a packet that comes in from far away."""
    near, far = (NEAR, FAR) if family is Family.IPV4 else (NEAR6, FAR6)
    has_ports = protocol in (6, 17)
    return Packet(
        interface="eth0",
        direction=Direction.INGRESS,
        family=family,
        source=int(far),
        destination=int(near),
        protocol=protocol,
        source_port=40000 if has_ports else None,
        destination_port=443 if has_ports else None,
        icmp_type=icmp_type,
    )


def test_what_has_ports_is_answered_from_port_to_port() -> None:
    """TCP acknowledges what opened the session, as a server would."""
    assert as_wire(packet(6)) == tcp(FAR, NEAR, 40000, 443)
    assert as_answer(packet(6)) == tcp(NEAR, FAR, 443, 40000, TCP_SYN | TCP_ACK, acknowledges=1001)
    assert as_answer(packet(17)) == udp(NEAR, FAR, 443, 40000)


def test_an_echo_is_answered_in_each_family() -> None:
    """By the answer's type, with the same identifier."""
    assert as_answer(packet(1, icmp_type=8)) == icmp(NEAR, FAR, 0)
    assert as_answer(packet(58, icmp_type=128, family=Family.IPV6)) == icmpv6(NEAR6, FAR6, 129)


@pytest.mark.parametrize(
    "unanswerable",
    (packet(1, icmp_type=3), packet(58, icmp_type=135, family=Family.IPV6), packet(58)),
)
def test_what_opens_no_session_has_no_answer(unanswerable: Packet) -> None:
    """Errors and neighbour discovery are no questions that conntrack knows the answers to."""
    assert as_answer(unanswerable) is None


def test_other_protocols_answer_by_their_ends_alone() -> None:
    """Conntrack follows them by addresses."""
    answer = as_answer(packet(47))
    assert answer is not None
    assert (answer.source, answer.destination, answer.protocol) == (NEAR, FAR, 47)
