"""Views: the kinds of packets that a hook can meet at a link, and what nftables reads in them.

In a view the hook, link, family, conntrack state and direction are settled. All else that a packet can differ
in is a dimension, its far end, or its mark. Dimensions are independent of each other: what depends on
something else, as ports do on the protocol, is in views of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from sgagent.core.addresses import Ranges, holds, ranges_of, without
from sgagent.core.evaluate import Packet, Tracking
from sgagent.core.model import ICMP, ICMPV6, LAST_PORT, PORTED, PORTED_NUMBERS, Direction, Family
from sgagent.nft.ruleset import Selector, TupleDirection
from sgagent.verify.packets import (
    NO_PROTOCOL,
    WITH_INPUT_LINK,
    Box,
    ConntrackEntry,
    Constraints,
    CtDirection,
    CtState,
    Dimension,
    Ends,
    PacketAtHook,
    Phase,
    opened_direction,
    reads_other_link,
)
from sgagent.verify.verified_table import UnsupportedStatementError

PROTOCOL = "protocol"
NEAR_END = "near end"
SOURCE_PORT = "source port"
PORT = "destination port"
ICMP_TYPE = "icmp type"
HOP_LIMIT = "hop limit"
"""A policy can speak of these six, and of the far end. Other dimensions name the place that they are in."""

_ABSENT = -1
"""The value of a field that a packet is too short for."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A field that is the same in all packets of a view."""

    value: int | str


@dataclass(frozen=True, slots=True)
class Read:
    """A field that is a dimension."""

    dimension: Dimension
    needs: Constraints = ()
    """What packets that have the field must have."""


class Special(enum.Enum):
    """Other readings."""

    FAR_END = "far end"
    MARK = "mark"
    NOTHING = "nothing"
    """No packet of the view has the field."""


Reading = Settled | Read | Special


class Headers(enum.Enum):
    """What the header of a packet has to do with its session."""

    OWN = "own"
    """The header is one of the session, on one side of NAT; or there is no session."""

    AUTHENTICATED = "authenticated"
    """Likewise, but an authentication header hides the protocol and ports from nftables."""

    ERROR = "error"
    """It is of an ICMP error about the session."""

    BROKEN = "broken"
    """Extension headers of IPv6 are cut off: there is no protocol, and no session."""


class Ports(enum.Enum):
    """What views differ in besides."""

    PORTED = "ported"
    """The session's protocol is one of those whose ports rules compare."""

    SHORT = "short"
    """Likewise, but the packet is too short to hold ports, or a later fragment."""

    OTHER = "other"
    """Any other protocol; nothing is said about what stands in the place of ports."""


