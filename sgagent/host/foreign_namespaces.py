"""Links of other network namespaces that stand on links of this one, such as a container's macvlan.

The kernel does not tell them of the lower link, so each namespace is entered, in a thread of its own. Only
root may do that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from sgagent.analysis.doctor.facts import ForeignLink
from sgagent.core.binding import link_name
from sgagent.core.link_topology import KINDS_ABOVE
from sgagent.netlink import NETLINK_ROUTE, NetlinkSocket, attribute, attributes

_T = TypeVar("_T")
_PROCESSES = Path("/proc")
_NAMED = (Path("/run/netns"), Path("/run/docker/netns"))
"""Where programs keep namespaces that need have no process."""

_FIRST_PROCESS = 1
"""It is in the host's own."""

_MOST_NAMESPACES = 2_000
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_GET_LINK, _GET_NAMESPACE = 18, 90
_LINK = struct.Struct("=BxHiII")
_SIGNED = struct.Struct("=i")
_NAME, _LOWER, _ABOUT, _LOWER_NAMESPACE = 3, 5, 18, 37
_KIND = 1
_NAMESPACE_NUMBER, _NAMESPACE_DESCRIPTOR = 1, 3
_UNKNOWN = -1


def read_foreign_links(
    lower: Mapping[int, str], most: int = _MOST_NAMESPACES
) -> tuple[tuple[ForeignLink, ...], str | None]:
    """Return the links of other namespaces above links of the calling thread's, and why not all were seen.

    Args:
        lower: the names of links of this namespace, by index.
        most: other namespaces that are looked at.
    """
    found, unseen = list[ForeignLink](), None
    with Path("/proc/thread-self/ns/net").open("rb") as home:
        own = os.fstat(home.fileno()).st_ino
        seen = {own}
        for path, owner in _namespaces():
            try:
                with path.open("rb") as namespace:
                    inode = os.fstat(namespace.fileno()).st_ino
                    if inode in seen:
                        continue
                    if len(seen) > most:
                        unseen = f"only {most:,} namespaces are looked at"
                        break
                    seen.add(inode)
                    enter = partial(_links_in, namespace.fileno(), home.fileno(), owner, lower)
                    found += _in_thread(enter)
            except PermissionError:
                unseen = "only root may enter their namespaces"
            except OSError:
                continue  # it has just gone
    return tuple(sorted(found, key=lambda one: (one.lower, one.owner, one.name))), unseen


def _namespaces() -> Iterator[tuple[Path, str]]:
    """Yield the files of namespaces, with whose they are; one may come several times."""
    for directory in _NAMED:
        with contextlib.suppress(OSError):
            yield from ((path, f"namespace {path.name}") for path in sorted(directory.iterdir()))
    numbers = sorted(int(one.name) for one in _PROCESSES.iterdir() if one.name.isdigit())
    for number in (number for number in numbers if number != _FIRST_PROCESS):
        with contextlib.suppress(OSError):
            name = (_PROCESSES / str(number) / "comm").read_text(encoding="utf-8", errors="replace").strip()
            yield _PROCESSES / str(number) / "ns/net", f"process {number} ({name})"


def _in_thread(work: Callable[[], _T]) -> _T:
    """Return work's result from a thread that ends with it.

    Raises:
        OSError: the work did.
    """
    done, failed = list[_T](), list[OSError]()

    def run() -> None:
        try:
            done.append(work())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _links_in(namespace: int, home: int, owner: str, lower: Mapping[int, str]) -> list[ForeignLink]:
    """Enter a namespace, and return its links above links of home."""
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with NetlinkSocket(NETLINK_ROUTE) as netlink:
        number = _number_of(netlink, home)
        return [] if number == _UNKNOWN else list(_above(netlink, number, owner, lower))


def _number_of(netlink: NetlinkSocket, home: int) -> int:
    """Return the number by which a namespace knows another; -1 if it has none, and so no link above it."""
    request = bytes(4) + attribute(_NAMESPACE_DESCRIPTOR, struct.pack("=I", home))
    answer = netlink.ask(_GET_NAMESPACE, request)
    value = attributes(answer.payload[4:]).get(_NAMESPACE_NUMBER)
    return _UNKNOWN if value is None else int(_SIGNED.unpack(value)[0])


def _above(netlink: NetlinkSocket, home: int, owner: str, lower: Mapping[int, str]) -> Iterator[ForeignLink]:
    for message in netlink.dump(_GET_LINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        found = attributes(message.payload[_LINK.size :])
        below, namespace = (found.get(kind, b"") for kind in (_LOWER, _LOWER_NAMESPACE))
        if len(below) != _SIGNED.size or len(namespace) != _SIGNED.size:
            continue
        name = lower.get(_SIGNED.unpack(below)[0])
        kind = attributes(found.get(_ABOUT, memoryview(b""))).get(_KIND, b"")
        text = bytes(kind).rstrip(b"\0").decode("ascii", "replace")
        if name is not None and _SIGNED.unpack(namespace)[0] == home and text in KINDS_ABOVE:
            link = link_name(bytes(found[_NAME]).rstrip(b"\0"))
            yield ForeignLink(name=link, kind=text, lower=name, owner=owner)
