"""Programs that links hand their packets to (XDP, filters of tc, tcx), and the routes, by rtnetlink."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sgagent.analysis.doctor.facts import DefaultRoute, EarlyProgram, HookKind, RefusingRoute, Routing
from sgagent.core.binding import link_name
from sgagent.core.model import CidrBlock, Family
from sgagent.netlink import NETLINK_ROUTE, Message, NetlinkSocket, attributes

_GET_LINK, _GET_ROUTE, _GET_RULE, _GET_QDISC, _GET_FILTER = 18, 26, 34, 38, 46
_LINK = struct.Struct("=BxHiII")
_TC = struct.Struct("=B3xiIII")
_ROUTE = struct.Struct("=8BI")
_NUMBER = struct.Struct("=I")
_LINK_NAME, _LINK_XDP = 3, 43
_XDP_ATTACHED, _XDP_PROGRAM = 2, 4
_TC_KIND = 1
_HOOKS_OF_TC: Mapping[HookKind, int] = {HookKind.TC_INGRESS: 0xFFFFFFF2, HookKind.TC_EGRESS: 0xFFFFFFF3}
"""The parents of filters at both hooks."""

_QDISCS_WITH_HOOKS = frozenset({"clsact", "ingress"})


def read_programs() -> tuple[EarlyProgram, ...]:
    """Return programs of XDP and filters of tc, in the network namespace of the calling thread; sorted.

    Raises:
        OSError: the kernel refused.
    """
    with NetlinkSocket(NETLINK_ROUTE) as netlink:
        names = dict[int, str]()
        found = list[EarlyProgram]()
        for message in netlink.dump(_GET_LINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            _, _, index, _, _ = _LINK.unpack_from(message.payload)
            about = attributes(message.payload[_LINK.size :])
            names[index] = link_name(bytes(about[_LINK_NAME]).rstrip(b"\0"))
            found += _xdp(names[index], about.get(_LINK_XDP))
        for index in sorted(_links_with_hooks(netlink)):
            if index in names:
                found += _filters(netlink, index, names[index])
    return tuple(sorted(found, key=lambda one: (one.link, one.hook.value, one.what)))


def _xdp(link: str, about: memoryview | None) -> Iterator[EarlyProgram]:
    found = attributes(about) if about is not None else {}
    if any(found.get(_XDP_ATTACHED, b"")):
        number = found.get(_XDP_PROGRAM)
        what = "a program" if number is None else f"program {_NUMBER.unpack(number)[0]}"
        yield EarlyProgram(link=link, hook=HookKind.XDP, what=what)


def _links_with_hooks(netlink: NetlinkSocket) -> set[int]:
    """Return the indexes of links that have a queueing discipline to which such filters can be added."""
    found = set[int]()
    for message in netlink.dump(_GET_QDISC, _TC.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        kind = _kind(message.payload)
        if kind in _QDISCS_WITH_HOOKS:
            found.add(_TC.unpack_from(message.payload)[1])
    return found


def _kind(payload: memoryview) -> str:
    """Return the kind of a queueing discipline or filter."""
    found = bytes(attributes(payload[_TC.size :]).get(_TC_KIND, b""))
    return found.rstrip(b"\0").decode("ascii", "backslashreplace")


def _filters(netlink: NetlinkSocket, index: int, link: str) -> Iterator[EarlyProgram]:
    """Yield the filters at both hooks of a link, each preference and kind once."""
    for hook, parent in _HOOKS_OF_TC.items():
        seen = set[tuple[int, str]]()
        with contextlib.suppress(OSError):  # the link or its discipline has just gone
            for message in netlink.dump(_GET_FILTER, _TC.pack(socket.AF_UNSPEC, index, 0, parent, 0)):
                _, _, _, _, about = _TC.unpack_from(message.payload)
                seen.add((about >> 16, _kind(message.payload)))
        for preference, kind in sorted(seen):
            yield EarlyProgram(link=link, hook=hook, what=f"filter {kind}, preference {preference}")


_BPF_CALL: Mapping[str, int] = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_QUERY = 16
_TCX: Mapping[HookKind, int] = {HookKind.TC_INGRESS: 46, HookKind.TC_EGRESS: 47}
_QUESTION = struct.Struct("=IIIIQI60x")
_LIBC = ctypes.CDLL(None, use_errno=True)


def read_tcx(links: Mapping[str, int]) -> tuple[EarlyProgram, ...]:
    """Return the links with programs that are attached to tc's hooks without a filter.

    Args:
        links: indexes by name.

    Raises:
        PermissionError: the caller may not ask.
        OSError: it can't be asked on this machine.
    """
    call = _BPF_CALL.get(platform.machine())
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    found = list[EarlyProgram]()
    for link, index in sorted(links.items()):
        for hook, attachment in _TCX.items():
            count = _count_programs(call, index, attachment)
            if count:
                found.append(EarlyProgram(link=link, hook=hook, what=f"{count} of tcx"))
    return tuple(found)


def _count_programs(call: int, index: int, attachment: int) -> int:
    """Return how many programs are attached; 0 also where the link has gone or the kernel has no tcx."""
    question = ctypes.create_string_buffer(_QUESTION.pack(index, attachment, 0, 0, 0, 0))
    if _LIBC.syscall(ctypes.c_long(call), ctypes.c_int(_QUERY), question, ctypes.c_uint(len(question) - 1)):
        number = ctypes.get_errno()
        if number in {errno.EINVAL, errno.ENODEV, errno.ENOENT}:
            return 0
        raise OSError(number, os.strerror(number))
    return int(_QUESTION.unpack_from(question)[5])


_MAIN_TABLE = 254
_UNICAST = 1
_PROTOCOL_KERNEL = 2
_DESTINATION, _OUTPUT, _METRIC, _MULTIPATH, _TABLE = 1, 4, 6, 9, 15
_GATEWAYS = {5, 18}
"""Of the route's family, and of another one."""

