"""Send streams of packets while a policy changes, and count those whose fate neither policy explains.

Packets come over IPv4 and IPv6: what the peer sends to the host, what the host sends, and what it forwards.
A new session is one whose packet is dropped behind the agent, so that it is the first of a session each time.
Others are let through there and open sessions that last, at which more packets are sent.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import itertools
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from integration.bulk import Batch, Sender, socket_address
from integration.lab import HOST_MAC, TEST_MAC, Lab
from integration.pairs import HOST, Shot, passes
from integration.watch import FIRST_MARK, Count, Mark, Watch
from sgagent.core.evaluate import Packet
from sgagent.core.model import UDP, Direction, Family
from sgagent.core.policy import ResolvedPolicy
from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket
from sgagent.policy_test.packet_bytes import encode_packet, encode_reply

BACK = "back0"
"""The link by which packets enter that the host forwards. No pair binds it."""

_BLOCKS = tuple(range(first, first + 48) for first in range(1_024, 1_024 + 4 * 48, 48))
"""Source ports of the sessions that are opened with a change, in turn. Then all sessions are forgotten."""

_NEW_PORTS = range(20_000, 20_016)
"""Source ports of packets that are dropped behind the agent, so that each is the first of a session."""

_LIVE_PORTS = range(21_000, 21_016)
"""Source ports of sessions that stay."""

_PROBE_PORTS = range(22_000, 22_002)
"""Source ports of sessions by which it is found out which policy judges."""

_DELETE_SESSIONS = 0x102


class Kind(enum.Enum):
    """The expectation for packets."""

    FORBIDDEN = "forbidden"
    """Neither side lets them pass."""

    ALLOWED = "allowed"
    """Both do."""

    DIFFERING = "differing"
    """One does."""


class Part(enum.Enum):
    """The purpose of a packet."""

    NEW = "new"
    """It opens a session that never comes to be, again and again."""

    OPENING = "opening"
    """It opens a session that lasts."""

    FOLLOWING = "following"
    """It follows in the direction of the first packet."""

    ANSWERING = "answering"
    """It answers."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Packets of one kind that are counted together."""

    shot: Shot
    kind: Kind
    part: Part
    mark: Mark

    @property
    def name(self) -> str:
        """Return the stream's name, for messages."""
        return f"{self.kind.value}: {self.shot.name}, {self.part.value}"


@dataclass(frozen=True, slots=True)
class _Volley:
    """The packets of one change."""

    storm: tuple[Batch, ...]
    """Sent again and again while the change is carried out."""

    following: Mapping[int, tuple[Batch, ...]]
    """Packets of sessions that a side forbids, by its place: sent once when the change is done."""


