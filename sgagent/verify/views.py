"""Views: the kinds of packets that a hook can meet at a link, and the values that nftables reads in them.

In a view the hook, link, family, conntrack state and direction are settled. All else that a packet can differ
in is a dimension, its far end, or its mark. Dimensions are independent of each other: what depends on
something else, as ports do on the protocol, is in views of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product
from typing import NamedTuple

from sgagent.core.addresses import Ranges, holds, ranges_of, without
from sgagent.core.model import ICMP, ICMPV6, LAST_PORT, PORTED, PORTED_NUMBERS, TCP, Direction, Family
from sgagent.nft.ruleset import CONFIRMED, EXPECTED, Selector, TupleDirection
from sgagent.verify.packets import (
    NO_PROTOCOL,
    WITH_INPUT_LINK,
    Constraints,
    CtDirection,
    CtState,
    Dimension,
    Ends,
    Headers,
    PacketAtHook,
    PacketSpace,
    Phase,
    Ports,
    SessionAtHook,
    opened_direction,
    reads_other_link,
)
from sgagent.verify.users import NOBODY, SOMEBODY, UNIT, USER, makers_at
from sgagent.verify.verified_table import UnsupportedStatementError

PROTOCOL = "protocol"
NEAR_END = "near end"
SOURCE_PORT = "source port"
PORT = "destination port"
ICMP_TYPE = "icmp type"
HOP_LIMIT = "hop limit"
"""A policy can speak of these six, the user and the far end. Others name the place that they are in."""

ETHER_DESTINATION = "frame's destination"
TCP_FLAGS = "tcp flags"
FAR_END = "far end"
"""No dimension: classes of far ends take its place."""

_HEADER_TYPE = "header's icmp type"
STATUS = "status"
"""Of the session, as far as rules may compare it."""

_ABSENT = -1
"""The value of a field that a packet is too short for."""


class _End(NamedTuple):
    """The dimensions of one end of a header or a tuple."""

    address: Dimension
    port: Dimension


def _ends(whose: str) -> tuple[_End, _End]:
    """Return source and destination of a header or a tuple."""
    return (
        _End(f"{whose} source", f"{whose} source port"),
        _End(f"{whose} destination", f"{whose} destination port"),
    )


_HEADER = _ends("header's")
"""Source and destination in a header that has nothing to do with the tuple that the policy judges."""

_OTHER_TUPLE = _ends("other tuple's")
"""Source and destination of the tuple that the policy does not judge: NAT may put anything there."""

_REPLY_TUPLE = _ends("reply tuple's")
"""Likewise that of replies, where the policy judges the header of an error."""

_SESSION_PROTOCOL = "session's protocol"
"""Where the policy judges the protocol in the header, which is another."""

_SESSION_PORTS = ("session's source port", "session's destination port")
"""Of the tuple that the policy judges, where the session's protocol has no ports."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A field that is the same in all packets of a view."""

    value: int | str


@dataclass(frozen=True, slots=True)
class Read:
    """A field that is a dimension."""

    dimension: Dimension
    needs: Constraints = ()
    """The constraints of packets that have the field."""


class Special(enum.Enum):
    """Other readings."""

    FAR_END = "far end"
    MARK = "mark"
    NOTHING = "nothing"
    """No packet of the view has the field."""


SelectorReading = Settled | Read | Special