_RULE_PROTOCOL, _RULE_MARK, _RULE_PRIORITY, _RULE_INPUT, _RULE_OUTPUT, _RULE_VRF = 21, 10, 6, 3, 17, 19
_NEXT_HOP = struct.Struct("=HBBi")
_FAMILY_NUMBERS = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


def read_routing() -> Routing:
    """Return default routes, and whether rules choose tables, of the calling thread's network namespace.

    Raises:
        OSError: the kernel refused.
    """
    with NetlinkSocket(NETLINK_ROUTE) as netlink:
        names = dict(socket.if_nameindex())
        found = [route for family in Family for route in _routes(netlink, family, names)]
        rules = {family: tuple(_rules(netlink, family)) for family in Family}
    routes = [one for one in found if one.kind == _UNICAST]
    networks = [one for one in routes if one.is_network]
    return Routing(
        defaults=tuple(
            DefaultRoute(family=one.family, links=one.links, metric=one.metric)
            for one in routes
            if one.length == 0
        ),
        networks=frozenset((one.family, name) for one in networks for name in one.links),
        is_by_policy=frozenset(family for family, found in rules.items() if found),
        is_by_mark=frozenset(
            family
            for family, found in rules.items()
            if any(_number(one.get(_RULE_MARK), 0) for _, one in found)
        ),
        refusals=(
            *_refusing_rules(rules),
            *(
                RefusingRoute(f"{_REFUSING[one.kind]} {one}", network.links)
                for one in found
                if one.kind in _REFUSING
                for network in networks
                if one.is_within(network)
            ),
        ),
    )


_REFUSING = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
"""Types of routes, and the same of rules."""


