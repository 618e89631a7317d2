"""Put a host with a ruleset and a peer on one wire; passed packets are dropped right behind the ruleset.

So no stack takes part in what is measured, no session is ever confirmed, and every packet is the first of a
new one. Where sessions are to be known, they are opened before the drop is put in.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.frames import HOST_MAC, PEER_MAC, Frames, open_wire
from bench.policies import INTERFACE
from bench.traffic import HOST_ADDRESS, Session
from integration.lab import wait_for
from integration.namespaces import Namespace, network_namespace

GATEWAY = "192.0.2.1"
_LOAD_SECONDS = 300.0

_TRACKING = """
table ip bench_tracking {
    chain unused {
        ct state new accept
    }
}
"""
"""Makes the kernel follow sessions, and does nothing else."""

_SINK = """
table ip bench_sink {
    chain entered {
        type filter hook prerouting priority -149; policy drop;
    }
}
"""

_SYSCTL = {
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv6.conf.all.disable_ipv6": 1,
    "net.ipv6.conf.default.disable_ipv6": 1,
}
_PATIENCE = {
    "net.netfilter.nf_conntrack_udp_timeout": 3600,
    "net.netfilter.nf_conntrack_udp_timeout_stream": 3600,
}


@dataclass(frozen=True, slots=True)
class BenchHost:
    """A host under one ruleset, and the socket by which packets get to it."""

    host: Namespace
    peer: Namespace
    wire: socket.socket

    def open_sessions(self, sessions: Sequence[Session]) -> None:
        """Have the host know sessions, by a packet each way."""
        requests = Frames([session.request for session in sessions])
        for number in range(requests.count):
            requests.send(self.wire, number, 1)
        answering = self.host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with answering:
            for session in sessions:
                (datagram,) = session.answer.datagrams(1)
                answering.sendto(datagram, (str(session.source), 0))
        wait_for(lambda: self._established() >= len(sessions), "all sessions to be known")

    def close_edge(self) -> None:
        """Drop from now on whatever the ruleset lets pass."""
        self.host.nft("-f", "-", stdin=_SINK)

    def _established(self) -> int:
        with self.host.entered():
            return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())


@contextlib.contextmanager
def bench_host(ruleset: str, *, tracks: bool = True) -> Iterator[BenchHost]:
    """Make a host and its peer, with a ruleset loaded, and remove both.

    Args:
        ruleset: for ``nft -f``; may be empty.
        tracks: whether the kernel follows sessions even if the ruleset doesn't ask for it.
    """
    with network_namespace("host") as host, network_namespace("peer") as peer:
        for namespace in (host, peer):
            namespace.sysctl(_SYSCTL)
        _join(host, peer)
        if tracks:
            host.nft("-f", "-", stdin=_TRACKING)
            host.sysctl(_PATIENCE)
        host.run("nft", "-f", "-", stdin=ruleset, seconds=_LOAD_SECONDS)
        with open_wire(peer, INTERFACE) as wire:
            yield BenchHost(host, peer, wire)


def _join(host: Namespace, peer: Namespace) -> None:
    host.ip(
        f"link add {INTERFACE} address {HOST_MAC} type veth "
        f"peer name {INTERFACE} address {PEER_MAC} netns {peer.name}",
        f"link set {INTERFACE} up",
        f"address add {HOST_ADDRESS}/24 dev {INTERFACE}",
        f"neighbour replace {GATEWAY} lladdr {PEER_MAC} dev {INTERFACE} nud permanent",
    )
    peer.ip(f"link set {INTERFACE} up")
    host.ip(f"route add default via {GATEWAY} dev {INTERFACE}")