@dataclass(frozen=True)
class View:
    """One kind of packets."""

    hook: str
    link: str
    family: Family
    state: CtState
    direction: CtDirection | None
    """None for packets without a session."""

    headers: Headers = Headers.OWN
    ports: Ports = Ports.PORTED
    other_link: str = ""
    """On the other side of what is forwarded; empty where the table does not read it."""

    is_fragment: bool = False
    """Whether they are fragments of IPv6 that conntrack did not put together."""

    is_elsewhere: bool = False
    """Whether they are replies of entries that were not opened so here (§6.4). What opens a session is
    then the packet itself."""

    @cached_property
    def opened(self) -> Direction:
        """Return which way sessions were opened through the link."""
        return opened_direction(self.hook, None if self.is_elsewhere else self.direction)

    @property
    def accepted_as(self) -> Direction:
        """Return of which direction's sessions the mark of a session says that it was accepted."""
        return opened_direction(self.hook, self.direction)

    @property
    def is_invalid(self) -> bool:
        """Return whether they are about no session of the link, as far as is known."""
        return self.state is CtState.INVALID or (self.is_elsewhere and self.is_error)

    @property
    def is_error(self) -> bool:
        """Return whether they are of ICMP errors about their sessions."""
        return self.headers in (Headers.ERROR, Headers.HIDDEN_ERROR, Headers.ANNOUNCED)

    @property
    def may_reopen(self) -> bool:
        """Return whether one of them may open a session of TCP in the entry of an older one (§13.1)."""
        is_original = self.direction is CtDirection.ORIGINAL
        return self.state is CtState.ESTABLISHED and is_original and self.headers is Headers.OWN

    @property
    def _is_header_judged(self) -> bool:
        """Return whether the policy judges a header that has another protocol than the session."""
        return self.is_elsewhere and self.headers is not Headers.OWN

    @property
    def is_expected(self) -> bool:
        """Return whether another session announced that of the packet, and gave it its mark."""
        return self.state is CtState.RELATED and self.headers not in (Headers.ERROR, Headers.HIDDEN_ERROR)

    @cached_property
    def box(self) -> PacketSpace:
        """Return the values that each dimension can have."""
        is_short, is_broken = self.ports is Ports.SHORT, self.headers is Headers.BROKEN
        addresses = (NEAR_END, *(end.address for end in (*_HEADER, *_OTHER_TUPLE)))
        box: dict[Dimension, Ranges] = dict.fromkeys(addresses, ((0, self.family.last_address),))
        box |= dict.fromkeys((SOURCE_PORT, PORT), _NONE if is_short else _PRESENT)
        box |= dict.fromkeys((*(end.port for end in _OTHER_TUPLE), *_SESSION_PORTS), _PRESENT)
        box |= dict.fromkeys((end.port for end in _HEADER), _NONE if is_broken else ((_ABSENT, LAST_PORT),))
        types = ((_ABSENT, 255),)
        of_session = types if self.direction is None else _TYPES_OF_SESSIONS[self.family, self.direction]
        if self._is_header_judged:
            box |= dict.fromkeys((end.address for end in _REPLY_TUPLE), ((0, self.family.last_address),))
            box |= dict.fromkeys((end.port for end in _REPLY_TUPLE), _PRESENT)
            box[_SESSION_PROTOCOL] = self._protocols
        box |= {STATUS: self._statuses, ETHER_DESTINATION: ((_ABSENT, _LAST_MAC),)}
        protocols = self._protocols
        if self._is_header_judged and isinstance(header := self._protocol_of_header, Settled):
            protocols = ((int(header.value), int(header.value)),)
        box[TCP_FLAGS] = types if self.direction is None else _BYTE  # conntrack follows no cut header
        box |= makers_at(self.hook, self.opened)
        return box | {ICMP_TYPE: of_session, _HEADER_TYPE: types, HOP_LIMIT: _BYTE, PROTOCOL: protocols}

    @property
    def _statuses(self) -> Ranges:
        """Return which status sessions can have: announced by another one, and opened before the packet."""
        is_new, is_original = self.state is CtState.NEW, self.direction is CtDirection.ORIGINAL
        is_unannounced = is_new or (is_original and self.headers is Headers.HIDDEN_ERROR)
        announced = (EXPECTED,) if self.is_expected else (0,) if is_unannounced else (0, EXPECTED)
        confirmed = (0, CONFIRMED) if is_new or self.is_expected else (CONFIRMED,)
        return ranges_of(map(sum, product(confirmed, announced)))

    @property
    def _protocols(self) -> Ranges:
        """Return the protocols of the session, or of a packet without one."""
        if self.headers is Headers.BROKEN:
            return ((NO_PROTOCOL, NO_PROTOCOL),)
        ported = ranges_of(PORTED_NUMBERS)
        protocols = without(_BYTE, ported) if self.ports is Ports.OTHER else ported
        if self.direction is None:
            return protocols
        if self.state is CtState.RELATED and self.headers is Headers.OWN:
            error = _ERRORS[self.family]  # no session of ICMP is expected; errors are views apart
            protocols = without(protocols, ((error, error),))
        return without(protocols, NEVER_TRACKED[self.family])

    @cached_property
    def _judged_tuple(self) -> tuple[_End, _End]:
        """Return source and destination of the tuple that the policy judges: the ends on the wire."""
        if self.ports is Ports.OTHER:
            ports = _SESSION_PORTS
        else:
            ports = (SOURCE_PORT, PORT) if self.opened is Direction.INGRESS else (PORT, SOURCE_PORT)
        return _End(FAR_END, ports[0]), _End(NEAR_END, ports[1])

    def _tuple(self, direction: TupleDirection | None) -> tuple[_End, _End]:
        """Return source and destination of one of the session's tuples."""
        is_original = direction is TupleDirection.ORIGINAL
        if self.is_elsewhere and self.is_error:
            return self._tuple_of_error(is_original=is_original)
        is_judged = is_original is (self.accepted_as is Direction.INGRESS)
        return self._judged_tuple if is_judged else _OTHER_TUPLE

    def _tuple_of_error(self, *, is_original: bool) -> tuple[_End, _End]:
        """Return source and destination of a tuple; the header that the policy judges goes to one of them."""
        source, destination = _OTHER_TUPLE if is_original else _REPLY_TUPLE
        if self.hook in WITH_INPUT_LINK:
            return source, destination if is_original else _End(NEAR_END, destination.port)
        return _End(FAR_END, source.port) if is_original else source, destination

    def _header(self, phase: Phase) -> tuple[_End, _End]:
        """Return source and destination in the header; on the inner side of NAT it has the other tuple's.

        An ICMP error goes where the session's packets of its direction go, from anywhere: conntrack takes
        every other one for invalid.
        """
        far, near = self._judged_tuple
        is_input = self.hook in WITH_INPUT_LINK
        if phase is Phase.TRANSLATED and self.direction is not None and (is_input or not self.is_error):
            near = _OTHER_TUPLE[0]
        ends = (far, near) if is_input else (near, far)
        if self.is_error and not self.is_elsewhere:
            return _HEADER[0], _End(ends[1].address, _HEADER[1].port)
        if self.headers is Headers.OWN and self.ports is not Ports.OTHER:
            return ends
        return _End(ends[0].address, _HEADER[0].port), _End(ends[1].address, _HEADER[1].port)

    @property
    def _protocol_of_header(self) -> SelectorReading:
        match self.headers:
            case Headers.OWN:
                return Read(PROTOCOL)
            case Headers.AUTHENTICATED | Headers.HIDDEN_ERROR | Headers.ANNOUNCED:
                return Settled(_AUTHENTICATION)
            case Headers.ERROR:
                return Settled(_ERRORS[self.family])
            case Headers.BROKEN:
                return Special.NOTHING

    def read(self, selector: Selector, phase: Phase) -> SelectorReading:
        """Return the reading of an expression in packets of the view."""
        match selector.kind:
            case "ct":
                return self._read_ct(selector, phase)
            case "meta" | "socket":
                return self._read_meta(selector.key)
            case "exthdr":
                is_ipv6 = self.family is Family.IPV6
                return Settled("exists" if self.is_fragment else "missing") if is_ipv6 else Special.NOTHING
            case _:
                return self._read_payload(*selector.key.split(), phase=phase)

    def _read_ct(self, selector: Selector, phase: Phase) -> SelectorReading:
        is_there = phase is not Phase.UNTRACKED
        if selector.key == "state":
            return Settled((self.state if is_there else CtState.INVALID).value)
        if self.direction is None or not is_there:
            return Special.NOTHING
        match selector.key:
            case "direction":
                return Settled(self.direction.value)
            case "mark":
                return Special.MARK
            case "protocol":
                return Read(_SESSION_PROTOCOL if self._is_header_judged else PROTOCOL)
            case "status":
                return Read(STATUS)
            case "l3proto":
                return Settled(self.family.value)
            case key:
                header, _, field = key.rpartition(" ")
                if _FAMILIES.get(header, self.family) is not self.family:
                    return Special.NOTHING
                return _read_end(self._tuple(selector.tuple_direction), field)

    def _read_meta(self, key: str) -> SelectorReading:
        match key:
            case "nfproto":
                return Settled(self.family.value)
            case "l4proto":
                return self._protocol_of_header
            case "iifname" | "oifname":
                return Settled(self.other_link if reads_other_link(key, self.hook) else self.link)
            case "skuid" | "cgroup" if self.hook not in ("input", "forward"):  # there packets have sockets
                maker = USER if key == "skuid" else UNIT
                return Read(maker, ((maker, SOMEBODY[maker]),))
            case _:
                raise UnsupportedStatementError(f"meta {key}")

    def _read_payload(self, header: str, field: str, *, phase: Phase) -> SelectorReading:
        if header == "ether":
            return Read(ETHER_DESTINATION, ((ETHER_DESTINATION, ((0, _LAST_MAC),)),))
        if _FAMILIES.get(header, self.family) is not self.family:
            return Special.NOTHING
        if field == "hoplimit":
            return Read(HOP_LIMIT)
        if field in {"saddr", "daddr"}:
            return _read_end(self._header(phase), field)
        needs: Constraints = ()
        match self._protocol_of_header:
            case Special():
                return Special.NOTHING
            case Settled(value) if value != _NUMBERS.get(header, value):
                return Special.NOTHING
            case Read() if header in _NUMBERS:
                needs = ((PROTOCOL, ((_NUMBERS[header], _NUMBERS[header]),)),)
        if field == "flags":
            return Read(TCP_FLAGS, (*needs, (TCP_FLAGS, _BYTE)))
        if field == "type":
            dimension = ICMP_TYPE if self.headers is Headers.OWN else _HEADER_TYPE
        else:
            dimension = _field_of(self._header(phase), field)
        return Read(dimension, (*needs, (dimension, _PRESENT)))

    def packet(self, values: Mapping[Dimension, int], mark: int = 0) -> PacketAtHook:
        """Return the packet that has these values."""
        source, destination = self._header(Phase.WIRE)
        read = self._protocol_of_header
        protocol = int(read.value) if isinstance(read, Settled) else values[PROTOCOL]
        icmp_type = values[_HEADER_TYPE if self.headers is Headers.ERROR else ICMP_TYPE]
        return PacketAtHook(
            hook=self.hook,
            interface=self.link,
            family=self.family,
            source=values[source.address],
            destination=values[destination.address],
            protocol=protocol,
            source_port=_present(values[source.port]),
            destination_port=_present(values[destination.port]),
            icmp_type=_present(icmp_type) if protocol == _ERRORS[self.family] else None,
            hop_limit=values[HOP_LIMIT],
            state=self.state,
            session=self._session(values, mark),
            other_interface=self.other_link,
            ether_destination=_present(values[ETHER_DESTINATION]),
            tcp_flags=_present(values[TCP_FLAGS]) if protocol == TCP.wire_number else None,
            user=values[USER] if values[USER] >= 0 else None,
            unit=values[UNIT] if values[UNIT] >= 0 else None,
            is_fragment=self.is_fragment,
            hides_error=self.headers in (Headers.HIDDEN_ERROR, Headers.ANNOUNCED),
        )

    def _session(self, values: Mapping[Dimension, int], mark: int) -> SessionAtHook | None:
        if self.direction is None:
            return None
        original, reply = (
            Ends(values[source], values[destination], values[source_port], values[port])
            for (source, source_port), (destination, port) in map(self._tuple, TupleDirection)
        )
        return SessionAtHook(
            direction=self.direction,
            protocol=values[_SESSION_PROTOCOL if self._is_header_judged else PROTOCOL],
            original=original,
            reply=reply,
            mark=mark,
            is_expected=bool(values[STATUS] & EXPECTED),
            is_confirmed=bool(values[STATUS] & CONFIRMED),
        )

    def values(self, box: PacketSpace, far_end: int) -> dict[Dimension, int]:
        """Return values that a packet of a box can have, its far end included: without NAT, if it can be."""
        values = {dimension: ranges[0][0] for dimension, ranges in box.items()}
        for dimension, wish in (*_WISHES, (NEAR_END, _ORDINARY[self.family])):
            values[dimension] = _nearest(box[dimension], wish)
        values[FAR_END] = far_end
        for end, same in zip(_OTHER_TUPLE, reversed(self._judged_tuple), strict=True):
            for dimension, alike in zip(end, same, strict=True):
                values[dimension] = _nearest(box[dimension], values[alike])
        return values