@dataclass(frozen=True, slots=True)
class _Route:
    """A route of the main table that leads to a link, or refuses."""

    family: Family
    kind: int
    destination: bytes
    length: int
    links: tuple[str, ...]
    metric: int
    has_gateway: bool

    @property
    def is_network(self) -> bool:
        """Return whether it leads to a network on the link itself."""
        is_of_link = self.destination.startswith(_LINK_LOCAL[self.family])
        return 0 < self.length < self.family.bits and not (self.has_gateway or is_of_link)

    def is_within(self, other: _Route) -> bool:
        """Return whether another route leads to all that this one is for."""
        bits = self.family.bits
        return (
            self.family is other.family
            and self.length >= other.length
            and self._first >> bits - other.length == other._first >> bits - other.length
        )

    @property
    def _first(self) -> int:
        return int.from_bytes(self.destination)

    def __str__(self) -> str:
        """Return the destination."""
        return str(CidrBlock.around(self.family, self._first, self.length))


_LINK_LOCAL = {Family.IPV4: b"\xa9\xfe", Family.IPV6: b"\xfe\x80"}


def _routes(netlink: NetlinkSocket, family: Family, names: Mapping[int, str]) -> Iterator[_Route]:
    for message in dump_family(netlink, _GET_ROUTE, family):
        _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(message.payload)
        about = attributes(message.payload[_ROUTE.size :])
        if kind not in {_UNICAST, *_REFUSING} or _number(about.get(_TABLE), table) != _MAIN_TABLE:
            continue
        ways = {_number(about.get(_OUTPUT), 0): about, **dict(_next_hops(about))}
        yield _Route(
            family=family,
            kind=kind,
            destination=bytes(about.get(_DESTINATION, b"")),
            length=length,
            links=tuple(link_name(os.fsencode(names[index])) for index in sorted(ways.keys() & names.keys())),
            metric=_number(about.get(_METRIC), 0),
            has_gateway=any(_GATEWAYS & one.keys() for one in ways.values()),
        )


def dump_family(netlink: NetlinkSocket, kind: int, family: Family) -> Iterator[Message]:
    """Yield routes or rules of a family; none where the kernel does without it (``ipv6.disable=1``).

    Raises:
        OSError: the kernel refused.
    """
    try:
        yield from netlink.dump(kind, _ROUTE.pack(_FAMILY_NUMBERS[family], 0, 0, 0, 0, 0, 0, 0, 0))
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise


def _next_hops(about: _Attributes) -> Iterator[tuple[int, _Attributes]]:
    """Yield the ways of a route with several: the index of the link, and attributes."""
    value, place = about.get(_MULTIPATH, memoryview(b"")), 0
    while place + _NEXT_HOP.size <= len(value):
        length, _, _, index = _NEXT_HOP.unpack_from(value, place)
        yield index, attributes(value[place + _NEXT_HOP.size : place + length])
        if length < _NEXT_HOP.size:
            return
        place += length + 3 & ~3


def _rules(netlink: NetlinkSocket, family: Family) -> Iterator[_Rule]:
    """Yield the rules that the kernel did not make itself: what each does, and its attributes."""
    for message in dump_family(netlink, _GET_RULE, family):
        about = attributes(message.payload[_ROUTE.size :])
        protocol = about.get(_RULE_PROTOCOL)
        if protocol is not None and protocol[0] != _PROTOCOL_KERNEL:
            yield message.payload[_ACTION_AT], about


_Attributes = Mapping[int, memoryview]
_Rule = tuple[int, _Attributes]
_ACTION_AT = 7


def _refusing_rules(rules: Mapping[Family, Iterable[_Rule]]) -> Iterator[RefusingRoute]:
    """Yield rules that refuse; what a mark or a VRF chooses is not what the policy accepts."""
    for family, found in rules.items():
        for action, about in found:
            if action in _REFUSING and not about.keys() & {_RULE_MARK, _RULE_VRF}:
                link = bytes(about.get(_RULE_INPUT, about.get(_RULE_OUTPUT, b""))).rstrip(b"\0")
                number = _number(about.get(_RULE_PRIORITY), 0)
                text = f"ip {'-6 ' * (family is Family.IPV6)}rule {number}: {_REFUSING[action]}"
                yield RefusingRoute(text, (link_name(link),) if link else ())


def _number(value: memoryview | None, otherwise: int) -> int:
    return otherwise if value is None or len(value) != _NUMBER.size else int(_NUMBER.unpack(value)[0])