@dataclass(slots=True)
class Tally:
    """The result of changes."""

    changes: int = 0
    forbidden: int = 0
    """Packets that came and that neither policy lets pass."""

    passed: int = 0
    """How many of these passed."""

    allowed: int = 0
    """Packets of new sessions that came and that both policies let pass."""

    lost: int = 0
    live: int = 0
    """Packets of open sessions that both policies allow, in both directions."""

    live_lost: int = 0
    ended: int = 0
    """Packets of sessions that the policy after a change forbids, sent when the change was done."""

    went_on: int = 0
    """How many of these passed."""

    faults: Counter[str] = field(default_factory=Counter)
    """Packets that went wrong, by stream."""

    def __iadd__(self, other: Tally) -> Self:
        """Add the result of other changes."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults += other.faults
        return self

    @property
    def wrong(self) -> int:
        """Return how many packets had a fate that neither policy gives them."""
        return self.passed + self.lost + self.live_lost + self.went_on

    def row(self, name: str) -> str:
        """Return a line of the table."""
        numbers = " | ".join(f"{getattr(self, number):,}" for number in _NUMBERS)
        return f"| {name} | {numbers} |"


_NUMBERS = ("changes", "forbidden", "passed", "allowed", "lost", "live", "live_lost", "ended", "went_on")


class Storm:
    """Sends packets of all kinds to one host and counts which of them pass."""

    def __init__(self, built: Lab, watch: Watch) -> None:
        """Open the sockets.

        Args:
            built: a bench of :func:`bench`.
            watch: on its host.
        """
        self._lab = built
        self._watch = watch
        self._index = {name: _index_of(built, name) for name in built.interfaces}
        self._frames = built.peer.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._raw: dict[tuple[str, Family], socket.socket] = {}
        self._for_changes, others = shared_processors()
        self._senders = (Sender("frames", others), Sender("datagrams", others))
        self._sinks: dict[int, socket.socket] = {}
        self._changes = 0
        self._openings: list[Batch] = []
        self._volleys: tuple[_Volley, ...] = ()
        self._streams: tuple[Stream, ...] = ()
        self._sides: tuple[ResolvedPolicy, ResolvedPolicy] = (ResolvedPolicy(), ResolvedPolicy())

    def close(self) -> None:
        """End the threads and close the sockets."""
        for sender in self._senders:
            sender.close()
        for opened in (self._frames, *self._raw.values(), *self._sinks.values()):
            opened.close()

    def aim(
        self, before: ResolvedPolicy, after: ResolvedPolicy, targets: Iterable[tuple[Kind, Shot]]
    ) -> None:
        """Take up two policies and the packets that are to be sent while they change places.

        Raises:
            AssertionError: the specification expects something else of a packet.
        """
        self._sides = (before, after)
        numbers = itertools.count(FIRST_MARK)
        self._streams = tuple(
            stream for kind, shot in targets for stream in self._streams_of(kind, shot, numbers)
        )
        self._watch.begin([stream.mark for stream in self._streams])
        live = (s for s in self._streams if s.kind is Kind.ALLOWED and s.part is Part.OPENING)
        self._openings = self._batches((stream, _live_ports(stream)) for stream in live)
        self._volleys = tuple(self._volley(block) for block in _BLOCKS)

    def change(
        self, policy: ResolvedPolicy | None, apply: Callable[[], object], *, pause: float = 0.0
    ) -> Tally:
        """Change to a policy under the storm and return the packets' fates.

        Args:
            policy: one of the two; None if it is not known which of them will be enforced.
            apply: carries the change out, and returns when it is done.
            pause: seconds between two rounds of packets, where the change needs the processors.
        """
        place = self._changes % len(self._volleys)
        if place == 0:
            self._forget_sessions()
        self._changes += 1
        volley = self._volleys[place]
        first = self._watch.counts()
        for batch in self._openings:
            batch.send()
        self._begin(volley, pause)
        try:
            with on_processors(self._for_changes):
                apply()
        finally:
            for sender in self._senders:
                sender.end()
        seen = self._watch.settled()
        tally = Tally(changes=1)
        for stream in self._streams:
            self._add(tally, stream, seen[stream.mark] - first[stream.mark])
        if policy is not None:
            self._follow(tally, policy, volley)
        return tally

    def policies_that_judge(self) -> tuple[ResolvedPolicy, ...]:
        """Return which of the two policies give every packet the fate that it has now.

        Nobody may be changing the policy.
        """
        streams = [s for s in self._streams if s.part is _PART_OF_FIRST_PACKETS[s.kind]]
        first = self._watch.counts()
        for batch in self._batches((stream, _varying(stream, _PROBE_PORTS)) for stream in streams):
            batch.send()
        seen = self._watch.settled()
        counts = {stream: seen[stream.mark] - first[stream.mark] for stream in streams}
        return tuple(
            side
            for side in self._sides
            if all(
                count.came > 0 and count.passed == (count.came if passes(side, stream.shot.packet) else 0)
                for stream, count in counts.items()
            )
        )

    def _volley(self, block: range) -> _Volley:
        """Return the packets of a change, whose sessions have these source ports."""
        chosen = [(stream, ports) for stream in self._streams if (ports := _ports(stream, block))]
        following = [s for s in self._streams if s.kind is not Kind.ALLOWED and s.part is Part.FOLLOWING]
        return _Volley(
            tuple(self._batches(chosen)),
            {
                side: tuple(
                    self._batches(
                        (stream, _varying(stream, block))
                        for stream in following
                        if not passes(policy, stream.shot.packet)
                    )
                )
                for side, policy in enumerate(self._sides)
            },
        )

    def _forget_sessions(self) -> None:
        """Have the host's connection tracking forget all sessions."""
        with self._lab.host.entered(), NetlinkSocket(NETLINK_NETFILTER) as netlink:
            netlink.order([(_DELETE_SESSIONS, bytes(4))])

    def _streams_of(self, kind: Kind, shot: Shot, numbers: Iterator[int]) -> Iterator[Stream]:
        """Yield the streams of a packet, after comparing it with the specification."""
        if kind is not kind_of(*self._sides, shot.packet):
            raise AssertionError(f"{shot.name} is not {kind.value}")
        if kind is not Kind.DIFFERING:
            yield self._stream(kind, shot, Part.NEW, numbers)
        if not _can_last(shot):
            return
        for part in _LASTING_PARTS[kind]:
            yield self._stream(kind, shot, part, numbers)
        if shot.packet.direction is Direction.INGRESS:
            self._sink(shot.packet.destination_port or 0)

    def _stream(self, kind: Kind, shot: Shot, part: Part, numbers: Iterator[int]) -> Stream:
        direction = shot.packet.direction
        if part is Part.ANSWERING:
            direction = Direction.EGRESS if direction is Direction.INGRESS else Direction.INGRESS
        mark = Mark(next(numbers), direction, shot.packet.family, part is Part.OPENING)
        return Stream(shot, kind, part, mark)

    def _begin(self, volley: _Volley, pause: float) -> None:
        """Begin to send all streams, and return when each packet was sent once."""
        frames = [batch for batch in volley.storm if batch.socket is self._frames]
        datagrams = [batch for batch in volley.storm if batch.socket is not self._frames]
        for sender, mine in zip(self._senders, (frames, datagrams), strict=True):
            sender.begin(mine, pause)
        for sender in self._senders:
            sender.wait_for_round()

    def _follow(self, tally: Tally, policy: ResolvedPolicy, volley: _Volley) -> None:
        """Send one packet more of each session that the policy forbids."""
        batches = volley.following[self._sides.index(policy)]
        if not batches:
            return
        first = self._watch.counts()
        for batch in batches:
            batch.send()
        seen = self._watch.settled()
        for stream in self._streams:
            if stream.kind is Kind.ALLOWED or stream.part is not Part.FOLLOWING:
                continue
            count = seen[stream.mark] - first[stream.mark]
            tally.ended += count.came
            tally.went_on += count.passed
            if count.passed:
                tally.faults[f"{stream.name}: went on"] += count.passed

    def _add(self, tally: Tally, stream: Stream, count: Count) -> None:
        """Add the result of a stream during the storm."""
        wrong = 0
        if stream.kind is Kind.FORBIDDEN and stream.part is Part.NEW:
            tally.forbidden += count.came
            tally.passed += (wrong := count.passed)
        elif stream.kind is Kind.ALLOWED and stream.part is Part.NEW:
            tally.allowed += count.came
            tally.lost += (wrong := count.dropped)
        elif stream.kind is Kind.ALLOWED and stream.part is not Part.OPENING:
            tally.live += count.came
            tally.live_lost += (wrong := count.dropped)
        if wrong:
            tally.faults[stream.name] += wrong

    def _batches(self, chosen: Iterable[tuple[Stream, Sequence[int]]]) -> list[Batch]:
        """Return the packets of streams from some source ports, the streams mixed, by socket."""
        found: dict[socket.socket, list[list[tuple[bytes, bytes]]]] = {}
        for stream, ports in chosen:
            opened, address, datagrams = self._datagrams(stream, ports)
            found.setdefault(opened, []).append([(datagram, address) for datagram in datagrams])
        batches: list[Batch] = []
        for opened, columns in found.items():
            mixed = [one for row in itertools.zip_longest(*columns) for one in row if one is not None]
            batches.append(Batch(opened, [packet for packet, _ in mixed], [to for _, to in mixed]))
        return batches

    def _datagrams(
        self, stream: Stream, ports: Sequence[int]
    ) -> tuple[socket.socket, bytes, Iterable[bytes]]:
        """Return the socket to send by, the address to send to, and the packets from some source ports."""
        packet = stream.shot.packet
        is_sent_by_host = stream.mark.direction is Direction.EGRESS and not stream.shot.is_forwarded
        datagrams = _datagrams(stream, ports)
        if is_sent_by_host:
            far = packet.source if packet.direction is Direction.INGRESS else packet.destination
            address = (IPv4Address if packet.family is Family.IPV4 else IPv6Address)(far)
            return self._raw_socket(packet.interface, packet.family), socket_address(str(address)), datagrams
        is_from_guest = stream.shot.is_forwarded and stream.part is not Part.ANSWERING
        link = BACK if is_from_guest else packet.interface
        kind = 0x0800 if packet.family is Family.IPV4 else 0x86DD
        ether = _mac(HOST_MAC % self._lab.interfaces.index(link)) + _mac(TEST_MAC) + struct.pack("!H", kind)
        to = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(kind), self._index[link], 0, 0, 6, b"")
        return self._frames, to, (ether + datagram for datagram in datagrams)

    def _raw_socket(self, link: str, family: Family) -> socket.socket:
        """Return the socket by which the host sends whole datagrams."""
        if (link, family) not in self._raw:
            kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
            opened = self._lab.host.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            opened.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
            self._raw[link, family] = opened
        return self._raw[link, family]

    def _sink(self, port: int) -> None:
        """Have the host take UDP to a port and answer nothing."""
        if port not in self._sinks:
            opened = self._lab.host.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            opened.bind(("::", port))
            self._sinks[port] = opened


