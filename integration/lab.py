"""Put a host under test and the rest of the world on one wire, send packets and see which pass the edge.

The peer answers for every address and may send from any. What passed is seen by a table of the test itself
that stands directly behind the agent's hooks, notes the packet and drops it: nothing reaches a stack, nothing
is answered, no session is ever confirmed, and so every packet of a batch is the first of a new session.
Sessions that are to be real use sockets instead, and no probe.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from integration.namespaces import Namespace, network_namespace
from integration.probe import SENTINEL, probing
from sgagent.policy_test.packet_bytes import WirePacket
from tests.patience import PATIENCE

HOST_MAC = "02:00:00:00:01:%02x"
PEER_MAC = "02:00:00:00:02:%02x"
TEST_MAC = "02:00:00:00:03:00"
"""Who sends the packets of a batch; the peer's own stack says a word of its own now and then."""

IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
"""Options of sockets that may be bound to foreign addresses; Python has no names for them."""

_ANY_ADDRESS_TABLE = 253
_EVERY_ADDRESS = {4: "0.0.0.0/0", 6: "::/0"}
_LOCAL_ROUTE = 1 << 31
"""The kernel's flag of a route to an address of its own."""

_DEADLINE_SECONDS = 20.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.002, 0.2
"""Between two looks at a condition; a look may take a process or two."""

_QUIET = {
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.all.accept_local": 1,
    "net.ipv4.conf.default.accept_local": 1,
    "net.ipv4.conf.all.route_localnet": 1,
    "net.ipv4.ip_nonlocal_bind": 1,
    "net.ipv6.ip_nonlocal_bind": 1,
    "net.ipv4.icmp_ratelimit": 0,
    "net.ipv6.conf.all.accept_dad": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.default.dad_transmits": 0,
    "net.ipv6.conf.default.accept_ra": 0,
    "net.ipv6.conf.default.router_solicitations": 0,
    "net.ipv6.conf.default.addr_gen_mode": 1,
}
"""No source validation and no traffic that no test has sent."""


_TRIES = 3
"""To bring a batch to the edge."""

_BATCH_SECONDS = 5.0
"""For a batch to get there."""


class LabError(Exception):
    """Say that the bench itself failed: packets that never got to the edge, answers that never came."""


