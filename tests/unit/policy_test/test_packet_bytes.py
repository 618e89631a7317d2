"""Packets of tests become bytes, and so do answers to them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family
from sgagent.policy_test.packet_bytes import (
    TCP_ACK,
    TCP_SYN,
    checksum,
    encode_packet,
    encode_reply,
    gre,
    icmp,
    icmpv6,
    tcp,
    udp,
)

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
    assert encode_packet(packet(6)) == tcp(FAR, NEAR, 40000, 443)
    assert encode_reply(packet(6)) == tcp(NEAR, FAR, 443, 40000, TCP_SYN | TCP_ACK, acknowledges=1001)
    assert encode_reply(packet(17)) == udp(NEAR, FAR, 443, 40000)


def test_an_echo_is_answered_in_each_family() -> None:
    """By the answer's type, with the same identifier."""
    assert encode_reply(packet(1, icmp_type=8)) == icmp(NEAR, FAR, 0)
    assert encode_reply(packet(58, icmp_type=128, family=Family.IPV6)) == icmpv6(NEAR6, FAR6, 129)


@pytest.mark.parametrize(
    "unanswerable", (packet(1, icmp_type=3), packet(58, icmp_type=135, family=Family.IPV6), packet(58))
)
def test_what_opens_no_session_has_no_answer(unanswerable: Packet) -> None:
    """Errors and neighbour discovery are no questions that conntrack knows the answers to."""
    assert encode_reply(unanswerable) is None


@pytest.mark.parametrize("family", Family)
def test_sctp_opens_and_answers_an_association(family: Family) -> None:
    """An INIT has tag 0; its answer has the tag that the INIT asks for (RFC 9260, 8.5.1)."""
    opener, answer = encode_packet(packet(132, family=family)).payload, answer_to(packet(132, family=family))
    assert (opener[:4], answer[:4]) == (opener[:2] + opener[2:4], opener[2:4] + opener[:2])
    assert (opener[4:8], answer[4:8]) == (bytes(4), opener[16:20])
    assert (opener[12], answer[12]) == (1, 2)
    assert int.from_bytes(opener[14:16], "big") == len(opener) - 12
    assert int.from_bytes(answer[14:16], "big") == len(answer) - 12


def test_sctp_has_the_checksum_of_its_rfc() -> None:
    """CRC-32C, least significant octet first; computed here bit by bit from its polynomial."""
    sent = encode_packet(packet(132)).payload
    assert sent[8:12] == crc32c(sent[:8] + bytes(4) + sent[12:])
    assert crc32c(b"123456789") == bytes.fromhex("839206e3")  # the check value of RFC 3720's appendix B.4


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(("protocol", "in_pseudo_header"), ((33, 33), (136, 17)))
def test_checksums_include_the_pseudo_header(protocol: int, in_pseudo_header: int, family: Family) -> None:
    """Both ends and the length; of UDP-Lite as conntrack computes it, with UDP's number."""
    opener = packet(protocol, family=family)
    for sent, ends in ((encode_packet(opener).payload, (FAR, NEAR)), (answer_to(opener), (NEAR, FAR))):
        both = ends if family is Family.IPV4 else tuple(NEAR6 if end is NEAR else FAR6 for end in ends)
        addresses = b"".join(end.packed for end in both)
        summed = addresses + bytes((0, in_pseudo_header)) + len(sent).to_bytes(2, "big") + sent
        assert checksum(summed) == 0xFFFF  # nothing is left over, modulo 65535
        assert sent[6:8] != bytes(2)


def test_dccp_opens_and_answers_a_connection() -> None:
    """A request and a response, whose data offset is their length in words (RFC 4340, 5.1)."""
    opener, answer = encode_packet(packet(33)).payload, answer_to(packet(33))
    assert [(sent[4] * 4, sent[8] >> 1) for sent in (opener, answer)] == [(len(opener), 0), (len(answer), 1)]
    assert (answer[:2], answer[2:4]) == (opener[2:4], opener[:2])
    assert answer[18:24] == opener[10:16]


def answer_to(opener: Packet) -> bytes:
    """Return the upper layer of what answers a packet."""
    answer = encode_reply(opener)
    assert answer is not None
    return answer.payload


def crc32c(octets: bytes) -> bytes:
    """Return the remainder of a message by Castagnoli's polynomial, as it is sent."""
    bits = [octet >> place & 1 for octet in octets for place in range(8)] + [0] * 32
    bits[:32] = [1 - bit for bit in bits[:32]]
    polynomial = [0x11EDC6F41 >> place & 1 for place in range(32, -1, -1)]
    for start in range(len(bits) - 32):
        if bits[start]:
            for place, bit in enumerate(polynomial):
                bits[start + place] ^= bit
    rest = [1 - bit for bit in bits[-32:]]
    return bytes(sum(rest[8 * n + place] << place for place in range(8)) for n in range(4))


def test_gre_carries_a_packet_of_its_family() -> None:
    """Its version is 0: conntrack follows version 1 by PPTP's calls."""
    assert encode_packet(packet(47)) == gre(FAR, NEAR)
    assert encode_packet(packet(47)).payload == b"\0\0\x08\0"
    assert encode_packet(packet(47, family=Family.IPV6)).payload == b"\0\0\x86\xdd"


def test_other_protocols_answer_by_their_ends_alone() -> None:
    """Conntrack follows them by addresses."""
    answer = encode_reply(packet(50))
    assert answer is not None
    assert (answer.source, answer.destination, answer.protocol) == (NEAR, FAR, 50)
