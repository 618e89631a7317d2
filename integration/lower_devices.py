"""Put packets past a link by its lower devices: frames that it leaves to them, sockets bound to them."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from integration.lab import HOST_MAC, PEER_MAC, Lab, wait_for
from integration.namespaces import CommandError
from sgagent.policy_test.packet_bytes import udp

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
CLIENT, CLIENT6 = ip_address("198.51.100.7"), ip_address("2001:db8:9::7")
PORT = 5000
COUNT = 10
LINK_LOCAL_MULTICAST = ("01:80:c2:00:00:0e", "01:80:c2:00:00:03")
"""Destinations that no bridge forwards; a bridge, bond or team leaves most of these frames to the port."""

KINDS = {
    "bridge": ("link add M type bridge", "link set L1 master M", "link set L2 master M"),
    "bond active-backup": (
        "link set L1 down",
        "link set L2 down",
        "link add M type bond mode active-backup miimon 100",
        "link set L1 master M",
        "link set L2 master M",
    ),
    "bond 802.3ad": (
        "link set L1 down",
        "link set L2 down",
        "link add M type bond mode 802.3ad miimon 100",
        "link set L1 master M",
        "link set L2 master M",
    ),
    "bond balance-alb": (
        "link set L1 down",
        "link set L2 down",
        "link add M type bond mode balance-alb miimon 100",
        "link set L1 master M",
        "link set L2 master M",
    ),
    "team": (
        "link set L1 down",
        "link set L2 down",
        "link add M type team",
        "link set L1 master M",
        "link set L2 master M",
    ),
    "hsr": ("link add M type hsr slave1 L1 slave2 L2 supervision 45 version 1",),
    "batadv": ("link add M type batadv", "link set L1 master M", "link set L2 master M"),
}
"""Lines of ``ip`` that make a master M of two lower devices."""

PLAIN_FRAMES = frozenset({"hsr", "batadv"})
"""Kinds whose lower devices hand up whatever is sent to their own address."""

_AS_NOBODY = """
import socket, sys
link, count, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for family, to in ((socket.AF_INET, ("255.255.255.255", port)), (socket.AF_INET6, ("ff02::1", port, 0, 0))):
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    for _ in range(count):
        try:
            sender.sendto(b"x" * 20, to)
        except OSError:
            pass
"""
_ETH_P_ALL = 3


def why_not(lab: Lab, kind: str) -> str:
    """Return why a kind of master can't be made on this kernel; empty if it can."""
    word = kind.split(maxsplit=1)[0]
    try:
        slaves = " slave1 eth1 slave2 eth2" if word == "hsr" else ""
        lab.host.ip(f"link add probe0 type {word}{slaves}")
    except CommandError as error:
        return f"this kernel makes no {word}: {error.output.strip()}"
    lab.host.ip("link delete probe0")
    return ""


def make_master(lab: Lab, kind: str, name: str = "m0", lower: tuple[str, str] = ("eth1", "eth2")) -> None:
    """Make a master of two wires, which carries the addresses of the host."""
    for line in KINDS[kind]:
        words = {"M": name, "L1": lower[0], "L2": lower[1]}
        lab.host.ip(" ".join(words.get(word, word) for word in line.split()))
    lab.host.ip(*(f"link set {link} up" for link in (*lower, name)))
    lab.host.ip(f"address add {HOST}/24 dev {name}", f"address add {HOST6}/64 dev {name} nodad")


def add_wire(lab: Lab, name: str, number: int) -> None:
    """Join host and peer by one more wire."""
    lab.host.ip(
        f"link add {name} address {HOST_MAC % number} type veth "
        f"peer name {name} address {PEER_MAC % number} netns {lab.peer.name}",
        f"link set {name} up",
    )
    lab.peer.ip(f"link set {name} up")


def own_mac(lab: Lab, link: str) -> str:
    """Return the address of a link of the host, which its master may have changed."""
    (line,) = (text for text in lab.host.run("ip", "-o", "link", "show", link).splitlines())
    return line.partition("link/ether ")[2].split()[0]


