"""Bytes from the network, whatever they are, are read within bounds."""

from __future__ import annotations

import struct

from hypothesis import given, strategies as st

from sgagent.agent.flowlog.enrichment import PacketHead, read_head
from sgagent.core.model import Family
from sgagent.dataplane.nflog import COPIED_BYTES, LoggedPacket, read_packets
from sgagent.netlink import attribute

_BITS = {Family.IPV4: 32, Family.IPV6: 128}


def is_sound(head: PacketHead) -> bool:
    """Tell whether every number fits where it comes from."""
    last = (1 << _BITS[head.family]) - 1
    numbers = (head.source_port, head.destination_port)
    return (
        0 <= head.source <= last
        and 0 <= head.destination <= last
        and 0 <= head.protocol <= 255
        and all(port is None or 0 <= port <= 65535 for port in numbers)
        and (head.icmp_type is None or 0 <= head.icmp_type <= 255)
        and 0 <= head.bytes <= 40 + 65535
    )


@given(st.binary(max_size=COPIED_BYTES))
def test_any_bytes_are_a_head_or_none(text: bytes) -> None:
    """Nothing fails, and nothing is read that is not there."""
    head = read_head(text)
    assert head is None or is_sound(head)


@given(st.sampled_from((0x45, 0x46, 0x4F, 0x60)), st.binary(min_size=20, max_size=COPIED_BYTES))
def test_bytes_that_look_like_ip_are_too(first: int, text: bytes) -> None:
    """Such as begin as a packet does."""
    head = read_head(bytes([first]) + text)
    assert head is None or is_sound(head)


_ATTRIBUTES = st.lists(
    st.tuples(st.sampled_from((1, 4, 5, 9, 10, 12, 99)), st.binary(max_size=24)), max_size=8
)


def message(kind: int, content: bytes) -> bytes:
    """Return a netlink message."""
    return struct.pack("=IHHII", 16 + len(content), kind, 0, 0, 0) + content + bytes(-len(content) % 4)


@given(st.lists(_ATTRIBUTES, max_size=3), st.binary(max_size=40))
def test_messages_are_read_as_far_as_whole(messages: list[list[tuple[int, bytes]]], rest: bytes) -> None:
    """A message that lacks something, or is cut off, is passed over."""
    text = b"".join(
        message(4 << 8, bytes(4) + b"".join(attribute(kind, value) for kind, value in attributes))
        for attributes in messages
    )
    found = list(read_packets(text + rest))
    assert len(found) <= len(messages) + 1
    assert all(len(packet.head) <= COPIED_BYTES for packet in found)


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=127),
    st.integers(0, (1 << 32) - 1),
    st.booleans(),
    st.integers(1, 1000),
    st.binary(min_size=1, max_size=COPIED_BYTES),
)
def test_a_packet_is_read_as_it_was_told(
    prefix: str,
    sequence: int,
    is_leaving: bool,  # noqa: FBT001 - drawn
    index: int,
    head: bytes,
) -> None:
    """Each attribute in its place; the link is that of the hook."""
    hook, place, other = (4, 5, 4) if is_leaving else (0, 4, 5)
    content = bytes(4) + b"".join(
        (
            attribute(1, struct.pack("!HBx", 0x0800, hook)),
            attribute(place, struct.pack("!I", index)),
            attribute(other, struct.pack("!I", index + 1)),
            attribute(10, prefix.encode() + b"\0"),
            attribute(12, struct.pack("!I", sequence)),
            attribute(9, head),
        )
    )
    assert list(read_packets(message(4 << 8, content))) == [
        LoggedPacket(prefix=prefix, is_leaving=is_leaving, link_index=index, sequence=sequence, head=head)
    ]
