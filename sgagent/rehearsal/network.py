"""Build, in a private network, the links of a policy, and see what gets past the edge of each.

Every link is one end of a pair; whatever comes out of the other end is thrown away. A table of the
rehearsal's own stands before and behind the hooks that judge: before them it keeps out all that the rehearsal
did not send, behind them it counts what passed. What is to open no session it throws away there, before
anything confirms it, so that each packet is the first of its session.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sgagent.core.errors import NotPermittedError, RehearsalError, UsageError
from sgagent.core.model import Direction
from sgagent.dataplane.libnftables import Context
from sgagent.host.linksettings import Ipv4Setting, set_ipv4
from sgagent.rehearsal.wire import WirePacket

_NEAR_MAC = "02:00:00:00:01:%02x"
_FAR_MAC = "02:00:00:00:02:%02x"
_SENDER_MAC = "02:00:00:00:03:00"
_MARK = 0x5347
"""On what the rehearsal sends from the host; the host's own stack says a word of its own now and then."""

_SO_MARK = 36
_LOCAL_TABLE = 253
_DEADLINE_SECONDS = 5.0
_IDENTITY = 1
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_OF_ALL_LINKS = (
    ("net.ipv4.conf.all.rp_filter", 0, (2,)),
    ("net.ipv6.conf.all.disable_ipv6", 0, ()),
    ("net.ipv6.conf.default.disable_ipv6", 0, ()),
)
"""What holds for every link beside its own settings: a name, the value that is needed, and others that do.

A new network namespace usually has these values. They can only be written where /proc/sys is writable.
"""

_OF_EACH_LINK = {Ipv4Setting.RP_FILTER: 0, Ipv4Setting.ACCEPT_LOCAL: 1, Ipv4Setting.ROUTE_LOCALNET: 1}
"""No source is suspect."""

TABLE = "rehearsal"
_TABLE_TEXT = """
destroy table inet {table}
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
    """Say that the kernel sends, or takes, no such packet, and why."""


@dataclass(slots=True)
class Network:
    """The links of a policy in the namespace that this process is in."""

    links: tuple[str, ...]
    context: Context
    _far_ends: Mapping[str, str] = field(init=False)
    """The names of the other ends, by link."""

    _frames: dict[str, socket.socket] = field(default_factory=dict)
    _datagrams: dict[tuple[str, int], socket.socket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find names for the far ends that no link has."""
        free = (name for number in itertools.count() if (name := f"far{number}") not in self.links)
        self._far_ends = dict(zip(self.links, free, strict=False))

    def build(self) -> None:
        """Make the links, with ways to everywhere.

        Raises:
            NotPermittedError: the namespace gives no rights.
            UsageError: the program ip is not installed.
        """
        _set_parameters()
        _ip("link set lo up")
        for number, name in enumerate(self.links):
            _ip(*_link_lines(name, self._far_ends[name], number))
            _set_link_parameters(name)
            for version in (4, 6):
                _ip(*_way_lines(name, number, version), version=version)
        for version in (4, 6):
            _ip(f"route add local default dev lo table {_LOCAL_TABLE}", version=version)

    def watch(self, *, keeps_sessions: bool) -> None:
        """Count anew what passes, and let it open sessions or not."""
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
        """Send a packet through a link and return whether it got past the edge.

        Raises:
            UnsentError: the kernel sends or takes no such packet.
        """
        before = self._counts()
        if direction is Direction.INGRESS:
            self._send_in(packet, link)
        else:
            self._send_out(packet, link)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while (counts := self._counts())["arrived"] == before["arrived"]:
            if time.monotonic() > deadline:
                raise UnsentError("the kernel takes no such packet: it never got to the edge")
            time.sleep(0.001)  # noqa: TID251 - between two looks at the counter; the deadline bounds them
        return counts["passed"] > before["passed"]

    def close(self) -> None:
        """Close the sockets that packets were sent by."""
        for opened in (*self._frames.values(), *self._datagrams.values()):
            opened.close()

    def _counts(self) -> Mapping[str, int]:
        return packets_by_counter(self.context.list_counters(TABLE))

    def _send_in(self, packet: WirePacket, link: str) -> None:
        """Put a frame on the wire at the far end."""
        number = self.links.index(link)
        if link not in self._frames:
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            wire.bind((self._far_ends[link], 0))
            self._frames[link] = wire
        kind = 0x0800 if packet.source.version == 4 else 0x86DD
        header = _mac(_NEAR_MAC % number) + _mac(_SENDER_MAC) + struct.pack("!H", kind)
        for datagram in packet.datagrams(_IDENTITY):
            self._frames[link].send(header + datagram)

    def _send_out(self, packet: WirePacket, link: str) -> None:
        """Send a datagram as a program of the host would."""
        if packet.source.version == 4 and packet.source.is_unspecified:
            raise UnsentError("the kernel sends nothing from 0.0.0.0: it puts an address of its own there")
        raw = self._datagram_socket(link, packet.source.version)
        for datagram in packet.datagrams(_IDENTITY):
            # Who drops it, the policy or the rehearsal, has the sender told so.
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
    """Have all links of the namespace take any source and both families.

    Raises:
        NotPermittedError: a parameter has another value and can't be written.
        RehearsalError: the kernel has no such parameter.
    """
    for name, wanted, bearable in _OF_ALL_LINKS:
        path = Path("/proc/sys", *name.split("."))
        try:
            found = int(path.read_text(encoding="ascii"))
            if found != wanted:
                _write_parameter(path, wanted, is_needed=found not in bearable)
        except OSError as error:
            raise RehearsalError(f"a private network can't be set up: {error}") from error


