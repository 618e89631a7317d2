"""Try flows as applications do, all at once: connections, datagrams and pings, answered or not."""

from __future__ import annotations

import contextlib
import ipaddress
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from integration.kernel_verdicts import judge
from integration.lab import IP_TRANSPARENT, IPV6_TRANSPARENT, Lab
from integration.namespaces import Namespace
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family
from sgagent.policy_test.packet_bytes import icmp

PATIENCE_SECONDS = 0.6
"""Less than the second after which a SYN is sent again: a dropped flow is one hit."""

_PINGS = {(1, 8): 0, (58, 128): 129}
"""Protocol and type of a ping, and the type of its answer."""


def try_flows(lab: Lab, packets: Sequence[Packet], forged: Sequence[Packet] = ()) -> list[bool]:
    """Return for each packet whether its session is answered from the other end.

    What no application speaks is sent alone instead, and watched at the edge.

    Args:
        lab: the host and its peer.
        packets: what to try.
        forged: those whose source must not become an address of the host; they are sent alone, too.
    """
    real = [place for place, packet in enumerate(packets) if _is_spoken(packet) and packet not in forged]
    alone = [place for place in range(len(packets)) if place not in real]
    verdicts = dict(zip(alone, judge(lab, [packets[place] for place in alone]), strict=True))
    with contextlib.ExitStack() as opened:
        attempt = _Attempt(lab, opened)
        for packet in (packets[place] for place in real):
            attempt.prepare(packet)
        for place in real:
            attempt.open(place, packets[place])
        attempt.wait(len(real))
        verdicts |= {place: place in attempt.answered for place in real}
    return [verdicts[place] for place in range(len(packets))]


def _is_spoken(packet: Packet) -> bool:
    """Tell whether sockets can open such a session and have it answered."""
    return packet.protocol in (6, 17) or (packet.protocol, packet.icmp_type) in _PINGS


@dataclass(slots=True)
class _Attempt:
    """Sockets of both ends, and the answered packets."""

    lab: Lab
    opened: contextlib.ExitStack
    answered: set[int] = field(default_factory=set)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _servers: set[tuple[str, str, int, int]] = field(default_factory=set)
    _addresses: set[str] = field(default_factory=set)

    def prepare(self, packet: Packet) -> None:
        """Give the host its address, and wait at the other end for packets."""
        source, destination = _ends(packet)
        self._add_address(destination if packet.direction is Direction.INGRESS else source, packet.interface)
        if packet.destination_port is None:
            # The end that answers a ping needs its address; up to Linux 5.16 so does a raw socket of IPv6.
            self._add_peer_address(destination if packet.direction is Direction.EGRESS else source)
            return
        kind = socket.SOCK_STREAM if packet.protocol == 6 else socket.SOCK_DGRAM
        _, server = self._namespaces(packet)
        key = (server.name, destination, packet.destination_port, kind)
        if key in self._servers:
            return
        self._servers.add(key)
        listener = self.opened.enter_context(
            self.lab.listen(server, destination, packet.destination_port, kind)
        )
        listener.settimeout(0)
        answer = _accept(self.opened) if packet.protocol == 6 else _echo
        self._selector.register(listener, selectors.EVENT_READ, lambda: answer(listener))

    def open(self, place: int, packet: Packet) -> None:
        """Send the packet that opens the session."""
        client, _ = self._namespaces(packet)
        source, destination = _ends(packet)
        opener = self.opened.enter_context(_client(client, packet, source))
        opener.settimeout(0)
        event = selectors.EVENT_WRITE if packet.protocol == 6 else selectors.EVENT_READ
        self._selector.register(opener, event, lambda: self._note(place, packet, opener))
        with contextlib.suppress(BlockingIOError, PermissionError):
            if packet.protocol in (6, 17):
                opener.connect((destination, packet.destination_port))
            else:
                opener.sendto(_ping(packet), (destination, 0))
            if packet.protocol == 17:
                opener.send(b"anybody there?")

    def wait(self, number: int) -> None:
        """Serve both ends until all are answered, or patience is at its end."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.answered) < number:
            # What has come while this process had to wait is taken in, also when the time is up.
            ready = self._selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                break
            for key, _ in ready:
                key.data()
        self._selector.close()

    def _note(self, place: int, packet: Packet, opener: socket.socket) -> None:
        """Take an answer, if it is one."""
        self._selector.unregister(opener)
        if packet.protocol == 6:
            is_answer = opener.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        else:
            is_answer = _is_answer(packet, opener)
        if is_answer:
            self.answered.add(place)
        elif packet.protocol != 6:
            self._selector.register(opener, selectors.EVENT_READ, lambda: self._note(place, packet, opener))

    def _namespaces(self, packet: Packet) -> tuple[Namespace, Namespace]:
        """Return where the client and where the server is."""
        if packet.direction is Direction.INGRESS:
            return self.lab.peer, self.lab.host
        return self.lab.host, self.lab.peer

    def _add_peer_address(self, address: str) -> None:
        """Give the other end an address."""
        if address not in self._addresses:
            self._addresses.add(address)
            self.lab.peer.ip(f"addr add {address} dev lo")

    def _add_address(self, address: str, interface: str) -> None:
        """Give the host an address that it does not have yet."""
        if address not in self._addresses:
            self._addresses.add(address)
            self.lab.add_host_addresses([address], interface)


def _client(namespace: Namespace, packet: Packet, source: str) -> socket.socket:
    """Return a socket that sends from the packet's source."""
    family = socket.AF_INET if packet.family is Family.IPV4 else socket.AF_INET6
    if packet.protocol in (6, 17):
        opener = namespace.socket(family, socket.SOCK_STREAM if packet.protocol == 6 else socket.SOCK_DGRAM)
    else:
        opener = namespace.socket(family, socket.SOCK_RAW, packet.protocol)
    if packet.family is Family.IPV4:
        opener.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    else:
        opener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    opener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opener.bind((source, packet.source_port or 0))
    except OSError:
        opener.close()
        raise
    return opener


def _accept(opened: contextlib.ExitStack) -> Callable[[socket.socket], None]:
    """Return a function that accepts connections, and keeps them."""

    def take(listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            opened.enter_context(listener.accept()[0])

    return take


def _echo(listener: socket.socket) -> None:
    """Send a datagram back."""
    with contextlib.suppress(BlockingIOError, PermissionError):
        content, sender = listener.recvfrom(64)
        listener.sendto(content, sender)


def _ping(packet: Packet) -> bytes:
    """Return an echo request; the checksum of ICMPv6 is the kernel's to fill in."""
    if packet.family is Family.IPV4:
        ends = ipaddress.IPv4Address(packet.source), ipaddress.IPv4Address(packet.destination)
        return icmp(*ends).payload
    return bytes((packet.icmp_type or 0, 0, 0, 0, 0, 1, 0, 1))


def _is_answer(packet: Packet, opener: socket.socket) -> bool:
    """Return whether an arrived message is an answer: raw sockets hear other messages of their family."""
    try:
        content = opener.recv(256)
    except (BlockingIOError, ConnectionError):
        return False
    if packet.protocol == 17:
        return True
    message = content[20:] if packet.family is Family.IPV4 else content
    return bool(message) and message[0] == _PINGS[packet.protocol, packet.icmp_type or 0]


def _ends(packet: Packet) -> tuple[str, str]:
    """Return source and destination as text."""
    form = ipaddress.IPv4Address if packet.family is Family.IPV4 else ipaddress.IPv6Address
    return str(form(packet.source)), str(form(packet.destination))
