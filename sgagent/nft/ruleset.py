"""nftables in nftables' own words: a table as typed, frozen, canonical values.

Nothing here is text. Numbers are numbers, :mod:`sgagent.nft.names` makes names, and a value has exactly one
form: what the kernel lists decodes to the value that was sent, so that ``==`` compares tables. Two encoders
use it, :mod:`sgagent.nft.transactions` for libnftables and :mod:`sgagent.nft.text` for people.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sgagent.core.binding import check_interface_name
from sgagent.core.conditions import LAST_UNIT, GroupPath
from sgagent.core.model import PORTED, Family, Protocol

FAMILY = "inet"
TABLE = "sgagent"


class KeyType(enum.Enum):
    """The type of one field of a key, by nftables' name."""

    IPV4_ADDR = "ipv4_addr"
    IPV6_ADDR = "ipv6_addr"
    INET_PROTO = "inet_proto"
    INET_SERVICE = "inet_service"
    IFNAME = "ifname"
    CT_STATE = "ct_state"
    CT_DIR = "ct_dir"
    CT_STATUS = "ct_status"
    NF_PROTO = "nf_proto"
    MARK = "mark"
    ICMPV6_TYPE = "icmpv6_type"
    ETHER_ADDR = "ether_addr"
    TCP_FLAG = "tcp_flag"
    INTEGER = "integer"
    UID = "uid"
    CONTROL_GROUP = "cgroup"
    BOOLEAN = "boolean"


class TupleDirection(enum.Enum):
    """Which of the two tuples that conntrack keeps of a session."""

    ORIGINAL = "original"
    """As the packet that opened the session arrived: before any NAT."""

    REPLY = "reply"
    """As its answer is expected: after all NAT, ends swapped."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A field of a packet or its session that rules read; the closed list that sgagent uses is below."""

    kind: str
    """``ct``, ``meta``, ``payload``, ``exthdr`` or ``socket``."""

    key: str
    """The key of a ct or meta expression; ``protocol field`` of a payload expression, like ``ip saddr``."""

    key_type: KeyType
    tuple_direction: TupleDirection | None = None
    """Only for the fields of a session's tuples."""


CT_STATE = Selector("ct", "state", KeyType.CT_STATE)
CT_DIRECTION = Selector("ct", "direction", KeyType.CT_DIR)
CT_MARK = Selector("ct", "mark", KeyType.MARK)
CT_PROTOCOL = Selector("ct", "protocol", KeyType.INET_PROTO)
CT_STATUS = Selector("ct", "status", KeyType.CT_STATUS)
"""Bits; of them only :data:`EXPECTED` and :data:`CONFIRMED` are compared."""

EXPECTED, CONFIRMED = 1, 8
"""Bits: another session announced it to a helper; the packet that opened it has passed all hooks."""

META_IIFNAME = Selector("meta", "iifname", KeyType.IFNAME)
META_OIFNAME = Selector("meta", "oifname", KeyType.IFNAME)
META_NFPROTO = Selector("meta", "nfproto", KeyType.NF_PROTO)
META_L4PROTO = Selector("meta", "l4proto", KeyType.INET_PROTO)
META_SKUID = Selector("meta", "skuid", KeyType.UID)
SOCKET_GROUP = Selector("socket", "cgroup", KeyType.CONTROL_GROUP)
"""Who made the socket of this host that a packet leaves from, and in which control group (not by nft)."""

ETHER_DADDR = Selector("payload", "ether daddr", KeyType.ETHER_ADDR)
"""Of the frame that a packet came in with."""