@dataclass(frozen=True, slots=True)
class Passed:
    """How many of :data:`COUNT` packets passed, by family."""

    ipv4: int
    ipv6: int

    def __bool__(self) -> bool:
        """Return whether any did."""
        return bool(self.ipv4 or self.ipv6)


NONE = Passed(0, 0)
ALL = Passed(COUNT, COUNT)


def inwards(lab: Lab, link: str, destination: str, port: int = PORT) -> Passed:
    """Send datagrams to the host in frames to a destination, and count those that a program of it gets."""
    with contextlib.ExitStack() as stack:
        found = []
        for family, host, client in (
            (socket.AF_INET, ip_address(HOST), CLIENT),
            (socket.AF_INET6, ip_address(HOST6), CLIENT6),
        ):
            receiver = stack.enter_context(lab.host.socket(family, socket.SOCK_DGRAM))
            if family is socket.AF_INET6:
                receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            receiver.bind(("" if family is socket.AF_INET else "::", port))
            receiver.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
            wire = stack.enter_context(lab.peer.socket(socket.AF_PACKET, socket.SOCK_RAW))
            wire.bind((link, 0))
            kind = b"\x08\x00" if family is socket.AF_INET else b"\x86\xdd"
            ether = _mac(destination) + bytes.fromhex("020000000300") + kind
            for number in range(COUNT):
                (datagram,) = udp(client, host, 4000 + number, port, b"denied").datagrams(number + 1)
                wire.send(ether + datagram)
            local = stack.enter_context(lab.host.socket(family, socket.SOCK_DGRAM))
            local.sendto(b"end", ("127.0.0.1" if family is socket.AF_INET else "::1", port))
            found.append(_count(receiver))
        return Passed(*found)


def _count(receiver: socket.socket) -> int:
    """Count the messages before the end of a batch."""
    count, ended = 0, False

    def receive() -> bool:
        nonlocal count, ended
        with contextlib.suppress(BlockingIOError):
            while True:
                content = receiver.recv(2048)
                ended = ended or content == b"end"
                count += content == b"denied"
        return ended

    wait_for(receive, "the end of the batch")
    receive()
    return count


def outwards(lab: Lab, link: str, port: int = PORT + 1) -> Passed:
    """Have an ordinary user send datagrams from a socket bound to a link; count those on any wire."""
    with _watched(lab) as wires:
        lab.host.run(
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *("/usr/bin/python3", "-c", _AS_NOBODY, link, str(COUNT), str(port)),
        )
        lab.host.run(*("/usr/bin/python3", "-c", _AS_NOBODY, "eth0", "1", str(port + 1)))
        counts = {(4, port): 0, (6, port): 0, (4, port + 1): 0, (6, port + 1): 0}

        def look() -> bool:
            for wire in select.select(wires, (), (), 0)[0]:
                key = _udp_port(wire.recv(2048))
                if key in counts:
                    counts[key] += 1
            return bool(counts[4, port + 1] and counts[6, port + 1])

        wait_for(look, "what is sent by a link without rules")
        while select.select(wires, (), (), 0)[0]:
            look()
        return Passed(counts[4, port], counts[6, port])


@contextlib.contextmanager
def _watched(lab: Lab) -> Iterator[list[socket.socket]]:
    """Open a socket that sees all frames on the peer's side."""
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(
            lab.peer.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        )
        wire.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        yield [wire]


def _udp_port(frame: bytes) -> tuple[int, int] | None:
    """Return IP version and destination port of a UDP datagram; None for other frames."""
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and len(packet) >= 28 and packet[9] == 17:
        return 4, int.from_bytes(packet[22:24])
    if kind == b"\x86\xdd" and len(packet) >= 48 and packet[6] == 17:
        return 6, int.from_bytes(packet[42:44])
    return None


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
