"""Read links and addresses from the kernel's rtnetlink, and notice their changes."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sgagent.core.errors import SgagentError
from sgagent.core.host_facts import HostFacts, Link, link_name
from sgagent.core.model import CidrBlock, Family
from sgagent.netlink import NETLINK_ROUTE, NetlinkSocket, attributes
from sgagent.ports import Wake

_LISTED_WITHIN_SECONDS = 1.0
"""A listing that a change interrupted is made again, for this long at most."""


class LinksUnreadableError(SgagentError):
    """Say that links can't be listed, as they never stop changing."""


class NetlinkHost:
    """Know the links of the network namespace that the calling thread is in; implements :class:`Host`."""

    def facts(self) -> HostFacts:
        """Return what links and addresses there are now.

        Raises:
            LinksUnreadableError: the kernel could not give a complete listing.
        """
        # A socket belongs to the namespace that it was made in; a new one each time never shows another's.
        with NetlinkSocket(NETLINK_ROUTE) as netlink:
            until = time.monotonic() + _LISTED_WITHIN_SECONDS
            while True:
                links = _dump(netlink, _GET_LINK, _LINK.pack(0, 0, 0, 0, 0))
                addresses = (
                    None if links is None else _dump(netlink, _GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0))
                )
                if links is not None and addresses is not None:
                    return read_facts(links, addresses)
                if time.monotonic() >= until:
                    break
        raise LinksUnreadableError("links or addresses changed again whenever they were listed")

    @contextlib.contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` whenever links or addresses changed, until the context is left.

        What changes between the start of the watch and the first ``facts`` is not missed.
        """
        with _change_socket() as changes, _wait_pipe() as (ended, end):
            listener = threading.Thread(
                target=_listen, args=(changes, ended, wake), name="links", daemon=True
            )
            listener.start()
            try:
                yield
            finally:
                os.write(end, b"\0")
                listener.join()


def _dump(netlink: NetlinkSocket, kind: int, payload: bytes) -> tuple[memoryview, ...] | None:
    """Return all messages of a listing; None where a change interrupted it."""
    found = tuple(message.payload for message in netlink.dump(kind, payload))
    return None if netlink.was_interrupted else found


def read_facts(links: Iterable[memoryview], addresses: Iterable[memoryview]) -> HostFacts:
    """Return what rtnetlink's messages, without their headers, say.

    Addresses of links that are not listed, as they went meanwhile, are left out.
    """
    by_index = {told.index: told for told in map(_told, links)}
    carried: dict[int, list[CidrBlock]] = {index: [] for index in by_index}
    for message in addresses:
        family, _, _, _, index = _ADDRESS.unpack_from(message)
        carried.get(index, []).extend(_address(family, attributes(message[_ADDRESS.size :])))
    found = (_link(told, carried[told.index], by_index.get(told.master)) for told in by_index.values())
    return HostFacts(links=tuple(sorted(found, key=lambda link: link.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What the message of a link says."""

    name: str
    index: int
    is_loopback: bool
    mac_address: str | None
    master: int
    """The index of the link that it is a port of; 0 is none."""

    kind: str | None
    """What kind of software link it is: ``bridge``, ``veth`` …; None for hardware."""

    port_kind: str | None
    """What kind of master it says that it is a port of."""

    names_device: bool
    """Whether the kernel says which device stands under it, as sysfs does (``/sys/class/net/eth0/device``),
    but for the right network namespace whatever is mounted. Kernels before 5.14 never do."""


def _told(message: memoryview) -> _Told:
    _, _, index, flags, _ = _LINK.unpack_from(message)
    found = attributes(message[_LINK.size :])
    about = attributes(found.get(_LINKINFO, _NOTHING))
    return _Told(
        name=link_name(bytes(found.get(_IFNAME, _NOTHING)).rstrip(b"\0")),
        index=index,
        is_loopback=bool(flags & _IFF_LOOPBACK),
        mac_address=_mac_address(bytes(found.get(_MAC_ADDRESS, _NOTHING))),
        master=int.from_bytes(found.get(_MASTER, _NOTHING), sys.byteorder),
        kind=_text(about.get(_KIND, _NOTHING)),
        port_kind=_text(about.get(_PORT_KIND, _NOTHING)),
        names_device=_PARENT_DEVICE in found,
    )


def _link(told: _Told, addresses: Iterable[CidrBlock], master: _Told | None) -> Link:
    """Return the link that a message tells of; one without a kind counts as hardware."""
    return Link(
        name=told.name,
        index=told.index,
        mac_address=told.mac_address,
        addresses=tuple(sorted(addresses, key=_address_order)),
        is_loopback=told.is_loopback,
        has_hardware=not told.is_loopback and (told.names_device or told.kind is None),
        master=None if master is None else master.name,
        master_kind=None if master is None else master.kind or told.port_kind,
    )


def _text(value: memoryview) -> str | None:
    """Return a text that ends with a zero; None for an empty one."""
    return bytes(value).rstrip(b"\0").decode("utf-8", "backslashreplace") or None


def _mac_address(octets: bytes) -> str | None:
    """Return the hardware address if it is a MAC; tunnels keep IP addresses in its place."""
    return octets.hex(":") if len(octets) == _MAC_OCTETS and any(octets) else None


def _address(family: int, found: Mapping[int, memoryview]) -> Iterator[CidrBlock]:
    """Return the host's own address; on point-to-point links the plain one is the far end's."""
    octets = bytes(found.get(_LOCAL, found.get(_PLAIN, _NOTHING)))
    if family == socket.AF_INET and len(octets) == _IPV4_OCTETS:
        yield CidrBlock.around(Family.IPV4, int.from_bytes(octets), 32)
    elif family == socket.AF_INET6 and len(octets) == _IPV6_OCTETS:
        yield CidrBlock.around(Family.IPV6, int.from_bytes(octets), 128)


def _address_order(address: CidrBlock) -> tuple[int, int]:
    return (address.family.bits, address.first)


_NOTHING = memoryview(b"")
_GET_LINK, _GET_ADDRESS = 18, 22
_LINK = struct.Struct("=BxHiII")
"""Family, type, index, flags, and which flags are meant."""

_ADDRESS = struct.Struct("=BBBBI")
"""Family, prefix length, flags, scope, and the index of the link."""

_MAC_ADDRESS, _IFNAME, _MASTER, _LINKINFO, _PARENT_DEVICE = 1, 3, 10, 18, 56
_KIND, _PORT_KIND = 1, 4
_PLAIN, _LOCAL = 1, 2
_MAC_OCTETS, _IPV4_OCTETS, _IPV6_OCTETS = 6, 4, 16
_IFF_LOOPBACK = 0x8


def _change_socket() -> socket.socket:
    """Return a socket that the kernel tells changes of links and addresses."""
    changes = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    changes.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    return changes


_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100


@contextlib.contextmanager
def _wait_pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe whose first end becomes readable when something is written to the second."""
    ends = os.pipe2(os.O_CLOEXEC)
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _listen(changes: socket.socket, ended: int, wake: Wake) -> None:
    """Wake at changes until ``ended`` is readable."""
    poll = select.poll()
    poll.register(changes, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while all(descriptor != ended for descriptor, _ in poll.poll()):
        _drain(changes)
        wake()


def _drain(changes: socket.socket) -> None:
    """Take in all that the kernel has told; what it told is not looked at, as facts are always read anew.

    So a message that was lost for want of room (ENOBUFS) costs nothing: its loss is news enough.
    """
    while True:
        try:
            changes.recv(_LONGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


_LONGEST_MESSAGE = 65536