@dataclass(slots=True)
class Lab:
    """A host with bound interfaces and a peer at the other end of each wire."""

    host: Namespace
    peer: Namespace
    interfaces: tuple[str, ...]
    _frame_sockets: dict[str, socket.socket] = field(default_factory=dict)
    _raw_sockets: dict[tuple[str, int], socket.socket] = field(default_factory=dict)

    def load(self, ruleset: str) -> None:
        """Load a ruleset, as text, on the host."""
        self.host.nft("-f", "-", stdin=ruleset)

    def send_ingress(self, packets: Sequence[WirePacket], interface: str | None = None) -> list[bool]:
        """Send packets to the host and tell of each whether it got past the edge.

        Every packet is judged as the first of a new session. All networks of a machine share a queue between
        the ends of wires, and other tests may fill it: a batch of which it lost something is sent again.

        Args:
            packets: at most :data:`integration.probe.LAST_IDENTITY`.
            interface: where they arrive; the first one if not given.

        Raises:
            LabError: packets were lost before they got to the edge, each time.
        """
        name = interface or self.interfaces[0]
        for _ in range(_TRIES):
            with probing(self.host, TEST_MAC) as probe:
                sent = self.put_on_wire(name, list(enumerate(packets, start=1)))
                with contextlib.suppress(LabError):  # what was lost shows in the number
                    wait_for(lambda: SENTINEL in probe.seen(4), "the end of the batch", _BATCH_SECONDS)
                if probe.arrived() == sent:
                    return probe.verdicts(packets)
        raise LabError(f"of {len(packets)} packets, not all arrived at the edge, {_TRIES} times")

    def send_egress(self, packets: Sequence[WirePacket], interface: str | None = None) -> list[bool]:
        """Send packets from the host and tell of each whether it got past the edge.

        Every packet is judged as the first of a new session. The kernel puts an address of its own in the
        place of an IPv4 source of 0.0.0.0, so that one can't be sent.
        """
        name = interface or self.interfaces[0]
        with probing(self.host, TEST_MAC) as probe:
            self.put_out(name, list(enumerate(packets, start=1)))
            return probe.verdicts(packets)

    def put_on_wire(self, interface: str, packets: Sequence[tuple[int, WirePacket]]) -> int:
        """Send numbered packets to the host, then the sentinel; return how many datagrams they were."""
        wire, sent = self._frame_socket(interface), 0
        with _on_one_processor():
            for identity, packet in packets:
                ether = self._ethernet_header(interface, packet)
                for datagram in packet.datagrams(identity):
                    wire.send(ether + datagram)
                    sent += 1
            sentinel = WirePacket(source=_NOBODY, destination=_NOBODY, protocol=253)
            for datagram in sentinel.datagrams(SENTINEL):
                wire.send(self._ethernet_header(interface, sentinel) + datagram)
        return sent

    def put_out(self, interface: str, packets: Sequence[tuple[int, WirePacket]]) -> None:
        """Send packets from the host by their numbers."""
        for identity, packet in packets:
            raw = self._raw_socket(interface, packet.source.version)
            for datagram in packet.datagrams(identity):
                # Whoever drops it, the agent or the probe, the sender is told so.
                with contextlib.suppress(PermissionError):
                    raw.sendto(datagram, (str(packet.destination), 0))

    def add_host_addresses(self, addresses: Iterable[str], interface: str | None = None) -> None:
        """Give the host addresses and tell the peer the way to them; packets to them arrive from then on."""
        name = interface or self.interfaces[0]
        number = self.interfaces.index(name)
        given = tuple(addresses)
        self.host.ip(*(f"address add {_whole(address)} dev {name} nodad" for address in given))
        self.peer.ip(
            *(
                f"route add {_whole(address)} via {_gateway(ip_address(address).version, number, 'host')} "
                f"dev {name} onlink"
                for address in given
            )
        )
        wait_for(lambda: all(map(self._is_taken_up, given)), f"{given} to be taken up")

    def listen(
        self, namespace: Namespace, address: str, port: int, kind: int = socket.SOCK_STREAM
    ) -> socket.socket:
        """Return a socket of the namespace that waits at an address, its own or not."""
        listener = self._any_address_socket(namespace, address, kind)
        listener.bind((address, port))
        if kind == socket.SOCK_STREAM:
            listener.listen(64)
        return listener

    def connect(
        self,
        namespace: Namespace,
        source: tuple[str, int],
        destination: tuple[str, int],
        kind: int = socket.SOCK_STREAM,
        *,
        seconds: float = 1.0,
    ) -> socket.socket:
        """Return a socket of the namespace that is connected from an address, its own or not.

        Raises:
            OSError: the connection was refused, or not answered in time.
        """
        client = self._any_address_socket(namespace, source[0], kind)
        try:
            client.bind(source)
            client.settimeout(seconds)
            client.connect(destination)
        except OSError:
            client.close()
            raise
        return client

    def counters(self, table: str = "sgagent") -> dict[str, tuple[int, int]]:
        """Return packets and bytes of each named counter of a table of family inet."""
        listing = json.loads(self.host.nft("-j", "list", "counters", "table", "inet", table))
        found = (item["counter"] for item in listing["nftables"] if "counter" in item)
        return {counter["name"]: (counter["packets"], counter["bytes"]) for counter in found}

    def set_up_again(self, name: str) -> None:
        """Give a link of the host the routes, neighbours and addresses back that it lost by going down."""
        self.host.ip(*_set_up(name, self.interfaces.index(name), "host"))

    def _is_taken_up(self, address: str) -> bool:
        """Tell whether the host takes packets to an address of its own.

        The kernel sets the route of an IPv6 address behind the command that adds it, when it comes to that.
        """
        own = ip_address(address)
        if own.version == 4:
            return True
        with self.host.entered():
            routes = Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()
        return any(
            fields[:2] == [f"{int(own):032x}", "80"] and int(fields[8], 16) & _LOCAL_ROUTE
            for fields in map(str.split, routes)
        )

    def close(self) -> None:
        """Close the sockets that packets were sent by."""
        for opened in (*self._frame_sockets.values(), *self._raw_sockets.values()):
            opened.close()

    def _frame_socket(self, interface: str) -> socket.socket:
        """Return the socket that puts frames on the wire from the peer's side."""
        if interface not in self._frame_sockets:
            wire = self.peer.socket(socket.AF_PACKET, socket.SOCK_RAW)
            wire.bind((interface, 0))
            self._frame_sockets[interface] = wire
        return self._frame_sockets[interface]

    def _raw_socket(self, interface: str, version: int) -> socket.socket:
        """Return the socket that sends whole datagrams from the host."""
        if (interface, version) not in self._raw_sockets:
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            raw = self.host.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            self._raw_sockets[interface, version] = raw
        return self._raw_sockets[interface, version]

    def _any_address_socket(self, namespace: Namespace, address: str, kind: int) -> socket.socket:
        """Return a socket that may be bound to an address that its host doesn't have."""
        if ip_address(address).version == 4:
            opened = namespace.socket(socket.AF_INET, kind)
            opened.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        else:
            opened = namespace.socket(socket.AF_INET6, kind)
            opened.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return opened

    def _ethernet_header(self, interface: str, packet: WirePacket) -> bytes:
        """Return the header of a frame from the peer to the host."""
        number = self.interfaces.index(interface)
        kind = 0x0800 if packet.source.version == 4 else 0x86DD
        return _mac(HOST_MAC % number) + _mac(TEST_MAC) + struct.pack("!H", kind)


