"""The conditions that a packet must meet for a rule to act on it, as far as they matter here."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sgagent.analysis.doctor.mark_bits import number
from sgagent.nft.expressions import Base, Compute, Key, PacketBytes, ValueSource


class Narrowing(enum.Enum):
    """The criteria, besides links, by which a rule picks packets."""

    PROTOCOL = enum.auto()
    """Protocols and ports."""

    SOURCE = enum.auto()
    DESTINATION = enum.auto()
    """In a way that is not followed."""

    LOCAL = enum.auto()
    """Packets to this host, by a look-up of the route: inwards nearly all."""

    WAY_BACK = enum.auto()
    """Packets that come in over another link than what goes to their source leaves by."""

    SHARE = enum.auto()
    """Some of all, by rate, number, volume, chance or time."""

    OTHER = enum.auto()


@dataclass(frozen=True, slots=True)
class LinkTest:
    """A test of the link by which a packet comes or goes."""

    is_input: bool
    values: frozenset[str | int]
    """Names, prefixes that end in ``*``, or indexes."""

    is_negated: bool = False

    def admits(self, name: str, index: int) -> bool:
        """Return whether packets of a link pass the test."""
        return any(_is_meant(value, name, index) for value in self.values) is not self.is_negated


def _is_meant(value: str | int, name: str, index: int) -> bool:
    if isinstance(value, int):
        return value == index
    return name.startswith(value[:-1]) if value.endswith("*") else value == name


@dataclass(frozen=True, slots=True)
class PacketConditions:
    """The conditions that a packet must meet for a rule to act on it."""

    links: tuple[LinkTest, ...] = ()
    narrowings: frozenset[Narrowing] = frozenset()
    destinations: frozenset[bytes] = frozenset()
    """Beginnings of destination addresses."""

    families: frozenset[int] = frozenset()
    """Those that rules name, as the kernel numbers them."""

    @property
    def is_plain(self) -> bool:
        """Return whether they pick by port or peer alone, and leave out no links.

        What is picked by anything else is of a kind that the policy does not accept either (invalid packets,
        addresses of services), or can't be compared; a rule that names links to leave out isolates these.
        """
        return self.narrowings <= _PLAIN and not any(test.is_negated for test in self.links)

    def and_(self, other: PacketConditions) -> PacketConditions:
        """Return both."""
        if other in (self, ANY_PACKET):
            return self
        return PacketConditions(
            links=tuple(dict.fromkeys((*self.links, *other.links))),
            narrowings=self.narrowings | other.narrowings,
            destinations=self.destinations | other.destinations,
            families=self.families | other.families,
        )


_PLAIN = frozenset({Narrowing.PROTOCOL, Narrowing.SOURCE, Narrowing.LOCAL, Narrowing.SHARE})
ANY_PACKET = PacketConditions()
SHARE = PacketConditions(narrowings=frozenset({Narrowing.SHARE}))
BY_WAY_BACK = PacketConditions(narrowings=frozenset({Narrowing.WAY_BACK}))
OTHERWISE = PacketConditions(narrowings=frozenset({Narrowing.OTHER}))
"""Picked in a way that is not followed."""


def narrowed(source: ValueSource | None) -> PacketConditions:
    """Return the conditions of a comparison with values that are not followed."""
    return PacketConditions(narrowings=frozenset({_narrowing(source)}))


def compared(
    source: ValueSource | None, value: bytes, mask: bytes = b"", *, is_equal: bool = True
) -> PacketConditions:
    """Return the conditions of a comparison with a value.

    Args:
        source: the field that is compared; None where something was made of it.
        value: to which the field is compared.
        mask: of the bits that are; none for all.
        is_equal: whether the rule goes on where they are equal, or where they are not.
    """
    if source in LINKS:
        return of_links(source, [value], is_negated=not is_equal)
    if _narrowing(source) is Narrowing.DESTINATION and is_equal and _is_of_octets(mask):
        beginning = value[: len(mask.rstrip(b"\0"))] if mask else value
        return PacketConditions(destinations=frozenset({beginning}))
    if source == _STATE and number(value if is_equal else mask) & _NEW:
        return ANY_PACKET
    if source == _DESTINATION_KIND and is_equal and number(value) == _LOCAL:
        return PacketConditions(narrowings=frozenset({Narrowing.LOCAL}))
    if source == _WAY_BACK and is_equal and not number(value):
        return BY_WAY_BACK
    if source == _FAMILY and is_equal:
        return replace(narrowed(source), families=frozenset({number(value)}))
    return narrowed(source)


def other_than(source: ValueSource | None, values: Iterable[bytes]) -> PacketConditions:
    """Return the conditions of packets for which a map has no element of their own."""
    if source in LINKS:
        return of_links(source, values, is_negated=True)
    if source == _STATE and not any(number(value) & _NEW for value in values):
        return ANY_PACKET
    return narrowed(source)


def of_links(source: ValueSource | None, values: Iterable[bytes], *, is_negated: bool) -> PacketConditions:
    """Return the conditions of a comparison of a packet's link with links."""
    names = frozenset(number(value) if source in _INDEXES else _name(value) for value in values)
    return PacketConditions(links=(LinkTest(source in _INPUTS, names, is_negated=is_negated),))