@dataclass(frozen=True, kw_only=True)
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

    @cached_property
    def opened(self) -> Direction:
        """Return which way sessions were opened through the link."""
        return opened_direction(self.hook, self.direction)

    @cached_property
    def box(self) -> Box:
        """Return the values that each dimension can have."""
        addresses: Ranges = ((0, self.family.last_address),)
        ports: Ranges = ((0, LAST_PORT),)
        box: dict[Dimension, Ranges] = dict.fromkeys((NEAR_END, *_ADDRESSES), addresses)
        box |= dict.fromkeys((SOURCE_PORT, PORT, *_TUPLE_PORTS), ports)
        box |= dict.fromkeys(_HEADER_PORTS, _BYTES) | dict.fromkeys((ICMP_TYPE, _HEADER_TYPE), _TYPES)
        box |= {HOP_LIMIT: ((0, 255),), PROTOCOL: _OTHERS if self.ports is Ports.OTHER else _PORTED}
        if self.headers is Headers.BROKEN:
            box |= {PROTOCOL: ((NO_PROTOCOL, NO_PROTOCOL),)} | dict.fromkeys(_HEADER_PORTS, _NONE)
        if self.ports is Ports.SHORT:
            box[SOURCE_PORT] = box[PORT] = _NONE
        if self.direction is not None:
            box[PROTOCOL] = without(box[PROTOCOL], NEVER_TRACKED[self.family])
            box[ICMP_TYPE] = _TYPES_OF_SESSIONS[self.family, self.direction]
        if self.state is CtState.RELATED and self.headers is Headers.OWN:
            error = _ERRORS[self.family].wire_number  # no session of ICMP is expected; errors are views apart
            box[PROTOCOL] = without(box[PROTOCOL], ((error, error),))
        return box

    def read(self, selector: Selector, phase: Phase) -> Reading:
        """Return what an expression reads in packets of the view."""
        match selector.kind:
            case "ct":
                return self._read_ct(selector, phase)
            case "meta":
                return self._read_meta(selector.key)
            case _:
                return self._read_payload(*selector.key.split(), phase=phase)

    def _read_ct(self, selector: Selector, phase: Phase) -> Reading:
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
                return Read(PROTOCOL)
            case key:
                inwards = self.opened is Direction.INGRESS
                is_judged = (selector.tuple_direction is TupleDirection.ORIGINAL) is inwards
                return self._read_tuple(key, is_judged=is_judged)

    def _read_tuple(self, key: str, *, is_judged: bool) -> Reading:
        """Return what a field of a tuple is; the one that the policy judges has the ends on the wire."""
        family, _, end = key.rpartition(" ")
        if family and (family == "ip") is not (self.family is Family.IPV4):
            return Special.NOTHING
        if not is_judged:
            return Read(f"{_OTHER_TUPLE}{_END_OF_KEY[end]}")
        if end == "saddr":
            return Special.FAR_END
        if end == "daddr":
            return Read(NEAR_END)
        if self.ports is Ports.OTHER:
            return Read(f"{_JUDGED_TUPLE}{_END_OF_KEY[end]}")
        inwards = self.opened is Direction.INGRESS
        return Read(SOURCE_PORT if (end == "proto-src") is inwards else PORT)

    def _read_meta(self, key: str) -> Reading:
        match key:
            case "nfproto":
                return Settled(self.family.value)
            case "l4proto":
                return self._protocol_of_header
            case "iifname" | "oifname":
                return Settled(self.other_link if reads_other_link(key, self.hook) else self.link)
            case _:
                raise UnsupportedStatementError(f"meta {key}")

    @property
    def _protocol_of_header(self) -> Reading:
        match self.headers:
            case Headers.OWN:
                return Read(PROTOCOL)
            case Headers.AUTHENTICATED:
                return Settled(_AUTHENTICATION)
            case Headers.ERROR:
                return Settled(_ERRORS[self.family].wire_number)
            case Headers.BROKEN:
                return Special.NOTHING

    def _read_payload(self, header: str, field: str, *, phase: Phase) -> Reading:
        if header in {"ip", "ip6"}:
            if (header == "ip") is not (self.family is Family.IPV4):
                return Special.NOTHING
            return (
                Read(HOP_LIMIT)
                if field == "hoplimit"
                else self._address(is_source=field == "saddr", phase=phase)
            )
        protocol = self._protocol_of_header
        if protocol is Special.NOTHING:
            return protocol
        needs: Constraints = ()
        if header != "th":
            number = _NUMBERS[header]
            if isinstance(protocol, Settled) and protocol.value != number:
                return Special.NOTHING
            if header in _ICMP_FAMILIES and self.family is not _ICMP_FAMILIES[header]:
                return Special.NOTHING
            if isinstance(protocol, Read):
                needs = ((protocol.dimension, ((number, number),)),)
        if header in _ICMP_FAMILIES:
            dimension = ICMP_TYPE if self.headers is Headers.OWN else _HEADER_TYPE
            return Read(dimension, (*needs, (dimension, _PRESENT_TYPES)))
        dimension = self._port(is_source=field == "sport", phase=phase)
        return Read(dimension, (*needs, (dimension, _PRESENT)))

    def _address(self, *, is_source: bool, phase: Phase) -> Reading:
        if self.headers is Headers.ERROR:
            return Read(f"{_HEADER}{'source' if is_source else 'destination'}")
        if self._is_translated(is_source=is_source, phase=phase):
            return Read(f"{_OTHER_TUPLE}source")
        return Special.FAR_END if is_source is self._comes_in else Read(NEAR_END)

    def _port(self, *, is_source: bool, phase: Phase) -> Dimension:
        if self.headers is not Headers.OWN or self.ports is Ports.OTHER:
            return f"{_HEADER}{SOURCE_PORT if is_source else PORT}"
        if self._is_translated(is_source=is_source, phase=phase):
            return f"{_OTHER_TUPLE}{SOURCE_PORT}"
        return SOURCE_PORT if is_source is (self.direction is not CtDirection.REPLY) else PORT

    def _is_translated(self, *, is_source: bool, phase: Phase) -> bool:
        """Return whether an end of the header is as the other tuple has it: on the inner side of NAT."""
        is_inner = phase is Phase.TRANSLATED and self.direction is not None
        return is_inner and is_source is not self._comes_in

    @property
    def _comes_in(self) -> bool:
        return self.hook in WITH_INPUT_LINK

    @property
    def tracking(self) -> Tracking:
        """Return what conntrack says, in the policy's words; the mark says what was allowed before."""
        return Tracking.NEW if self.direction is not None else _TRACKING[self.state]

    def opener(self, values: Mapping[Dimension, int], far_end: int) -> Packet:
        """Return the packet that the policy decides about."""
        inwards = self.opened is Direction.INGRESS
        near_end = values[NEAR_END]
        has_ports = self.ports is Ports.PORTED
        is_session = self.direction is not None
        return Packet(
            interface=self.link,
            direction=self.opened,
            family=self.family,
            source=far_end if inwards else near_end,
            destination=near_end if inwards else far_end,
            protocol=values[PROTOCOL],
            source_port=values[SOURCE_PORT] if has_ports else None,
            destination_port=values[PORT] if has_ports else None,
            icmp_type=None if is_session else self._icmp_type(values),
            hop_limit=None if is_session else values[HOP_LIMIT],
            tracking=self.tracking,
        )

    def _icmp_type(self, values: Mapping[Dimension, int]) -> int | None:
        is_icmp = self.headers is Headers.OWN and values[PROTOCOL] == _ERRORS[self.family].wire_number
        return _present(values[ICMP_TYPE]) if is_icmp else None

    def packet(self, values: Mapping[Dimension, int], far_end: int, mark: int) -> PacketAtHook:
        """Return the packet that has these values."""
        near_end = values[NEAR_END]
        source, destination = (far_end, near_end) if self._comes_in else (near_end, far_end)
        protocol, icmp_type = values[PROTOCOL], self._icmp_type(values)
        if isinstance(self._protocol_of_header, Settled):
            protocol = int(self._protocol_of_header.value)
        if self.headers is Headers.ERROR:
            source, destination = (values[dimension] for dimension in _HEADER_ADDRESSES)
            icmp_type = _present(values[_HEADER_TYPE])
        return PacketAtHook(
            hook=self.hook,
            interface=self.link,
            family=self.family,
            source=source,
            destination=destination,
            protocol=protocol,
            source_port=_present(values[self._port(is_source=True, phase=Phase.WIRE)]),
            destination_port=_present(values[self._port(is_source=False, phase=Phase.WIRE)]),
            icmp_type=icmp_type,
            hop_limit=values[HOP_LIMIT],
            state=self.state,
            session=None if self.direction is None else self._session(values, far_end, mark),
            other_interface=self.other_link,
        )

    def _session(self, values: Mapping[Dimension, int], far_end: int, mark: int) -> ConntrackEntry:
        inwards, is_ported = self.opened is Direction.INGRESS, self.ports is Ports.PORTED
        ports = (SOURCE_PORT, PORT) if inwards else (PORT, SOURCE_PORT)
        if not is_ported:
            ports = (f"{_JUDGED_TUPLE}{SOURCE_PORT}", f"{_JUDGED_TUPLE}{PORT}")
        judged = Ends(
            source=far_end,
            destination=values[NEAR_END],
            source_port=values[ports[0]],
            destination_port=values[ports[1]],
        )
        source, destination, source_port, port = (values[f"{_OTHER_TUPLE}{end}"] for end in _ENDS)
        other = Ends(source=source, destination=destination, source_port=source_port, destination_port=port)
        return ConntrackEntry(
            direction=self.direction or CtDirection.ORIGINAL,
            protocol=values[PROTOCOL],
            original=judged if inwards else other,
            reply=other if inwards else judged,
            mark=mark,
        )

    def values(self, box: Box, far_end: int) -> dict[Dimension, int]:
        """Return values that a packet of a box can have: without NAT, if it can be without."""
        values = {dimension: ranges[0][0] for dimension, ranges in box.items()}
        for dimension, wish in _WISHES:
            values[dimension] = _nearest(box[dimension], wish)
        values[NEAR_END] = _nearest(box[NEAR_END], _ORDINARY[self.family])
        inwards, ports = self.opened is Direction.INGRESS, (SOURCE_PORT, PORT)
        if self.ports is Ports.OTHER:
            ports = (f"{_JUDGED_TUPLE}{SOURCE_PORT}", f"{_JUDGED_TUPLE}{PORT}")
        first, second = ports if not inwards else ports[::-1]
        wishes = (values[NEAR_END], far_end, values[first], values[second])
        for end, wish in zip(_ENDS, wishes, strict=True):
            values[f"{_OTHER_TUPLE}{end}"] = _nearest(box[f"{_OTHER_TUPLE}{end}"], wish)
        return values


