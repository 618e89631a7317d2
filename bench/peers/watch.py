"""See which packets a contender lets pass: single ones, and those of a stream while something changes."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from bench.frames import Frames
from bench.hosts import BenchHost
from bench.policies import INTERFACE, BenchPolicy
from bench.processor import losing_nothing
from bench.traffic import Aim, Session, choose, choose_sessions
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.model import Direction, Family, Policy
from sgagent.policy_test.packet_bytes import WirePacket

KNOWN_SESSIONS = 16
_PROBES = {Aim.SPREAD: 240, Aim.NONE: 60}
_OF_EACH = 16
"""Packets of each kind in one call."""

_WATCH = """
table ip bench_watch {{
    set allowed {{
        type ipv4_addr . inet_proto . inet_service
        elements = {{ {allowed} }}
    }}
    counter allowed {{ }}
    counter leaked {{ }}
    counter known {{ }}
    chain behind {{
        type filter hook input priority 190; policy accept;
        ct state established counter name known drop
        ip saddr . meta l4proto . th dport @allowed counter name allowed drop
        counter name leaked drop
    }}
}}
"""
"""Counts behind every contender's own hook, and drops: every packet that is of no known session opens one."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Packets whose verdicts are known."""

    allowed: tuple[WirePacket, ...]
    denied: tuple[WirePacket, ...]
    sessions: tuple[Session, ...]
    """That the policy allows, and that are opened before all else."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """How often a contender decided otherwise than the policy says."""

    probes: int
    kept_out: int
    let_in: int


@dataclass(frozen=True, slots=True)
class Stream:
    """The fates of packets that were sent while something changed."""

    changes: int = 0
    sent: int = 0
    """Packets of each of the three kinds."""

    kept_out: int = 0
    """New sessions that the policy allows before the change and after it."""

    let_in: int = 0
    """New sessions that it denies."""

    cut: int = 0
    """Packets of known sessions."""


class Watch:
    """Counts the packets that get in at a host."""

    def __init__(self, host: BenchHost, probes: Probes) -> None:
        """Have the host know the sessions, and count from now on."""
        self._host = host
        self._probes = probes
        host.open_sessions(probes.sessions)
        host.host.nft("-f", "-", stdin=_WATCH.format(allowed=", ".join(_keys(probes.allowed))))

    def probe(self) -> Wrong:
        """Send each packet once, and count the wrong verdicts."""
        before = self._counted()
        for packets in (self._probes.allowed, self._probes.denied):
            frames = Frames(packets)
            for number in range(frames.count):
                frames.send(self._host.wire, number, 1)
        after = self._counted()
        allowed = after["allowed"] - before["allowed"]
        return Wrong(
            probes=len(self._probes.allowed) + len(self._probes.denied),
            kept_out=len(self._probes.allowed) - allowed,
            let_in=after["leaked"] - before["leaked"],
        )

    @contextlib.contextmanager
    def streaming(self) -> Iterator[_Sender]:
        """Send until the context is left; then the sender knows the packets' fates.

        Raises:
            LostPacketsError: the kernel dropped packets before any ruleset saw them.
        """
        before, sender = self._counted(), _Sender(self._host, self._probes)
        thread = threading.Thread(target=sender.run, name="stream")
        thread.start()
        try:
            with losing_nothing():
                yield sender
        finally:
            sender.stop.set()
            thread.join()
        after = self._counted()
        passed = {name: after[name] - before[name] for name in after}
        sender.outcome = Stream(
            sent=sender.sent,
            kept_out=sender.sent - passed["allowed"],
            let_in=passed["leaked"],
            cut=sender.sent - passed["known"],
        )

    def end(self) -> None:
        """Count no more, and let everything in."""
        self._host.host.nft("delete", "table", "ip", "bench_watch")

    def _counted(self) -> dict[str, int]:
        listing = json.loads(self._host.host.nft("-j", "list", "counters", "table", "ip", "bench_watch"))
        counters = [item["counter"] for item in listing["nftables"] if "counter" in item]
        return {counter["name"]: int(counter["packets"]) for counter in counters}


@dataclass(slots=True)
class _Sender:
    """Sends packets of each kind in turns."""

    host: BenchHost
    probes: Probes
    sent: int = 0
    outcome: Stream = field(default_factory=Stream)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send until told to stop."""
        kinds = (self.probes.allowed, self.probes.denied, _requests(self.probes.sessions))
        frames = Frames([kind[number % len(kind)] for number in range(_OF_EACH) for kind in kinds])
        while not self.stop.is_set():
            frames.send(self.host.wire, 0, frames.count)
            self.sent += _OF_EACH


def choose_probes(policy: BenchPolicy) -> Probes:
    """Return packets that the policy decides, by its verdicts."""
    packets = [packet for aim, count in _PROBES.items() for packet in choose(policy, aim, count, seed=7)]
    verdicts = [evaluate(policy.resolved, _judged(packet)).verdict for packet in packets]
    return Probes(
        allowed=_of(packets, verdicts, Policy.ACCEPT),
        denied=_of(packets, verdicts, Policy.DROP),
        sessions=tuple(choose_sessions(policy, KNOWN_SESSIONS)),
    )


def _requests(sessions: Sequence[Session]) -> tuple[WirePacket, ...]:
    return tuple(session.request for session in sessions)


def _of(packets: Sequence[WirePacket], verdicts: Sequence[Policy], wanted: Policy) -> tuple[WirePacket, ...]:
    pairs = zip(packets, verdicts, strict=True)
    return tuple(packet for packet, verdict in pairs if verdict is wanted)


def _judged(packet: WirePacket) -> Packet:
    source_port, port = _ports(packet)
    return Packet(
        interface=INTERFACE,
        direction=Direction.INGRESS,
        family=Family.IPV4,
        source=int(packet.source),
        destination=int(packet.destination),
        protocol=packet.protocol,
        source_port=source_port,
        destination_port=port,
    )


def _keys(packets: Sequence[WirePacket]) -> list[str]:
    """Return sources, protocols and ports as elements of a set."""
    found = dict.fromkeys((packet.source, packet.protocol, _ports(packet)[1]) for packet in packets)
    return [f"{IPv4Address(int(source))} . {protocol} . {port}" for source, protocol, port in found]


def _ports(packet: WirePacket) -> tuple[int, int]:
    source_port, port = struct.unpack_from("!HH", packet.payload)
    return source_port, port
