"""Read links and addresses from the kernel's rtnetlink, and notice their changes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
import threading
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Protocol

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_DUMP_INTR
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from sgagent.core.errors import SgagentError
from sgagent.core.host import HostFacts, Link
from sgagent.core.model import CidrBlock, Family
from sgagent.ports import Wake

_DUMPS_TRIED = 10
"""A dump that a change interrupted is made again, this often at most."""


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
        with IPRoute() as netlink:
            for _ in range(_DUMPS_TRIED):
                with contextlib.suppress(NetlinkDumpInterrupted):
                    links, addresses = tuple(netlink.get_links()), tuple(netlink.get_addr())
                    if not any(map(_is_interrupted, (*links, *addresses))):
                        return read_facts(links, addresses)
        raise LinksUnreadableError(f"the list of links was interrupted {_DUMPS_TRIED} times")

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


class _Message(Protocol):
    """What both versions of pyroute2 give for a link or an address."""

    def __getitem__(self, field: str) -> object: ...

    def get_attr(self, name: str) -> object: ...

    def get_nested(self, *names: str) -> object: ...


def _is_interrupted(message: _Message) -> bool:
    """Tell whether the kernel says that the listing which this is part of changed meanwhile."""
    header = message["header"]
    flags = header.get("flags", 0) if isinstance(header, dict) else 0
    return bool(flags & NLM_F_DUMP_INTR)


def read_facts(links: Iterable[_Message], addresses: Iterable[_Message]) -> HostFacts:
    """Return what rtnetlink's messages say.

    Addresses of links that are not listed, as they went meanwhile, are left out.
    """
    links = tuple(links)
    by_index = {link["index"]: link for link in links}
    carried: dict[object, list[CidrBlock]] = {index: [] for index in by_index}
    for message in addresses:
        carried.get(message["index"], []).extend(_address(message))
    found = (
        _link(message, carried[message["index"]], by_index.get(message.get_attr("IFLA_MASTER")))
        for message in links
    )
    return HostFacts(links=tuple(sorted(found, key=lambda link: link.name)))


def _link(message: _Message, addresses: Iterable[CidrBlock], master: _Message | None) -> Link:
    """Return the link of a message."""
    is_loopback = bool(_number(message["flags"]) & _IFF_LOOPBACK)
    return Link(
        name=_name(message),
        index=_number(message["index"]),
        mac_address=_mac_address(message),
        addresses=tuple(sorted(addresses, key=_address_order)),
        is_loopback=is_loopback,
        has_hardware=not is_loopback and _has_hardware(message),
        master=None if master is None else _name(master),
        master_kind=None if master is None else _kind(master) or _port_kind(message),
    )


def _name(message: _Message) -> str:
    return str(message.get_attr("IFLA_IFNAME"))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _mac_address(message: _Message) -> str | None:
    """Return the hardware address if it is a MAC; tunnels keep IP addresses in its place."""
    text = str(message.get_attr("IFLA_ADDRESS") or "").lower()
    return text if _MAC.fullmatch(text) and text != _NO_MAC else None


def _has_hardware(message: _Message) -> bool:
    """Tell whether a device stands under the link.

    The kernel names that device, as sysfs does (``/sys/class/net/eth0/device``), but for the right network
    namespace whatever is mounted. Kernels before 5.14 don't; there a link without a kind counts as hardware.
    """
    return message.get_attr("IFLA_PARENT_DEV_NAME") is not None or _kind(message) is None


def _kind(message: _Message) -> str | None:
    """Return what kind of software link it is: ``bridge``, ``veth`` …; None for hardware."""
    return _text(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND"))


def _port_kind(message: _Message) -> str | None:
    """Return what kind of master the link says it is a port of."""
    return _text(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_KIND"))


def _text(value: object) -> str | None:
    return str(value) if value else None


def _address(message: _Message) -> Iterator[CidrBlock]:
    """Return the host's own address; on point-to-point links the plain one is the far end's."""
    text = _text(message.get_attr("IFA_LOCAL")) or _text(message.get_attr("IFA_ADDRESS"))
    family = _FAMILIES.get(_number(message["family"]))
    if text is not None and family is not None:
        yield CidrBlock(family, ip_network(text))


def _address_order(address: CidrBlock) -> tuple[int, int]:
    return (address.family.bits, address.first)


_IFF_LOOPBACK = 0x8
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NO_MAC = "00:00:00:00:00:00"
_FAMILIES = {int(socket.AF_INET): Family.IPV4, int(socket.AF_INET6): Family.IPV6}


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
