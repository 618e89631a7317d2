"""The fields that rules read, in the kernel's terms: one row for each selector, and some that people write.

To teach the decoder a selector, add a row here. A read that no row has is named, and never taken for another.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sgagent.core.model import ICMP, ICMPV6, PORTED, TCP
from sgagent.nft import ruleset as nft
from sgagent.nft.expressions import Base, Key, PacketBytes
from sgagent.nft.ruleset import TupleDirection

ICMP_TYPE = nft.Selector("payload", "icmp type", nft.KeyType.ICMPV6_TYPE)
"""What others ask IPv4 packets for, and sgagent's own tables never."""

CT_FAMILY = nft.Selector("ct", "l3proto", nft.KeyType.NF_PROTO)
"""The family of a session; sgagent's own tables ask packets for theirs."""

FieldCondition = tuple[Key, int]
"""Something that a rule has compared, and the only number that has passed."""

FAMILY_KEY, _PROTOCOL, _LINK_TYPE = Key("meta", 15), Key("meta", 16), Key("meta", 8)
_IS_IPV4, _IS_IPV6 = (FAMILY_KEY, 2), (FAMILY_KEY, 10)

IS_BIG_ENDIAN = struct.pack("=H", 1)[1] == 1
"""Whether the byte order of this host, in which the kernel keeps some numbers, is the network's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelField:
    """A selector, and where the kernel reads it."""

    selector: nft.Selector
    place: PacketBytes | Key
    needs: tuple[FieldCondition, ...] = ()
    """What a rule has to compare as well, for the place to be this field."""

    is_host_order: bool = False
    """Whether it is a number in the byte order of the host."""

    length: int
    """In bytes."""

    implies_needs: bool = True
    """Whether the selector itself says what the field needs, so that a rule does not say it again."""

    @property
    def implied(self) -> tuple[FieldCondition, ...]:
        """Return the conditions that a rule need not state beside the selector."""
        return self.needs if self.implies_needs else ()


def _in_packet(
    selector: nft.Selector, base: Base, offset: int, length: int, *needs: FieldCondition, implies: bool = True
) -> KernelField:
    place = PacketBytes(base, offset, length)
    return KernelField(selector=selector, place=place, needs=needs, length=length, implies_needs=implies)


def _known(selector: nft.Selector, place: Key, length: int, *, is_host_order: bool = False) -> KernelField:
    return KernelField(selector=selector, place=place, length=length, is_host_order=is_host_order)


def _ports() -> Iterator[KernelField]:
    for protocol in PORTED:
        needs = (_PROTOCOL, protocol.wire_number)
        yield _in_packet(nft.source_port(protocol), Base.TRANSPORT, 0, 2, needs)
        yield _in_packet(nft.destination_port(protocol), Base.TRANSPORT, 2, 2, needs)
    yield _in_packet(nft.TH_DPORT, Base.TRANSPORT, 2, 2)


def _tuples() -> Iterator[KernelField]:
    for number, direction in enumerate((TupleDirection.ORIGINAL, TupleDirection.REPLY)):
        for key, name, length in (
            *((11, "proto-src", 2), (12, "proto-dst", 2), (19, "ip saddr", 4), (20, "ip daddr", 4)),
            *((21, "ip6 saddr", 16), (22, "ip6 daddr", 16)),
        ):
            yield _known(nft.ct_tuple(direction, name), Key("ct", key, number), length)


_FRAGMENT_HEADER = KernelField(
    selector=nft.FRAGMENT_HEADER, place=Key("exthdr", 44), needs=(_IS_IPV6,), length=1
)

FIELDS: tuple[KernelField, ...] = (
    _known(nft.CT_STATE, Key("ct", 0), 4, is_host_order=True),
    _known(nft.CT_DIRECTION, Key("ct", 1), 1),
    _known(nft.CT_MARK, Key("ct", 3), 4, is_host_order=True),
    _known(nft.CT_STATUS, Key("ct", 2), 4, is_host_order=True),
    _known(CT_FAMILY, Key("ct", 7), 1),
    _known(nft.CT_PROTOCOL, Key("ct", 10), 1),
    _known(nft.META_IIFNAME, Key("meta", 6), 16),
    _known(nft.META_OIFNAME, Key("meta", 7), 16),
    _known(nft.META_NFPROTO, FAMILY_KEY, 1),
    _known(nft.META_L4PROTO, _PROTOCOL, 1),
    _known(nft.META_SKUID, Key("meta", 10), 4, is_host_order=True),
    _in_packet(nft.ETHER_DADDR, Base.LINK, 0, 6, (_LINK_TYPE, 1)),
    _in_packet(nft.IP_SADDR, Base.NETWORK, 12, 4, _IS_IPV4),
    _in_packet(nft.IP_DADDR, Base.NETWORK, 16, 4, _IS_IPV4),
    _in_packet(nft.META_L4PROTO, Base.NETWORK, 9, 1, _IS_IPV4, implies=False),
    _in_packet(nft.IP6_HOPLIMIT, Base.NETWORK, 7, 1, _IS_IPV6),
    _FRAGMENT_HEADER,
    _in_packet(nft.IP6_SADDR, Base.NETWORK, 8, 16, _IS_IPV6),
    _in_packet(nft.IP6_DADDR, Base.NETWORK, 24, 16, _IS_IPV6),
    _in_packet(ICMP_TYPE, Base.TRANSPORT, 0, 1, _IS_IPV4, (_PROTOCOL, ICMP.wire_number)),
    _in_packet(nft.ICMPV6_TYPE, Base.TRANSPORT, 0, 1, _IS_IPV6, (_PROTOCOL, ICMPV6.wire_number)),
    _in_packet(nft.TCP_FLAGS, Base.TRANSPORT, 13, 1, (_PROTOCOL, TCP.wire_number)),
    *_ports(),
    *_tuples(),
)
"""A row each. Of several that fit a read, the first counts: those that need something stand before others."""

BY_KEY: Mapping[Key, KernelField] = {row.place: row for row in FIELDS if isinstance(row.place, Key)}
IN_PACKET: Mapping[Base, tuple[tuple[PacketBytes, KernelField], ...]] = {
    base: tuple(
        (row.place, row) for row in FIELDS if isinstance(row.place, PacketBytes) and row.place.base is base
    )
    for base in Base
}
LINK_INDEX: Mapping[Key, nft.Selector] = {Key("meta", 4): nft.META_IIFNAME, Key("meta", 5): nft.META_OIFNAME}
"""Links by number; that of loopback is 1 in each network namespace, and 0 is none."""

KEY_LENGTHS: Mapping[Key, int] = {
    **{place: row.length for place, row in BY_KEY.items()},
    **dict.fromkeys(LINK_INDEX, 4),
    **dict.fromkeys((Key("meta", 1), _LINK_TYPE, Key("meta", 9)), 2),
}
"""In bytes, of what a program may load: fields, and what others may need to be fields."""

HOST_ORDER_KEYS = frozenset(
    {*(place for place, row in BY_KEY.items() if row.is_host_order), _LINK_TYPE, Key("meta", 9)}
)
"""Whose numbers are in the byte order of the host."""

KEY_TYPES: Mapping[int, nft.KeyType] = {
    2: nft.KeyType.NF_PROTO,
    4: nft.KeyType.INTEGER,
    7: nft.KeyType.IPV4_ADDR,
    8: nft.KeyType.IPV6_ADDR,
    9: nft.KeyType.ETHER_ADDR,
    12: nft.KeyType.INET_PROTO,
    13: nft.KeyType.INET_SERVICE,
    19: nft.KeyType.MARK,
    24: nft.KeyType.UID,
    26: nft.KeyType.CT_STATE,
    27: nft.KeyType.CT_DIR,
    28: nft.KeyType.CT_STATUS,
    15: nft.KeyType.TCP_FLAG,
    29: nft.KeyType.ICMPV6_TYPE,
    41: nft.KeyType.IFNAME,
}
"""nft's numbers for types; the kernel keeps them for it, and compares bytes."""

LENGTHS: Mapping[nft.KeyType, int] = {
    **{key_type: bits // 8 for key_type, bits in nft.BITS.items()},
    nft.KeyType.IFNAME: 16,
    nft.KeyType.CT_STATE: 4,
    nft.KeyType.CT_STATUS: 4,
    nft.KeyType.CT_DIR: 1,
    nft.KeyType.NF_PROTO: 1,
    nft.KeyType.BOOLEAN: 1,
}
"""Of a field of a key, in bytes."""

HOST_ORDER_TYPES = frozenset({nft.KeyType.MARK, nft.KeyType.CT_STATE, nft.KeyType.CT_STATUS, nft.KeyType.UID})
"""Whose numbers the kernel keeps in the byte order of the host."""