def _field_of(ends: tuple[_End, _End], field: str) -> Dimension:
    """Return the dimension of an address or port of a header or tuple."""
    (source, source_port), (destination, port) = ends
    ports = {"sport": source_port, "dport": port, "proto-src": source_port, "proto-dst": port}
    return {"saddr": source, "daddr": destination, **ports}[field]


def _read_end(ends: tuple[_End, _End], field: str) -> SelectorReading:
    dimension = _field_of(ends, field)
    return Special.FAR_END if dimension == FAR_END else Read(dimension)


def _present(value: int) -> int | None:
    return None if value == _ABSENT else value


def _nearest(ranges: Ranges, wish: int) -> int:
    """Return a number itself where it is in the set, else one that is."""
    return wish if holds(ranges, wish) else ranges[0][0]


_NONE: Ranges = ((_ABSENT, _ABSENT),)
_PRESENT: Ranges = ((0, LAST_PORT),)
_BYTE: Ranges = ((0, 255),)
_LAST_MAC = (1 << 48) - 1
_AUTHENTICATION = 51
_FAMILIES = {"ip": Family.IPV4, "icmp": Family.IPV4, "ip6": Family.IPV6, "icmpv6": Family.IPV6}
_ERRORS = {Family.IPV4: ICMP.wire_number, Family.IPV6: ICMPV6.wire_number}
_NUMBERS = {str(protocol): protocol.wire_number for protocol in (*PORTED, ICMP, ICMPV6)}
NEVER_TRACKED = {
    Family.IPV4: ((58, 58),),
    Family.IPV6: ranges_of((0, 1, 43, 44, 51, 59, 60)),
}
"""The other family's ICMP, and extension headers, which conntrack looks behind or takes for invalid."""

