"""Open tens of thousands of sessions a second, and count those that get past the edge."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from integration.lab import TEST_MAC, Lab
from sgagent.policy_test.packet_bytes import tcp

CLIENT, HOST = ip_address("198.51.100.7"), ip_address("10.0.0.11")
ALLOWED, BY_DEFAULT, BY_RULE = 80, 81, 82
_ROUND = 3 * 64
_PAUSE_SECONDS = 0.005
"""Between two rounds, which leaves the processor to what is looked at."""

_WATCH = """
table inet testwatch {{
    counter allowed {{ }}
    counter leaked {{ }}
    counter sent {{ }}
    chain first {{
        type filter hook prerouting priority -450; policy accept;
        ether saddr {mac} counter name sent
    }}
    chain behind {{
        type filter hook prerouting priority -149; policy accept;
        ether saddr {mac} tcp dport 80 counter name allowed drop
        ether saddr {mac} counter name leaked drop
    }}
}}
"""
"""Counts behind the agent's hook, and drops: every packet is the first of a session."""


def watch(lab: Lab) -> None:
    """Count from now on the packets that come to the edge and those that get past it."""
    lab.load(_WATCH.format(mac=TEST_MAC))


def watched(lab: Lab) -> dict[str, int]:
    """Return the watch's counts."""
    return {name: packets for name, (packets, _) in lab.counters("testwatch").items()}


@dataclass(slots=True)
class Flood:
    """New sessions, many thousands a second: a third allowed, the others denied by default or by a rule."""

    lab: Lab
    sent: int = 0
    """Packets of each kind."""

    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send until told to stop."""
        frames = list(self._frames())
        with self.lab.peer.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("eth0", 0))
            while not self._stop.wait(_PAUSE_SECONDS):
                for frame in frames:
                    wire.send(frame)
                self.sent += len(frames) // 3

    def stop(self) -> None:
        """Send no more after this round."""
        self._stop.set()

    def _frames(self) -> Iterator[bytes]:
        """Return one round of frames."""
        target = self.lab.host.run("cat", "/sys/class/net/eth0/address").strip()
        ether = bytes.fromhex((target + TEST_MAC).replace(":", "")) + b"\x08\x00"
        for number in range(_ROUND):
            packet = tcp(CLIENT, HOST, 1024 + number, (ALLOWED, BY_DEFAULT, BY_RULE)[number % 3])
            for datagram in packet.datagrams(1 + number):
                yield ether + datagram


@contextlib.contextmanager
def flooding(lab: Lab) -> Iterator[Flood]:
    """Send until the context is left."""
    flood = Flood(lab)
    sender = threading.Thread(target=flood.run, name="flood")
    sender.start()
    try:
        yield flood
    finally:
        flood.stop()
        sender.join()