def _write_parameter(path: Path, value: int, *, is_needed: bool) -> None:
    try:
        path.write_text(f"{value}\n", encoding="ascii")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EROFS):
            raise
        if is_needed:
            raise NotPermittedError(
                f"a private network can't be set up: {path} has to be {value} here, and can't be written:"
                f" {error.strerror}"
            ) from error


def _set_link_parameters(link: str) -> None:
    try:
        set_ipv4(link, _OF_EACH_LINK)
    except OSError as error:
        raise RehearsalError(f"a private network can't be set up: {error}") from error


def packets_by_counter(listing: bytes | None) -> Mapping[str, int]:
    """Return the packets of each counter of a listing."""
    found = json.loads(listing)["nftables"] if listing else ()
    counters = (entry["counter"] for entry in found if "counter" in entry)
    return {counter["name"]: counter["packets"] for counter in counters}


def _quoted(names: Iterable[str]) -> str:
    """Return names of links as nft's grammar has them; they hold nothing that ends a quotation."""
    return ", ".join(f'"{name}"' for name in names)


def _link_lines(name: str, far: str, number: int) -> Sequence[str]:
    """Return what makes a pair of links whose near end is called as the policy says."""
    near = f"name {name} address {_NEAR_MAC % number}"
    return (
        f"link add {near} type veth peer name {far} address {_FAR_MAC % number}",
        *(
            f"link set dev {end} addrgenmode none up" for end in (name, far)
        ),  # they are quiet without addresses
    )


def _way_lines(name: str, number: int, version: int) -> Sequence[str]:
    """Return what leads everything of a family out of a link, and what comes in to the host itself."""
    own, gateway = (_gateway(number, version, place) for place in (1, 2))
    own += "/30" if version == 4 else "/64"
    nodad = "" if version == 4 else " nodad"
    return (
        f"address add {own} dev {name}{nodad}",
        f"neighbour replace {gateway} lladdr {_FAR_MAC % number} dev {name} nud permanent",
        f"route add default via {gateway} dev {name} metric {100 + number}",
        f"rule add iif {name} lookup {_LOCAL_TABLE}",
    )


def _gateway(number: int, version: int, place: int) -> str:
    """Return an address of one end of a wire, which is no address of anybody's tests."""
    if version == 4:
        return f"172.31.{254 - number // 64}.{4 * (number % 64) + place}"
    return f"fe80::5347:{number:x}:{place}"


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip(*lines: str, version: int | None = None) -> None:
    """Carry out lines of the program ip, up to the first that fails."""
    program = shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:{_PATH}")
    if program is None:
        raise UsageError("the program ip is not installed (install iproute2)")
    done = subprocess.run(  # noqa: S603 - names of links are checked where they are read
        [program, *(() if version is None else (f"-{version}",)), "-batch", "-"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"exit {done.returncode}"
        if "not permitted" in reason:
            raise NotPermittedError(f"a private network can't be set up: {reason}")
        raise RehearsalError(f"a private network can't be set up: {reason}")