@contextlib.contextmanager
def lab(*interfaces: str) -> Iterator[Lab]:
    """Build a host with the named interfaces (``eth0`` if none is named) and its peer, and remove both."""
    names = interfaces or ("eth0",)
    with network_namespace("host") as host, network_namespace("peer") as peer:
        host.sysctl(_QUIET)
        peer.sysctl(_QUIET)
        _wire(host, peer, names)
        built = Lab(host, peer, names)
        try:
            yield built
        finally:
            built.close()


def host_with_address() -> Iterator[Lab]:
    """Build the network of a host that has 10.0.0.11, as a fixture of any scope."""
    with lab() as built:
        built.add_host_addresses(["10.0.0.11"])
        yield built


def wait_for(condition: Callable[[], bool], what: str, seconds: float = _DEADLINE_SECONDS) -> float:
    """Wait until a condition holds, and return how many seconds that took.

    Args:
        condition: what is looked at again and again, and for the last time when the time is up: a look that
            began before says nothing of then.
        what: what is waited for, for the error.
        seconds: how long at most, on a machine of usual speed.

    Raises:
        LabError: it did not within the time.
    """
    started, waited, is_over = time.monotonic(), 0.0, False
    while not condition():
        if is_over:
            raise LabError(f"waited {seconds} seconds in vain for {what}")
        waited = time.monotonic() - started
        is_over = waited > seconds * PATIENCE
        pause = min(max(waited / 20, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        time.sleep(pause)  # noqa: TID251 - between two looks at the condition; the deadline bounds them
    return time.monotonic() - started


def _wire(host: Namespace, peer: Namespace, names: Sequence[str]) -> None:
    """Join host and peer by pairs of interfaces of one name; the peer answers for every address."""
    host.ip(
        *(
            f"link add {name} address {HOST_MAC % number} type veth "
            f"peer name {name} address {PEER_MAC % number} netns {peer.name}"
            for number, name in enumerate(names)
        )
    )
    peer.ip(
        *(line for number, name in enumerate(names) for line in _set_up(name, number, "peer")),
        *(f"route add local {every} dev lo table {_ANY_ADDRESS_TABLE}" for every in _EVERY_ADDRESS.values()),
    )
    peer.ip(f"rule add pref 32767 lookup {_ANY_ADDRESS_TABLE}", version=6)
    host.ip(*(line for number, name in enumerate(names) for line in _set_up(name, number, "host")))


def _set_up(name: str, number: int, side: str) -> Iterator[str]:
    """Yield lines for ``ip`` that set up one end of a wire, with static neighbours in place of ARP."""
    far, mac = ("peer", PEER_MAC) if side == "host" else ("host", HOST_MAC)
    yield f"link set {name} up"
    yield f"address replace {_gateway(4, number, side)}/30 dev {name}"
    yield f"address replace {_gateway(6, number, side)}/64 dev {name} nodad"
    yield f"address replace fd5a:ff:{number:x}::{1 if side == 'host' else 2}/64 dev {name} nodad"
    for version, every in _EVERY_ADDRESS.items():
        gateway = _gateway(version, number, far)
        yield f"neighbour replace {gateway} lladdr {mac % number} dev {name} nud permanent"
        if side == "host":
            yield f"route replace {every} via {gateway} dev {name} metric {100 + number}"


def _gateway(version: int, number: int, side: str) -> str:
    """Return the address of one end of a wire, which serves as the way and is no address of a test."""
    place = 1 if side == "host" else 2
    return f"172.31.254.{4 * number + place}" if version == 4 else f"fe80::5347:{number:x}:{place}"


def _whole(address: str) -> str:
    """Return the prefix that has an address alone."""
    return f"{address}/{ip_address(address).max_prefixlen}"


def _mac(text: str) -> bytes:
    """Return a MAC address as bytes."""
    return bytes.fromhex(text.replace(":", ""))


@contextlib.contextmanager
def _on_one_processor() -> Iterator[None]:
    """Keep the calling thread on one processor, whose queue keeps packets in order."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


_NOBODY = ip_address("172.31.254.254")