_PART_OF_FIRST_PACKETS = {Kind.FORBIDDEN: Part.NEW, Kind.ALLOWED: Part.NEW, Kind.DIFFERING: Part.OPENING}
_LASTING_PARTS = {
    Kind.FORBIDDEN: (Part.OPENING, Part.FOLLOWING),
    Kind.ALLOWED: (Part.OPENING, Part.FOLLOWING, Part.ANSWERING),
    Kind.DIFFERING: (Part.OPENING, Part.FOLLOWING),
}


def kind_of(before: ResolvedPolicy, after: ResolvedPolicy, packet: Packet) -> Kind:
    """Return the specification's expectation of a packet while two policies change places."""
    verdicts = {passes(side, packet) for side in (before, after)}
    if len(verdicts) > 1:
        return Kind.DIFFERING
    return Kind.ALLOWED if verdicts == {True} else Kind.FORBIDDEN


def _can_last(shot: Shot) -> bool:
    """Return whether the packet opens a session that one packet more belongs to, whoever answers."""
    packet = shot.packet
    is_taken = packet.direction is Direction.EGRESS or packet.destination == int(
        (IPv4Address if packet.family is Family.IPV4 else IPv6Address)(HOST[packet.family])
    )
    return packet.protocol == UDP.number and is_taken


