"""The private network of a policy test: links of the policy's names, and a counter at the edge of each.

Each link is one end of a veth pair, and everything that leaves the other end is dropped. A table of the test
has hooks before and after those of the policy. The first drops packets that the test did not send. The last
counts what passed, and drops what must open no session before conntrack confirms it, so that each packet is
the first of its session.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sgagent.core.errors import NotPermittedError, RehearsalError
from sgagent.core.model import Direction
from sgagent.core.policy import LOOPBACK
from sgagent.dataplane.counter_messages import CounterReading
from sgagent.dataplane.generation import RulesetGeneration
from sgagent.dataplane.libnftables import Context
from sgagent.host.links import Ipv4Setting, set_ipv4
from sgagent.policy_test.packet_bytes import WirePacket

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_NEAR, _FAR = "01", "02"
"""The ends of a pair, in MAC addresses."""

_SENDER_MAC = "02:00:00:03:00:00"
_MARK = 0x5347
"""The mark on packets that the test sends from the host, since the host's stack sends some of its own."""

_SO_MARK = 36
_LOCAL_TABLE = 253
_DEADLINE_SECONDS = 5.0
_IDENTITY = 1
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_FOREVER = 0x80
"""The state of a neighbour that the kernel never probes (NUD_PERMANENT)."""

_NO_DUPLICATE_DETECTION = 0x02
"""The flag of an IPv6 address that is usable at once (IFA_F_NODAD)."""

_NO_GENERATED_ADDRESS = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}
"""The setting of a link that gets no link-local address, and so sends nothing of its own."""

_OF_ALL_LINKS = (
    ("net.ipv4.conf.all.rp_filter", 0, (2,)),
    ("net.ipv6.conf.all.disable_ipv6", 0, ()),
    ("net.ipv6.conf.default.disable_ipv6", 0, ()),
)
"""Settings of all links: the name, the value that the test writes, and other values that it accepts.

A new network namespace usually has the first value. Where /proc/sys is read-only the test cannot write it.
"""

_OF_EACH_LINK = {Ipv4Setting.RP_FILTER: 0, Ipv4Setting.ACCEPT_LOCAL: 1, Ipv4Setting.ROUTE_LOCALNET: 1}
"""Settings of each link, so that the kernel accepts packets of any source."""

TABLE = "policy_test"
_TABLE_TEXT = """
add table inet {table}
delete table inet {table}
table inet {table} {{
    counter arrived {{ }}
    counter passed {{ }}
    chain wire {{
        type filter hook prerouting priority -450; policy accept;
        iifname {{ {far} }} drop
        iifname {{ {near} }} ether saddr != {sender} drop
        iifname {{ {near} }} counter name arrived
    }}
    chain stack {{
        type filter hook output priority -450; policy accept;
        meta mark != {mark} drop
        counter name arrived
    }}
    chain entered {{
        type filter hook prerouting priority -149; policy accept;
        iifname {{ {near} }} counter name passed {then}
    }}
    chain left {{
        type filter hook postrouting priority 301; policy accept;
        oifname {{ {near} }} counter name passed {then}
    }}
}}
"""


class UnsentError(Exception):
    """Say that the kernel sends or accepts no such packet, and why."""


def enter_private_network() -> None:
    """Move this process into a new network namespace, which the kernel removes when the process ends.

    Another user than root first makes a user namespace, and is root in it. The process must have one thread.

    Raises:
        NotPermittedError: the host allows neither; the message says what is missing.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0 and not _unshare(_CLONE_NEWNET):
        return
    fault = _unshare(_CLONE_NEWUSER | _CLONE_NEWNET) or _become_root(user, group)
    if fault:
        raise NotPermittedError(
            f"a private network needs root, or user namespaces, which this host does not allow: {fault}"
        )


def _become_root(user: int, group: int) -> str | None:
    """Map this user to root of the new user namespace; return the reason if that fails."""
    try:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")
    except OSError as error:
        return str(error)
    return None


def _unshare(flags: int) -> str | None:
    """Move this process into new namespaces; return the reason if that fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    return os.strerror(ctypes.get_errno()) if libc.unshare(flags) else None