IP_SADDR = Selector("payload", "ip saddr", KeyType.IPV4_ADDR)
IP_DADDR = Selector("payload", "ip daddr", KeyType.IPV4_ADDR)
IP6_SADDR = Selector("payload", "ip6 saddr", KeyType.IPV6_ADDR)
IP6_DADDR = Selector("payload", "ip6 daddr", KeyType.IPV6_ADDR)
IP6_HOPLIMIT = Selector("payload", "ip6 hoplimit", KeyType.INTEGER)
FRAGMENT_HEADER = Selector("exthdr", "frag", KeyType.BOOLEAN)
"""Whether a packet of IPv6 is a fragment."""
TH_DPORT = Selector("payload", "th dport", KeyType.INET_SERVICE)
"""Not behind a protocol, nor beside another port: the kernel would list it as that protocol's port."""
ICMPV6_TYPE = Selector("payload", "icmpv6 type", KeyType.ICMPV6_TYPE)
TCP_FLAGS = Selector("payload", "tcp flags", KeyType.TCP_FLAG)


def source_port(protocol: Protocol) -> Selector:
    """Return the selector of the source port in the header of a protocol with ports."""
    return _port(protocol, "sport")


def destination_port(protocol: Protocol) -> Selector:
    """Return the selector of the destination port in the header of a protocol with ports."""
    return _port(protocol, "dport")


def _port(protocol: Protocol, field_name: str) -> Selector:
    if not protocol.has_ports:
        raise ValueError(f"no rule compares ports of protocol {protocol}")
    return Selector("payload", f"{protocol} {field_name}", KeyType.INET_SERVICE)


def ct_tuple(direction: TupleDirection, key: str) -> Selector:
    """Return the selector of a field of one of a session's tuples.

    Args:
        direction: which tuple.
        key: ``ip saddr``, ``ip daddr``, ``ip6 saddr``, ``ip6 daddr``, ``proto-src`` or ``proto-dst``.
    """
    return Selector("ct", key, _TUPLE_KEY_TYPES[key], direction)


_TUPLE_KEY_TYPES: Mapping[str, KeyType] = {
    **dict.fromkeys(("ip saddr", "ip daddr"), KeyType.IPV4_ADDR),
    **dict.fromkeys(("ip6 saddr", "ip6 daddr"), KeyType.IPV6_ADDR),
    **dict.fromkeys(("proto-src", "proto-dst"), KeyType.INET_SERVICE),
}


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """Numbers from ``first`` to ``last``, both included: addresses, ports, protocols, marks."""

    first: int
    last: int

    @classmethod
    def single(cls, number: int) -> Interval:
        """Return the interval that holds one number."""
        return cls(number, number)

    @property
    def is_single(self) -> bool:
        """Return whether the interval holds one number."""
        return self.first == self.last


@dataclass(frozen=True, slots=True, order=True)
class Symbol:
    """A word: an interface's name, or a constant of the kernel like ``invalid`` or ``reply``."""

    word: str


Value = Interval | Symbol

NO_LINK = Symbol("")
"""The name of a link that a hook does not know, like that outwards at ``prerouting``: nft's ``oif 0``."""


@dataclass(frozen=True, slots=True, order=True)
class NamePrefix:
    """The names of interfaces that begin so: nft's ``"br-*"``. Rules compare it; maps hold no such key."""

    prefix: str

    @property
    def word(self) -> str:
        """Return it as nft writes it."""
        return f"{self.prefix}*"


Comparable = Value | NamePrefix | GroupPath


def checked_word(value: Symbol | NamePrefix | GroupPath, key_type: KeyType) -> str:
    """Return a word as nft writes it, without quotes.

    Raises:
        ValueError: it is an interface's name, or a prefix of names, that nft would read as something else.
    """
    if key_type is KeyType.IFNAME:
        check_interface_name(value.prefix if isinstance(value, NamePrefix) else value.word)
    return value.word


@dataclass(frozen=True, slots=True)
class Accept:
    """Let the packet pass this hook."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Discard the packet."""


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on in another chain and do not come back."""

    chain: str


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain and come back after its last rule."""

    chain: str


@dataclass(frozen=True, slots=True)
class Return:
    """Go back to where the chain was jumped to; in a base chain, to its policy."""


Verdict = Accept | Drop | Goto | Jump | Return

VERDICT_WORDS: Mapping[type[Verdict], str] = {
    kind: kind.__name__.lower() for kind in (Accept, Drop, Goto, Jump, Return)
}
"""What nft calls them."""


