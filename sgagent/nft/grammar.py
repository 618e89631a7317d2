"""The keywords and numbers of nft's grammar for our values, shared by encoders and decoder."""

from __future__ import annotations

from collections.abc import Mapping

from sgagent.core.model import ICMPV6, PORTED, PROTOCOL_TABLE
from sgagent.nft import ruleset
from sgagent.nft.ruleset import KeyType, Selector, TupleDirection, ct_tuple

BITS: Mapping[KeyType, int] = {
    KeyType.IPV4_ADDR: 32,
    KeyType.IPV6_ADDR: 128,
    KeyType.INET_PROTO: 8,
    KeyType.INET_SERVICE: 16,
    KeyType.MARK: 32,
    KeyType.ICMPV6_TYPE: 8,
    KeyType.INTEGER: 8,
}
"""The width of the types whose values are numbers; the only integer in use is the hop limit."""

SYMBOLS: Mapping[KeyType, Mapping[str, int]] = {
    KeyType.CT_STATE: {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64},
    KeyType.CT_DIR: {"original": 0, "reply": 1},
    KeyType.NF_PROTO: {"ipv4": 2, "ipv6": 10},
}
"""The kernel's numbers for its constants: a numeric listing shows these."""

PROTOCOL_NUMBERS: Mapping[str, int] = {
    **{row.name: row.protocol.number for row in PROTOCOL_TABLE if row.protocol.number is not None},
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": ICMPV6.wire_number,
}
"""IP protocols that nft may call by name."""

_TUPLE_KEYS = ("ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr", "proto-src", "proto-dst")

SELECTORS: tuple[Selector, ...] = (
    ruleset.CT_STATE,
    ruleset.CT_DIRECTION,
    ruleset.CT_MARK,
    ruleset.CT_PROTOCOL,
    ruleset.META_IIFNAME,
    ruleset.META_OIFNAME,
    ruleset.META_NFPROTO,
    ruleset.META_L4PROTO,
    ruleset.IP_SADDR,
    ruleset.IP_DADDR,
    ruleset.IP6_SADDR,
    ruleset.IP6_DADDR,
    ruleset.IP6_HOPLIMIT,
    ruleset.TH_DPORT,
    *(port(protocol) for protocol in PORTED for port in (ruleset.source_port, ruleset.destination_port)),
    ruleset.ICMPV6_TYPE,
    *(ct_tuple(direction, key) for direction in TupleDirection for key in _TUPLE_KEYS),
)
"""All that sgagent ever reads from a packet."""


def prefix_length(first: int, last: int, bits: int) -> int | None:
    """Return the length of the prefix that ``first`` to ``last`` make; None if they make none."""
    size = last - first + 1
    if size & (size - 1) or first & (size - 1):
        return None
    return bits - size.bit_length() + 1