@dataclass(slots=True)
class Network:
    """The links of a policy in the network namespace of this process."""

    links: tuple[str, ...]
    context: Context
    _far_ends: Mapping[str, str] = field(init=False)
    """The name of the other end of each link."""

    _generation: RulesetGeneration = field(default_factory=RulesetGeneration)
    _frames: dict[str, socket.socket] = field(default_factory=dict)
    _datagrams: dict[tuple[str, int], socket.socket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose names for the far ends that no link has."""
        free = (name for number in itertools.count() if (name := f"far{number}") not in self.links)
        self._far_ends = dict(zip(self.links, free, strict=False))

    def build(self) -> None:
        """Make the links and their routes.

        Raises:
            NotPermittedError: the process may not change this namespace.
            RehearsalError: the kernel refused for another reason.
        """
        from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415 - 0.1 s, which only the child process pays

        try:
            _set_parameters()
            with IPRoute() as routing:
                loopback = socket.if_nametoindex(LOOPBACK)
                routing.link("set", index=loopback, state="up")
                for number, name in enumerate(self.links):
                    index = _add_pair(routing, name, self._far_ends[name], number)
                    set_ipv4(name, _OF_EACH_LINK)
                    for version in (4, 6):
                        _add_default_route(routing, index, name, number, version)
                for version in (4, 6):
                    _add_local_default(routing, loopback, version)
        except NetlinkError as error:
            kind = NotPermittedError if error.code in (errno.EPERM, errno.EACCES) else RehearsalError
            raise kind(f"a private network can't be set up: {os.strerror(error.code)}") from error
        except OSError as error:
            raise RehearsalError(f"a private network can't be set up: {error}") from error

    def watch(self, *, keeps_sessions: bool) -> None:
        """Reset the counters; packets that pass open sessions only if ``keeps_sessions``."""
        self.context.load(
            _TABLE_TEXT.format(
                table=TABLE,
                near=_quoted(self.links),
                far=_quoted(self._far_ends.values()),
                sender=_SENDER_MAC,
                mark=_MARK,
                then="accept" if keeps_sessions else "drop",
            )
        )

    def passes(self, packet: WirePacket, link: str, direction: Direction) -> bool:
        """Send a packet through a link; return whether it passed the edge.

        Raises:
            UnsentError: the kernel sends or accepts no such packet.
        """
        before = self.count_packets(TABLE)
        if direction is Direction.INGRESS:
            self._send_in(packet, link)
        else:
            self._send_out(packet, link)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while (counts := self.count_packets(TABLE))["arrived"] == before["arrived"]:
            if time.monotonic() > deadline:
                raise UnsentError("the kernel takes no such packet: it never got to the edge")
            time.sleep(0.001)  # noqa: TID251 - between two looks at the counter; the deadline bounds them
        return counts["passed"] > before["passed"]

    def close(self) -> None:
        """Close the sockets."""
        for opened in (self._generation, *self._frames.values(), *self._datagrams.values()):
            opened.close()

    def count_packets(self, table: str) -> Mapping[str, int]:
        """Return the packet count of each counter of a table."""
        found = CounterReading().read(self._generation.list_counters(table))
        return {name: value.packets for name, value in found.items()}

    def _send_in(self, packet: WirePacket, link: str) -> None:
        """Send a frame from the far end."""
        number = self.links.index(link)
        if link not in self._frames:
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            wire.bind((self._far_ends[link], 0))
            self._frames[link] = wire
        kind = 0x0800 if packet.source.version == 4 else 0x86DD
        ends = f"{_mac(_NEAR, number)}{_SENDER_MAC}"
        header = bytes.fromhex(ends.replace(":", "")) + struct.pack("!H", kind)
        for datagram in packet.datagrams(_IDENTITY):
            self._frames[link].send(header + datagram)

    def _send_out(self, packet: WirePacket, link: str) -> None:
        """Send a datagram as a program of the host would."""
        if packet.source.version == 4 and packet.source.is_unspecified:
            raise UnsentError("the kernel sends nothing from 0.0.0.0: it puts an address of its own there")
        raw = self._datagram_socket(link, packet.source.version)
        for datagram in packet.datagrams(_IDENTITY):
            # The kernel reports a drop in the output hook to the sender as EPERM.
            try:
                with contextlib.suppress(PermissionError):
                    raw.sendto(datagram, (str(packet.destination), 0))
            except OSError as error:
                raise UnsentError(f"the kernel sends no such packet: {error.strerror}") from error

    def _datagram_socket(self, link: str, version: int) -> socket.socket:
        if (link, version) not in self._datagrams:
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            raw.setsockopt(socket.SOL_SOCKET, _SO_MARK, _MARK)
            self._datagrams[link, version] = raw
        return self._datagrams[link, version]


def _set_parameters() -> None:
    """Set parameters of all links so that the namespace accepts any source and both families.

    Raises:
        NotPermittedError: a parameter has an unsuitable value and is read-only.
        OSError: the kernel has no such parameter.
    """
    for name, wanted, bearable in _OF_ALL_LINKS:
        path = Path("/proc/sys", *name.split("."))
        found = int(path.read_text(encoding="ascii"))
        if found == wanted:
            continue
        try:
            path.write_text(f"{wanted}\n", encoding="ascii")
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.EROFS):
                raise
            if found not in bearable:
                fault = f"{path} has to be {wanted} here, and can't be written: {error.strerror}"
                raise NotPermittedError(f"a private network can't be set up: {fault}") from error


def _quoted(names: Iterable[str]) -> str:
    """Return names of links in nft's syntax; a checked name contains no quotation mark."""
    return ", ".join(f'"{name}"' for name in names)


def _add_pair(routing: IPRoute, name: str, far: str, number: int) -> int:
    """Make a veth pair without addresses; return the index of its near end."""
    peer = {"ifname": far, "address": _mac(_FAR, number)}
    routing.link("add", ifname=name, kind="veth", address=_mac(_NEAR, number), peer=peer)
    for end in (name, far):
        index = socket.if_nametoindex(end)
        routing.link("set", index=index, IFLA_AF_SPEC=_NO_GENERATED_ADDRESS)
        routing.link("set", index=index, state="up")  # apart: in one request the kernel sets this first
    return socket.if_nametoindex(name)


def _add_default_route(routing: IPRoute, index: int, name: str, number: int, version: int) -> None:
    """Route every destination of a family out of a link, and every packet from it to this host."""
    family, length = _FAMILIES[version]
    own, gateway = (_gateway(number, version, place) for place in (1, 2))
    flags = {"flags": _NO_DUPLICATE_DETECTION} if version == 6 else {}
    routing.addr("add", index=index, address=own, prefixlen=length, family=family, **flags)
    routing.neigh(
        "replace", dst=gateway, lladdr=_mac(_FAR, number), ifindex=index, state=_FOREVER, family=family
    )
    routing.route(
        "add", dst=_EVERYWHERE[version], gateway=gateway, oif=index, priority=100 + number, family=family
    )
    routing.rule("add", iifname=name, table=_LOCAL_TABLE, family=family)


def _add_local_default(routing: IPRoute, loopback: int, version: int) -> None:
    """Deliver every destination of a family to this host, in the table of packets from the links."""
    family, _ = _FAMILIES[version]
    scope = {"scope": _HOST_SCOPE} if version == 4 else {}
    everywhere = _EVERYWHERE[version]
    routing.route(
        "add", dst=everywhere, oif=loopback, table=_LOCAL_TABLE, type="local", family=family, **scope
    )


_FAMILIES = {4: (socket.AF_INET, 30), 6: (socket.AF_INET6, 64)}
"""The address family and prefix length of each IP version."""

_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
_HOST_SCOPE = 254


def _gateway(number: int, version: int, place: int) -> str:
    """Return the address of one end of a pair: not a documentation range, which tests use."""
    if version == 4:
        return f"172.31.{254 - number // 64}.{4 * (number % 64) + place}"
    return f"fe80::5347:{number:x}:{place}"


def _mac(end: str, number: int) -> str:
    """Return the address of one end of a pair."""
    return f"02:00:00:{end}:{number >> 8:02x}:{number & 0xFF:02x}"