_TYPES_OF_SESSIONS: Mapping[tuple[Family, CtDirection], Ranges] = {
    (Family.IPV4, CtDirection.ORIGINAL): ((8, 8), (13, 13), (15, 15), (17, 17)),
    (Family.IPV4, CtDirection.REPLY): ((0, 0), (14, 14), (16, 16), (18, 18)),
    (Family.IPV6, CtDirection.ORIGINAL): ((128, 128), (139, 139)),
    (Family.IPV6, CtDirection.REPLY): ((129, 129), (140, 140)),
}
"""Requests and their answers; conntrack takes every other message for an error, untracked, or invalid."""

_WISHES = (
    *((HOP_LIMIT, 64), (SOURCE_PORT, 40_000), (PORT, 443)),
    *((PROTOCOL, 6), (TCP_FLAGS, 0x10), (USER, NOBODY), (UNIT, NOBODY)),
)
"""What the packet of a cell has where it can."""

_ORDINARY = {Family.IPV4: 0x0A000001, Family.IPV6: 0x20010DB8 << 96 | 1}

_ERRONEOUS = tuple(product((CtState.RELATED,), CtDirection))
"""State and direction of ICMP errors about a session."""

_TRACKED = (
    (CtState.NEW, CtDirection.ORIGINAL),
    *product((CtState.ESTABLISHED,), CtDirection),
    (CtState.RELATED, CtDirection.ORIGINAL),
)
"""Those of a session's own packets."""