def _present(value: int) -> int | None:
    return None if value == _ABSENT else value


def _nearest(ranges: Ranges, wish: int) -> int:
    """Return a number itself where it is in the set, else one that is."""
    return wish if holds(ranges, wish) else ranges[0][0]


_OTHER_TUPLE, _JUDGED_TUPLE, _HEADER = "other tuple's ", "session's ", "header's "
_ENDS = ("source", "destination", SOURCE_PORT, PORT)
_END_OF_KEY = {"saddr": "source", "daddr": "destination", "proto-src": SOURCE_PORT, "proto-dst": PORT}
_HEADER_ADDRESSES = (f"{_HEADER}source", f"{_HEADER}destination")
_HEADER_PORTS = (f"{_HEADER}{SOURCE_PORT}", f"{_HEADER}{PORT}")
_HEADER_TYPE = f"{_HEADER}{ICMP_TYPE}"
_ADDRESSES = (*_HEADER_ADDRESSES, f"{_OTHER_TUPLE}source", f"{_OTHER_TUPLE}destination")
_TUPLE_PORTS = tuple(
    f"{whose}{port}" for whose in (_OTHER_TUPLE, _JUDGED_TUPLE) for port in (SOURCE_PORT, PORT)
)
_BYTES: Ranges = ((_ABSENT, LAST_PORT),)
_TYPES: Ranges = ((_ABSENT, 255),)
_NONE: Ranges = ((_ABSENT, _ABSENT),)
_PRESENT, _PRESENT_TYPES = ((0, LAST_PORT),), ((0, 255),)
_PORTED = ranges_of(PORTED_NUMBERS)
_OTHERS = without(((0, 255),), _PORTED)
_AUTHENTICATION = 51
_ICMP_FAMILIES = {"icmp": Family.IPV4, "icmpv6": Family.IPV6}
_ERRORS = {Family.IPV4: ICMP, Family.IPV6: ICMPV6}
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

