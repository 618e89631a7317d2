"""Links and addresses of this host by pyroute2, notice of changes, and settings of IPv4 and forwarding."""

from __future__ import annotations

import contextlib
import enum
import errno
import gc
import importlib.util
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from sgagent.core.binding import BridgeHooks, HostFacts, IpvlanMode, Link, link_name
from sgagent.core.conditions import LocalFinder
from sgagent.core.errors import LinksUnreadableError
from sgagent.core.model import CidrBlock, Family
from sgagent.host.units import UnitFinder, list_groups
from sgagent.host.users import find_user
from sgagent.netlink import NETLINK_ROUTE, NetlinkSocket, attribute, attributes
from sgagent.ports import Wake

_LISTED_WITHIN_SECONDS = 1.0
"""How long an interrupted listing is repeated."""


class NetlinkHost:
    """The links of the network namespace that the calling thread is in; implements :class:`Host`.

    While it watches, links are listed again only after a change, as pyroute2 takes 0.1 ms for each.
    """

    def __init__(self, can_ask_for_groups: Callable[[], bool] = lambda: True) -> None:
        """Start without a watch.

        Args:
            can_ask_for_groups: returns whether the kernel has rules for the units of sockets.
        """
        self._watches: list[_Watch] = []
        self._units = UnitFinder(can_ask_for_groups)
        self._find_local = LocalFinder(find_user, self._units.find, list_groups)

    def facts(self) -> HostFacts:
        """List links and addresses.

        Raises:
            LinksUnreadableError: changes interrupted each listing, for a second.
            OSError: the kernel refused.
        """
        watches = tuple(self._watches)
        return watches[-1].facts() if watches else self._list()

    def _list(self) -> HostFacts:
        try:
            return replace(_list_uninterrupted(), find_local=self._find_local)
        finally:
            # Each of pyroute2's messages refers to itself. What outlives a step of the daemon is hardly ever
            # searched for cycles, and a command is over before.
            if gc.isenabled():
                gc.collect(_YOUNG)

    @contextlib.contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` after each change of links or addresses, until the context ends.

        The watch is on the namespace of the calling thread, and so are the facts while it lasts. A change
        between the start of the watch and the first ``facts`` is not missed.
        """
        with _change_socket() as changes:
            ended = os.eventfd(0, os.EFD_CLOEXEC)
            watch = _Watch(changes, self._units, self._list)
            listener = threading.Thread(target=watch.listen, args=(ended, wake), name="links", daemon=True)
            listener.start()
            self._watches.append(watch)
            try:
                yield
            finally:
                self._watches.remove(watch)
                watch.end()
                os.eventfd_write(ended, 1)
                listener.join()
                os.close(ended)


class _Watch:
    """Notices changes, and remembers the facts that were listed after the last one."""

    def __init__(self, changes: socket.socket, units: UnitFinder, list_: Callable[[], HostFacts]) -> None:
        """Take a socket of announcements, the units that were asked for, and what lists links."""
        self._changes = changes
        self._units = units
        self._list = list_
        self._lock = threading.Lock()
        """Held while an announcement is received and counted."""

        self._count = 0
        """How many announcements were received, or lost for want of room."""

        self._listed: tuple[int, HostFacts] | None = None
        """The newest facts, and the count before they were listed."""

        self._has_ended = False

    def facts(self) -> HostFacts:
        """Return the remembered facts if no change was announced since, and new ones otherwise."""
        with self._lock:
            listed, count = self._listed, self._count
            if listed is not None and listed[0] == count and not self._is_outdated():
                hooks = read_bridge_hooks()
                if hooks == listed[1].bridge_hooks:
                    return listed[1]
        facts = self._list()
        self._listed = (count, facts)
        return facts

    def _is_outdated(self) -> bool:
        """Return whether an announcement waits in the socket, or the socket may be closed by now."""
        if self._has_ended:
            return True
        poll = select.poll()
        poll.register(self._changes, select.POLLIN)
        return bool(poll.poll(0))

    def end(self) -> None:
        """Forget the facts, for a thread that still asks this watch."""
        with self._lock:
            self._has_ended = True

    def listen(self, ended: int, wake: Wake) -> None:
        """Wake after each change until ``ended`` is readable; nothing announces some, so they are looked for.

        Settings of br_netfilter each second, and units that rules name ten times as often.
        """
        poll = select.poll()
        poll.register(self._changes, select.POLLIN)
        poll.register(ended, select.POLLIN)
        hooks = read_bridge_hooks()
        while True:
            found = poll.poll(_UNITS_READ_MILLISECONDS if self._units.is_asked else _HOOKS_READ_MILLISECONDS)
            if any(descriptor == ended for descriptor, _ in found):
                return
            while self._receive():
                pass
            before, hooks = hooks, read_bridge_hooks()
            if found or hooks != before or self._units.has_changed():
                wake()

    def _receive(self) -> bool:
        """Receive and count an announcement; return whether there was one.

        Its content is not read, since ``facts`` lists everything. An overflow (ENOBUFS) counts as one.
        """
        with self._lock:
            try:
                self._changes.recv(_LONGEST_MESSAGE)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            self._count += 1
            return True


_YOUNG = 1
"""The garbage collector's generations of what was made since it searched last, which is little."""

_LONGEST_MESSAGE = 65536
_HOOKS_READ_MILLISECONDS = 1000
_UNITS_READ_MILLISECONDS = 100


def _list_uninterrupted() -> HostFacts:
    """List links and addresses, and repeat that if a change interrupts it."""
    pyroute2 = _import_pyroute2()
    until = time.monotonic() + _LISTED_WITHIN_SECONDS
    while True:
        try:
            # pyroute2 serves a socket only in the thread that made it, and it stays in its namespace.
            with pyroute2.nlsocket.NetlinkSocket(NETLINK_ROUTE, nlm_generator=True) as routing:
                link, address = pyroute2.rtnl.ifinfmsg.ifinfmsg, pyroute2.rtnl.ifaddrmsg.ifaddrmsg
                routing.register_policy({_RTM_NEWLINK: link, _RTM_NEWADDR: address})
                routing.bind()
                links = routing.nlm_request(link(), _RTM_GETLINK)
                facts = read_facts(links, routing.nlm_request(address(), _RTM_GETADDR))
                return replace(facts, bridge_hooks=read_bridge_hooks())
        except (pyroute2.exceptions.NetlinkDumpInterrupted, InterruptedListingError) as error:
            if time.monotonic() >= until:
                raise LinksUnreadableError(
                    "links or addresses changed during each listing, for a second"
                ) from error
        except pyroute2.exceptions.NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error


_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_RTM_NEWADDR, _RTM_GETADDR = 20, 22


def _import_pyroute2() -> Any:  # noqa: ANN401 - pyroute2 has no types
    """Import pyroute2's socket and the messages of links and addresses; return its package for netlink.

    Importing the package itself imports all that it has, and ``IPRoute`` most of it: 110 ms for each command
    instead of 60. So the package's place is taken by an empty module while these are imported.
    """
    name = "pyroute2"
    is_first = name not in sys.modules
    if is_first:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        for part in ("nlsocket", "exceptions", "rtnl.ifinfmsg", "rtnl.ifaddrmsg"):
            import_module(f"{name}.netlink.{part}")
        return import_module(f"{name}.netlink")
    finally:
        if is_first:
            del sys.modules[name]


_Message = Any
"""A message of pyroute2, which has no types: header, fields, and attributes by their kernel names."""


class InterruptedListingError(Exception):
    """Say that a change made a listing inconsistent."""


def _whole(messages: Iterable[_Message]) -> Iterator[_Message]:
    """Yield the messages of a listing.

    Raises:
        InterruptedListingError: the kernel marks it as inconsistent, which pyroute2 from 0.9 on ignores.
    """
    for message in messages:
        if message["header"]["flags"] & _NLM_F_DUMP_INTR:
            raise InterruptedListingError
        yield message


_NLM_F_DUMP_INTR = 0x10


def read_facts(links: Iterable[_Message], addresses: Iterable[_Message]) -> HostFacts:
    """Return the facts of pyroute2's messages.

    An address of a link that is not listed is left out, since that link was removed between the two listings.

    Raises:
        InterruptedListingError: a change interrupted a listing.
    """
    listed = {message["index"]: message for message in _whole(links)}
    by_link: dict[int, list[CidrBlock]] = {index: [] for index in listed}
    for message in _whole(addresses):
        by_link.get(message["index"], []).extend(_addresses(message))
    found = (_link(message, by_link[index], listed) for index, message in listed.items())
    members = _members(listed)
    whole = (_member_of(link, members.get(link.index)) for link in found)
    return HostFacts(links=tuple(sorted(whole, key=lambda link: link.name)))


def _members(listed: Mapping[int, _Message]) -> Mapping[int, str]:
    """Return the members of HSR and PRP links, by number: a member itself names no master."""
    return {
        about[place]: _name(message)
        for message in listed.values()
        if _kind(message, "IFLA_INFO_KIND") == _HSR
        for about in (_about_kind(message),)
        for place in _HSR_MEMBERS
        if place in about
    }


def _member_of(link: Link, master: str | None) -> Link:
    """Return a link with a master that only the messages about the master name."""
    if master is None or link.master is not None:
        return link
    return replace(link, master=master, master_kind=_HSR)


_HSR = "hsr"
_HSR_MEMBERS = (1, 2, 8)
"""Attributes of an HSR link: the numbers of both slaves, and of the interlink."""


def _link(message: _Message, addresses: Iterable[CidrBlock], listed: Mapping[int, _Message]) -> Link:
    """Return a link with its addresses, master and lower link; a link without a kind counts as hardware.

    Kernels before 5.14 never name the device under a link. sysfs has the same
    (``/sys/class/net/eth0/device``), but of the namespace in which it was mounted.
    """
    is_loopback = bool(message["flags"] & _IFF_LOOPBACK)
    names_device = any(slot.name == "IFLA_PARENT_DEV_NAME" for slot in message["attrs"])
    own_kind = _kind(message, "IFLA_INFO_KIND")
    has_hardware = not is_loopback and (names_device or own_kind is None)
    about, lower = _about_kind(message), _lower(message, listed)
    octets = _octets(message, "IFLA_ADDRESS")  # of a tunnel, an IP address
    link = Link(
        name=_name(message),
        index=message["index"],
        other_names=tuple(sorted(_other_names(message))),
        mac_address=octets.hex(":") if len(octets) == _MAC_OCTETS and any(octets) else None,
        addresses=tuple(sorted(addresses, key=lambda one: (one.family.bits, one.first))),
        is_loopback=is_loopback,
        has_hardware=has_hardware,
        kind=own_kind,
        lower=None if lower is None else _name(lower),
        ipvlan_mode=_IPVLAN_MODES.get(about.get(_IPVLAN_MODE, 0)) if own_kind in _IPVLANS else None,
        is_vlan_aware=own_kind == "bridge" and bool(about.get(_VLAN_FILTERING)),
        calls_ip_hooks=own_kind == "bridge" and any(about.get(one) for one in _NF_CALLS),
    )
    master = listed.get(message.get_attr("IFLA_MASTER"))
    if master is None:
        return link
    kind = _kind(master, "IFLA_INFO_KIND") or _kind(message, "IFLA_INFO_SLAVE_KIND")
    return replace(link, master=_name(master), master_kind=kind)


def _name(message: _Message) -> str:
    return link_name(_octets(message, "IFLA_IFNAME").rstrip(b"\0"))


def _other_names(message: _Message) -> Iterator[str]:
    """Yield the alternative names of a link."""
    properties = message.get_attr("IFLA_PROP_LIST")
    for octets in _values(properties, "IFLA_ALT_IFNAME") if properties else ():
        yield link_name(octets.rstrip(b"\0"))


def _kind(message: _Message, name: str) -> str | None:
    """Return the kind of a software link or of a port's master: ``bridge``, ``veth`` …; None for hardware."""
    about = message.get_attr("IFLA_LINKINFO")
    return about and (_octets(about, name).rstrip(b"\0").decode("utf-8", "backslashreplace") or None)


def _lower(message: _Message, listed: Mapping[int, _Message]) -> _Message | None:
    """Return the link under a link, if it is in this namespace; IFLA_LINK of a veth is its other end."""
    if _kind(message, "IFLA_INFO_KIND") in _WITH_PEER or message.get_attr("IFLA_LINK_NETNSID") is not None:
        return None
    return listed.get(message.get_attr("IFLA_LINK"))


_WITH_PEER = frozenset({"veth", "netkit", "vxcan"})


def _about_kind(message: _Message) -> Mapping[int, int]:
    """Return the numbers among the attributes of a link's kind, by the kernel's numbers for them."""
    about = message.get_attr("IFLA_LINKINFO")
    data = _octets(about, "IFLA_INFO_DATA") if about else b""
    found = attributes(memoryview(data))
    return {
        kind: int.from_bytes(value, sys.byteorder)
        for kind, value in found.items()
        if len(value) <= _LONGEST_NUMBER
    }


_LONGEST_NUMBER = 4
_IPVLANS = frozenset({"ipvlan", "ipvtap"})
_IPVLAN_MODE = 1
_IPVLAN_MODES: Mapping[int, IpvlanMode] = dict(enumerate(IpvlanMode))
_VLAN_FILTERING = 7
_NF_CALLS = (36, 37)
"""Attributes of a bridge: its own nf_call_iptables and nf_call_ip6tables."""


def _octets(message: _Message, name: str) -> bytes:
    """Return an attribute before pyroute2 decodes it; nothing if it is absent.

    Its decoder takes the first 6 of InfiniBand's 20 octets for a MAC, and logs a traceback for a tunnel's 4.
    """
    return next(_values(message, name), b"")


def _values(message: _Message, name: str) -> Iterator[bytes]:
    """Yield the values of all attributes of a name, before pyroute2 decodes them."""
    for slot in message["attrs"]:
        if slot.name == name:
            _, attribute = slot.cell
            yield bytes(attribute.data[attribute.offset + 4 : attribute.offset + attribute.length])


def _addresses(message: _Message) -> Iterator[CidrBlock]:
    """Return this host's address; on point-to-point links IFA_ADDRESS is the peer's."""
    octets = _octets(message, "IFA_LOCAL") or _octets(message, "IFA_ADDRESS")
    family = _FAMILIES.get(message["family"])
    if family is not None and 8 * len(octets) == family.bits:
        yield CidrBlock.around(family, int.from_bytes(octets), family.bits)


_FAMILIES: Mapping[int, Family] = {socket.AF_INET: Family.IPV4, socket.AF_INET6: Family.IPV6}
_MAC_OCTETS = 6
_IFF_LOOPBACK = 0x8


def _change_socket() -> socket.socket:
    """Return a socket on which the kernel announces changes of links and addresses.

    It is not pyroute2's: nothing of an announcement is read, and pyroute2's cannot be used any more after an
    overflow (from 0.9 on), nor in another thread than the one that made it.
    """
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    changes = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    changes.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    return changes


_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100


_FORWARDING: Mapping[Family, tuple[str, ...]] = {
    Family.IPV4: ("ipv4/conf/*/forwarding",),
    Family.IPV6: ("ipv6/conf/all/forwarding", "ipv6/conf/*/force_forwarding"),
}
"""The settings that make a host forward from any link, or from one."""


def has_links_behind(facts: HostFacts) -> bool:
    """Return whether packets that come in by one link could go on to another."""
    return sum(not link.is_loopback for link in facts.links) > 1


def read_forwarding(directory: Path = Path("/proc/sys/net")) -> tuple[Family, ...]:
    """Return the families that this host forwards, in the network namespace of the calling process.

    Args:
        directory: of the kernel's network settings.
    """
    return tuple(
        family
        for family, names in _FORWARDING.items()
        if any(_is_set(path) for name in names for path in directory.glob(name))
    )


def read_bridge_hooks(directory: Path = Path("/proc/sys/net/bridge")) -> BridgeHooks:
    """Return the settings of br_netfilter, in the network namespace of the calling thread.

    Args:
        directory: of its settings, which is not there where the module is not loaded.
    """
    names = {Family.IPV4: "bridge-nf-call-iptables", Family.IPV6: "bridge-nf-call-ip6tables"}
    return BridgeHooks(
        families=tuple(family for family, name in names.items() if _is_set(directory / name)),
        tagged=_is_set(directory / "bridge-nf-filter-vlan-tagged"),
    )


def _is_set(path: Path) -> bool:
    """Return whether a setting is not 0; that of a link that has just gone is 0."""
    try:
        return path.read_text(encoding="ascii").strip() != "0"
    except FileNotFoundError:
        return False


class Ipv4Setting(enum.Enum):
    """A setting in ``net.ipv4.conf.LINK``, with its number in linux/ip.h."""

    RP_FILTER = 8
    ACCEPT_LOCAL = 23
    ROUTE_LOCALNET = 26


def set_ipv4(link: str, values: Mapping[Ipv4Setting, int]) -> None:
    """Set settings of a link in the network namespace of the calling thread.

    Raises:
        OSError: the link does not exist, or the kernel refused.
    """
    settings = b"".join(attribute(one.value, struct.pack("=I", value)) for one, value in values.items())
    of_family = attribute(socket.AF_INET, attribute(_INET_CONF, settings))
    header = _LINK.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex(link), 0, 0)
    with NetlinkSocket(NETLINK_ROUTE) as netlink:
        errors = netlink.order([(_SET_LINK, header + attribute(_AF_SPEC, of_family))])
    if errors:
        raise OSError(errors[0], os.strerror(errors[0]), link)


_SET_LINK = 19
_LINK = struct.Struct("=BxHiII")
_AF_SPEC = 26
_INET_CONF = 1