_UNTIED = ((CtState.UNTRACKED, None), (CtState.INVALID, None))
"""Those of packets without a session."""


def views_of(hook: str, link: str, family: Family, other_link: str = "") -> Iterator[View]:
    """Yield views that hold all packets that a hook can meet at a link, and from or to another one."""
    own, sessions = (Headers.OWN,), (Ports.PORTED, Ports.OTHER)
    is_ipv6 = family is Family.IPV6
    hidden = (Headers.AUTHENTICATED,) if is_ipv6 else ()
    errors = (Headers.ERROR, Headers.HIDDEN_ERROR) if is_ipv6 else (Headers.ERROR,)
    announced = (Headers.ANNOUNCED,) if is_ipv6 else ()
    broken = ((Headers.BROKEN, Ports.OTHER),) if is_ipv6 else ()
    kinds = chain(
        product(_TRACKED, product((*own, *hidden), sessions)),
        product(_ERRONEOUS, product(errors, sessions)),
        product(((CtState.RELATED, CtDirection.ORIGINAL),), product(announced, sessions)),
        product(_UNTIED, (*product(own, Ports), *broken)),
    )
    for (state, direction), (headers, ports) in kinds:
        view = View(hook, link, family, state, direction, headers, ports, other_link)
        yield view
        if is_ipv6 and direction is None:
            yield replace(view, is_fragment=True)