class Operator(enum.Enum):
    """How a match compares."""

    EQUAL = "=="
    NOT_EQUAL = "!="


@dataclass(frozen=True, slots=True)
class Match:
    """Go on in the rule only if the selected field compares so; several values (sorted) mean any of them."""

    selector: Selector
    values: tuple[Comparable, ...]
    """One value is written inline; more become an anonymous set. Intervals are disjoint and not adjacent."""

    operator: Operator = Operator.EQUAL
    mask: int | None = None
    """Bits that are compared; only for marks."""

    @property
    def asks_for_a_link(self) -> bool:
        """Return whether it asks if the hook knows the link outwards."""
        return self.selector == META_OIFNAME and self.values == (NO_LINK,)

    def has_word(self, word: str) -> bool:
        """Return whether one of the values is the word, or a prefix of names that begins it."""
        return any(
            word.startswith(value.prefix) if isinstance(value, NamePrefix) else value == Symbol(word)
            for value in self.values
        )


@dataclass(frozen=True, slots=True)
class Element:
    """One entry of a verdict map."""

    key: tuple[Value, ...]
    """As many fields as the map's key has."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look the selected fields up in a named verdict map; a miss goes on with the next rule."""

    selectors: tuple[Selector, ...]
    verdict_map: str


@dataclass(frozen=True, slots=True)
class Count:
    """Add the packet to a named counter."""

    counter: str


@dataclass(frozen=True, slots=True)
class Limit:
    """Go on in the rule only so often; each such statement has a bucket of its own."""

    per_second: int
    """Packets that go on each second, from 1."""

    burst: int
    """Packets that go on at once after a rest, from 1."""


@dataclass(frozen=True, slots=True)
class Meter:
    """Go on in the rule only where packets of one key exceed a rate; a set has a bucket for each key."""

    meter_set: str
    selector: Selector
    rate: int
    """Packets in :attr:`seconds` that don't go on, from 1."""

    seconds: int
    burst: int
    """Of a full bucket, from 1."""


@dataclass(frozen=True, slots=True)
class Log:
    """Send a copy of the packet's head to the listener of an nfnetlink log group, and continue."""

    prefix: str
    """Names the place in the ruleset for the listener; 1 to 127 bytes."""

    group: int
    """The group's number, 16 bits. Without a listener the statement has no effect."""


RATE_WORDS: Mapping[int, str] = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}
"""By seconds, what a rate is per."""

ALL_BITS = 0xFFFFFFFF
"""Of a mark."""


@dataclass(frozen=True, slots=True)
class SetMark:
    """Set the session's mark to ``(mark & keep) | put``."""

    keep: int
    """Canonical as the kernel lists it: includes the bits of ``put``; 0xffffffff keeps all."""

    put: int

    def of(self, mark: int) -> int:
        """Return a mark afterwards."""
        return mark & self.keep | self.put

    @classmethod
    def replacing(cls, bits: int, put: int) -> SetMark:
        """Return the statement that replaces the given bits of the mark by those of ``put``."""
        return cls(keep=(~bits & ALL_BITS) | put, put=put)