def _ports(stream: Stream, block: range) -> Sequence[int]:
    """Return the source ports from which a stream is sent during the storm."""
    if stream.part is Part.NEW:
        return _varying(stream, _NEW_PORTS)
    if stream.kind is Kind.ALLOWED:
        return () if stream.part is Part.OPENING else _live_ports(stream)
    return _varying(stream, block) if stream.part is Part.OPENING else ()


def _live_ports(stream: Stream) -> Sequence[int]:
    return _varying(stream, _LIVE_PORTS)


def _varying(stream: Stream, ports: range) -> Sequence[int]:
    return ports if stream.shot.may_vary else (stream.shot.packet.source_port or 0,)


@functools.lru_cache(maxsize=256)
def _datagrams(stream: Stream, ports: Sequence[int]) -> tuple[bytes, ...]:
    """Return datagrams that differ in the source port of their session; each volley has most of the last."""
    packet, found = stream.shot.packet, list[bytes]()
    for port in ports:
        one = packet if packet.source_port is None else replace(packet, source_port=port)
        wire = encode_reply(one) if stream.part is Part.ANSWERING else encode_packet(one)
        if wire is None:
            raise AssertionError(f"nothing answers {stream.name}")
        found.extend(wire.datagrams(stream.mark.number))
    return tuple(found)


_USABLE = frozenset(os.sched_getaffinity(0))


def shared_processors() -> tuple[frozenset[int], frozenset[int]]:
    """Return the processors for who changes the policy, and those for who sends; one only is for both.

    Where both share a processor, nothing is sent while the kernel commits.
    """
    usable = sorted(_USABLE)
    return (frozenset(usable[:1]), frozenset(usable[1:] or usable))


@contextlib.contextmanager
def on_processors(chosen: frozenset[int]) -> Iterator[None]:
    """Keep the calling thread on some processors."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def _index_of(built: Lab, name: str) -> int:
    """Return the number of a link of the peer."""
    with built.peer.entered():
        return socket.if_nametoindex(name)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