_TRACKING = {CtState.UNTRACKED: Tracking.UNTRACKED, CtState.INVALID: Tracking.INVALID}
_WISHES = ((HOP_LIMIT, 64), (SOURCE_PORT, 40_000), (PORT, 443), (PROTOCOL, 6))
"""What the packet of a cell has where it can."""

_ORDINARY = {Family.IPV4: 0x0A000001, Family.IPV6: 0x20010DB8 << 96 | 1}


def views_of(hook: str, link: str, family: Family, other_link: str = "") -> Iterator[View]:
    """Yield views that hold all packets that a hook can meet at a link, and from or to another one."""
    new, original = CtState.NEW, CtDirection.ORIGINAL
    view = View(hook=hook, link=link, family=family, state=new, direction=original, other_link=other_link)
    reply = CtDirection.REPLY
    hidden = (Headers.OWN, Headers.AUTHENTICATED) if family is Family.IPV6 else (Headers.OWN,)
    tracked = ((new, original), (CtState.ESTABLISHED, original), (CtState.ESTABLISHED, reply))
    for state, direction in (*tracked, (CtState.RELATED, original)):
        for headers in hidden:
            yield replace(view, state=state, direction=direction, headers=headers)
            yield replace(view, state=state, direction=direction, headers=headers, ports=Ports.OTHER)
    for direction in (original, reply):
        for ports in (Ports.PORTED, Ports.OTHER):
            related = replace(view, state=CtState.RELATED, direction=direction)
            yield replace(related, headers=Headers.ERROR, ports=ports)
    for state in (CtState.UNTRACKED, CtState.INVALID):
        untied = replace(view, state=state, direction=None)
        for ports in Ports:
            yield replace(untied, ports=ports)
        if family is Family.IPV6:
            yield replace(untied, headers=Headers.BROKEN, ports=Ports.OTHER)