def source_of(computed: Compute) -> ValueSource | None:
    """Return what a computed value stands for, where that is followed."""
    if computed.name in _OF_CHANCE:
        return _RANDOM
    found, flags = computed.looks_up or (0, 0)
    if found in _LINK_OF_ROUTE and flags & _BY_SOURCE_AND_LINK == _BY_SOURCE_AND_LINK:
        return _WAY_BACK
    return _DESTINATION_KIND if found == _KIND_OF_ADDRESS and flags & _BY_DESTINATION else None


def _narrowing(source: ValueSource | None) -> Narrowing:
    """Return the criterion by which a comparison picks packets."""
    match source:
        case PacketBytes(Base.TRANSPORT):
            return Narrowing.PROTOCOL
        case PacketBytes(Base.NETWORK, offset, 1) if offset in _PROTOCOL_AT:
            return Narrowing.PROTOCOL
        case PacketBytes(Base.NETWORK, offset, length) if (offset, length) != _TTL:
            return _ADDRESS_AT.get(offset, Narrowing.OTHER)
        case _ if source in SHARES:
            return Narrowing.SHARE
        case _:
            return Narrowing.PROTOCOL if source in _PROTOCOLS else Narrowing.OTHER


_STATE = Key("ct", 0)
_NEW = 8
"""Of the states of a packet, as bits."""

_INPUTS = frozenset({Key("meta", 4), Key("meta", 6)})
_INDEXES = frozenset({Key("meta", 4), Key("meta", 5)})
LINK_NAMES = frozenset({Key("meta", 6), Key("meta", 7)})
LINKS = _INPUTS | {Key("meta", 5), Key("meta", 7)}
_PROTOCOLS = frozenset({Key("meta", 1), Key("meta", 15), Key("meta", 16)})
"""Of either layer."""

_RANDOM = Key("meta", 24)
SHARES = frozenset({_RANDOM, *(Key("meta", key) for key in (30, 31, 32))})
"""Chance; time, day and hour: numbers whose order of bytes does not matter here."""

_OF_CHANCE = frozenset({"numgen", "hash"})
_DESTINATION_KIND, _WAY_BACK = Key("fib", 3), Key("fib", 1)
"""No loads of the kernel's: it finds them by a computation."""

_LINK_OF_ROUTE, _BY_SOURCE_AND_LINK = frozenset({1, 2}), 9
_FAMILY = Key("meta", 15)

_KIND_OF_ADDRESS, _BY_DESTINATION, _LOCAL = 3, 2, 2
_PROTOCOL_AT = frozenset({6, 9})
_TTL = (8, 1)
_ADDRESS_AT = {
    12: Narrowing.SOURCE,
    16: Narrowing.DESTINATION,
    8: Narrowing.SOURCE,
    24: Narrowing.DESTINATION,
}
"""Where the headers of both families have them."""


def _is_of_octets(mask: bytes) -> bool:
    """Return whether a mask keeps whole octets at the beginning, or is none."""
    kept = mask.rstrip(b"\0")
    return all(octet == 0xFF for octet in kept)


def _name(value: bytes) -> str:
    """Return a link's name as rules hold it; one that does not end is a prefix."""
    name, end, _ = value.partition(b"\0")
    return name.decode("utf-8", "backslashreplace") + ("" if end or len(value) >= NAME_OCTETS else "*")


NAME_OCTETS = 16