Statement = Match | LookUp | Count | Limit | Meter | Log | SetMark | Accept | Drop | Goto | Jump | Return


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a chain; a verdict, if any, comes last."""

    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Hook:
    """Where the kernel calls a base chain."""

    name: str
    """``prerouting`` or ``postrouting``."""

    hook_priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A list of rules; a base chain if it has a hook. Its policy is accept: none relies on it to drop."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None
    comment: str = ""
    """At most 128 bytes. The kernel can't change the comment of a chain that stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictMap:
    """A named map from keys to verdicts."""

    name: str
    key_types: tuple[KeyType, ...]
    is_interval: bool = False
    """Whether keys may be ranges. Keys are disjoint."""

    elements: Sequence[Element] = ()
    """Sorted by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSet:
    """The buckets of a meter, which packets put in. What is in them is no part of the ruleset."""

    name: str
    key_type: KeyType
    size: int
    """Buckets at most; no packet puts another one in then."""

    timeout: int
    """Seconds after its last packet in which a bucket goes."""

    strange_bucket: str | None = None
    """Of a table that was listed, an element of another limit than the rule's, and what it says."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A named counter. Only its being there is part of the ruleset; its values are read elsewhere."""

    name: str
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class Ruleset:
    """All that is in ``table inet sgagent``; each tuple is sorted by name."""

    chains: tuple[Chain, ...] = ()
    verdict_maps: tuple[VerdictMap, ...] = ()
    counters: tuple[Counter, ...] = ()
    meter_sets: tuple[MeterSet, ...] = ()

    @cached_property
    def meter_set_by_name(self) -> Mapping[str, MeterSet]:
        """Return the sets of meters by their names."""
        return {one.name: one for one in self.meter_sets}

    @cached_property
    def chain_by_name(self) -> Mapping[str, Chain]:
        """Return the chains by their names."""
        return {chain.name: chain for chain in self.chains}

    @cached_property
    def verdict_map_by_name(self) -> Mapping[str, VerdictMap]:
        """Return the verdict maps by their names."""
        return {verdict_map.name: verdict_map for verdict_map in self.verdict_maps}

    @cached_property
    def counter_by_name(self) -> Mapping[str, Counter]:
        """Return the counters by their names."""
        return {counter.name: counter for counter in self.counters}


def sort_key(key: tuple[Comparable, ...]) -> tuple[tuple[int, int, str], ...]:
    """Return a total order over the keys of one map."""
    return tuple((v.first, v.last, "") if isinstance(v, Interval) else (0, 0, v.word) for v in key)


ADDRESS_TYPES = {Family.IPV4: KeyType.IPV4_ADDR, Family.IPV6: KeyType.IPV6_ADDR}

BITS: Mapping[KeyType, int] = {
    KeyType.IPV4_ADDR: 32,
    KeyType.IPV6_ADDR: 128,
    KeyType.INET_PROTO: 8,
    KeyType.INET_SERVICE: 16,
    KeyType.MARK: 32,
    KeyType.ICMPV6_TYPE: 8,
    KeyType.ETHER_ADDR: 48,
    KeyType.TCP_FLAG: 8,
    KeyType.INTEGER: 8,
    KeyType.CT_STATUS: 4,
    KeyType.UID: 32,
    KeyType.CONTROL_GROUP: LAST_UNIT.bit_length(),
}
"""The width of the types whose values are numbers; the only integer in use is the hop limit."""

SYMBOLS: Mapping[KeyType, Mapping[str, int]] = {
    KeyType.CT_STATE: {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64},
    KeyType.CT_DIR: {"original": 0, "reply": 1},
    KeyType.NF_PROTO: {"ipv4": 2, "ipv6": 10},
    KeyType.BOOLEAN: {"missing": 0, "exists": 1},
}
"""The kernel's numbers for its constants."""

SELECTORS: tuple[Selector, ...] = (
    *(CT_STATE, CT_DIRECTION, CT_MARK, CT_PROTOCOL, CT_STATUS),
    *(META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO, META_SKUID, SOCKET_GROUP),
    *(ETHER_DADDR, IP_SADDR, IP_DADDR, IP6_SADDR, IP6_DADDR, IP6_HOPLIMIT, FRAGMENT_HEADER, TH_DPORT),
    *(port(protocol) for protocol in PORTED for port in (source_port, destination_port)),
    *(ICMPV6_TYPE, TCP_FLAGS),
    *(ct_tuple(direction, key) for direction in TupleDirection for key in _TUPLE_KEY_TYPES),
)
"""All that sgagent ever reads from a packet."""


def mac_text(number: int) -> str:
    """Return a MAC address as nft writes it."""
    return number.to_bytes(6, "big").hex(":")


def prefix_length(first: int, last: int, bits: int) -> int | None:
    """Return the length of the prefix that ``first`` to ``last`` make; None if they make none."""
    size = last - first + 1
    if size & (size - 1) or first & (size - 1):
        return None
    return bits - size.bit_length() + 1
