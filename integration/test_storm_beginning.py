"""The first apply closes a host for good: behind the first packet that is dropped no forbidden one passes.

Until there is a table everything passes. Packets are numbered in the order in which they are sent, by one
processor, and the numbers of those that passed are noted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest

from integration.bulk import Batch, socket_address
from integration.enforcer import Enforcer, enforcer
from integration.lab import HOST_MAC, TEST_MAC, Lab, LabError
from integration.pairs import Pair, Shot, passes, shots
from integration.probe import LAST_IDENTITY, probing
from integration.storm import bench, storm_on
from integration.stormpairs import DROP_ON_A_LIST, SMALL
from integration.streams import Kind, Tally, on_processors, shared_processors
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft import names
from sgagent.policy_test.packet_bytes import checksum, encode_packet

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
TRIES = 20 if IS_FULL else 1
BESIDE = 200
"""Rules of another link, so that the first commit takes a while."""

_OF_A_BATCH = 48
_BEHIND_BATCHES = 4
_AHEAD_BATCHES = 8


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    """Build the bench."""
    with bench() as built:
        yield built


class NumbersUsedUpError(LabError):
    """Say that the machine was too busy: all numbers were sent before the policy was enforced."""


class Numbered:
    """Sends packets with the numbers 1, 2, 3 and so on, in this order, until it is stopped."""

    def __init__(self, lab: Lab, chosen: Sequence[Shot], processor: int) -> None:
        """Make the packets.

        Args:
            lab: the bench.
            chosen: what is sent in turn; all go one way.
            processor: on which they are sent; its queue keeps them in order.
        """
        self._processor = processor
        self.sent = 0
        """The last number that was sent."""

        self._lab = lab
        self._templates = [_template(shot.packet) for shot in chosen]
        self._stop, self._has_begun = threading.Event(), threading.Event()
        self._opened = self._socket(chosen[0].packet)
        self._batches = [
            self._batch(range(first, first + _OF_A_BATCH))
            for first in range(1, LAST_IDENTITY - _OF_A_BATCH, _OF_A_BATCH)
        ]
        self._thread = threading.Thread(target=self._run, name="numbered")

    def begin(self) -> None:
        """Send from now on, and return when some packets were sent."""
        self._thread.start()
        self._has_begun.wait()

    def end(self) -> None:
        """Send some packets more, and stop.

        Raises:
            NumbersUsedUpError: the numbers did not suffice.
        """
        self._stop.set()
        self._thread.join()
        self._opened.close()
        if self.sent >= len(self._batches) * _OF_A_BATCH:
            raise NumbersUsedUpError

    def _run(self) -> None:
        os.sched_setaffinity(0, {self._processor})
        left = _BEHIND_BATCHES
        for place, batch in enumerate(self._batches):
            batch.send()
            self.sent += len(batch)
            if place == _AHEAD_BATCHES:
                self._has_begun.set()
            if self._stop.is_set():
                left -= 1
            if left == 0:
                break
        self._has_begun.set()

    def _batch(self, numbers: range) -> Batch:
        """Return packets with numbers."""
        packets, addresses = [], []
        for number in numbers:
            ether, datagram, address = self._templates[number % len(self._templates)]
            packets.append(ether + _numbered(datagram, number))
            addresses.append(address)
        return Batch(self._opened, packets, addresses)

    def _socket(self, packet: Packet) -> socket.socket:
        """Return the socket by which packets like this one are sent."""
        if packet.direction is Direction.INGRESS:
            opened = self._lab.peer.socket(socket.AF_PACKET, socket.SOCK_RAW)
            opened.bind(("eth0", 0))
            return opened
        family = socket.AF_INET if packet.family is Family.IPV4 else socket.AF_INET6
        return self._lab.host.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _template(packet: Packet) -> tuple[bytes, bytes, bytes]:
    """Return the Ethernet header of a packet, its datagram, and the address that a socket sends it to.

    What the host sends has no header, and only that has an address.
    """
    wire = encode_packet(packet)
    datagram = next(wire.datagrams(1))
    if packet.direction is Direction.EGRESS:
        return b"", datagram, socket_address(str(wire.destination))
    return _ether(packet.family), datagram, b""


def _ether(family: Family) -> bytes:
    """Return the header of frames from the peer to the host."""
    kind = 0x0800 if family is Family.IPV4 else 0x86DD
    return bytes.fromhex((HOST_MAC % 0 + TEST_MAC).replace(":", "")) + struct.pack("!H", kind)


def _numbered(datagram: bytes, number: int) -> bytes:
    """Return a datagram with another number in its header."""
    if datagram[0] >> 4 == 6:
        return struct.pack("!I", 6 << 28 | number) + datagram[4:]
    header = datagram[:4] + struct.pack("!H", number) + datagram[6:10] + bytes(2) + datagram[12:20]
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + datagram[20:]


@dataclass(frozen=True, slots=True)
class Beginning:
    """The fates of numbered packets while a host was closed."""

    open_until: int
    """The first packet that was dropped."""

    late: tuple[int, ...]
    """Forbidden packets behind it that passed."""

    lost: tuple[int, ...]
    """Allowed packets that did not pass."""

    closed: int
    """Forbidden packets that were dropped."""


def begin(host: Lab, agent: Enforcer, policy: ResolvedPolicy, chosen: Sequence[Shot]) -> Beginning:
    """Enforce a policy while packets come, and return their fates."""
    for_changes, for_senders = shared_processors()
    numbered = Numbered(host, chosen, min(for_senders))
    with probing(host.host, TEST_MAC) as probe:
        numbered.begin()
        try:
            with on_processors(for_changes):
                agent.enforce(policy)
        finally:
            numbered.end()
        seen = probe.seen(4 if chosen[0].packet.family is Family.IPV4 else 6)
    is_allowed = [passes(policy, shot.packet) for shot in chosen]
    forbidden = [n for n in range(1, numbered.sent + 1) if not is_allowed[n % len(chosen)]]
    allowed = [n for n in range(1, numbered.sent + 1) if is_allowed[n % len(chosen)]]
    dropped = [number for number in forbidden if number not in seen]
    first = dropped[0] if dropped else numbered.sent + 1
    return Beginning(
        open_until=first,
        late=tuple(number for number in forbidden if number > first and number in seen),
        lost=tuple(number for number in allowed if number not in seen),
        closed=len(dropped),
    )


def nothing(host: Lab) -> None:
    """Leave no table."""
    host.host.remove_table("sgagent")


def table_of_others(host: Lab) -> None:
    """Leave a table that binds another link."""
    nothing(host)
    with enforcer(host) as agent:
        agent.enforce(replace(DROP_ON_A_LIST.before, bound={"eth2": "sg-1"}).policy())


def table_to_be_made_anew(host: Lab) -> None:
    """Leave one with a chain of a name that the policy needs, which can't be changed into that."""
    table_of_others(host)
    chain = names.invalid_chain(Direction.INGRESS, "eth0")
    host.host.nft("add", "chain", "inet", "sgagent", chain, '{ comment "of others" ; }')


def begin_in_time(
    host: Lab, prepare: Callable[[Lab], None], policy: ResolvedPolicy, chosen: Sequence[Shot]
) -> Beginning:
    """Begin, and begin again where the machine was too busy."""
    for _ in range(_ATTEMPTS - 1):
        prepare(host)
        with enforcer(host) as agent, contextlib.suppress(NumbersUsedUpError):
            return begin(host, agent, policy, chosen)
    prepare(host)
    with enforcer(host) as agent:
        return begin(host, agent, policy, chosen)


_ATTEMPTS = 5

_PAIRS = [
    pair
    for pair in SMALL
    if pair.name in ("drop_on_a_list", "accept_for_a_list", "network_is_cut", "map_of_udp_ranges")
]
"""Those whose first table takes sessions away in different ways: by a list, by a network, by default."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize("prepare", (nothing, table_of_others), ids=lambda prepare: prepare.__name__)
@pytest.mark.parametrize("pair", _PAIRS[1:] if IS_FULL else _PAIRS[1:2], ids=lambda pair: pair.name)
def test_nothing_forbidden_passes_after_a_drop(host: Lab, pair: Pair, prepare: Callable[[Lab], None]) -> None:
    """Allowed packets pass all the time, and forbidden ones never again once some were dropped."""
    policy = pair.beside(BESIDE).after.policy()
    closed = 0
    chosen = [shot for shot in shots((*pair.forbidden, *pair.allowed)) if not shot.is_forwarded]
    for _, (direction, family) in itertools.product(range(TRIES), itertools.product(Direction, Family)):
        mine = [s for s in chosen if s.packet.direction is direction and s.packet.family is family]
        found = begin_in_time(host, prepare, policy, mine)
        assert found.late == ()
        assert found.lost == ()
        closed += found.closed
    assert closed > 0


@pytest.mark.sampled(1)
@pytest.mark.parametrize("prepare", (nothing, table_of_others), ids=lambda prepare: prepare.__name__)
@pytest.mark.parametrize("pair", _PAIRS if IS_FULL else _PAIRS[::2], ids=lambda pair: pair.name)
def test_the_first_apply_ends_what_it_forbids(host: Lab, pair: Pair, prepare: Callable[[Lab], None]) -> None:
    """No session goes on that was opened while the host was being closed, and nothing allowed is lost."""
    tally = begin_under_storm(host, pair, prepare)
    assert tally.ended > 0
    assert tally.faults == {}, f"in {tally.changes} first applies"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("pair", _PAIRS if IS_FULL else _PAIRS[::2], ids=lambda pair: pair.name)
def test_no_session_goes_on_that_a_table_made_anew_forbids(host: Lab, pair: Pair) -> None:
    """Until its ranges are visible, packets may pass that it forbids, or be lost; none is remembered."""
    tally = begin_under_storm(host, pair, table_to_be_made_anew)
    assert tally.ended > 0
    assert tally.went_on == 0, f"in {tally.changes} first applies"


def begin_under_storm(host: Lab, pair: Pair, prepare: Callable[[Lab], None]) -> Tally:
    """Enforce a policy several times while sessions are opened, and return the packets' fates."""
    policy = pair.beside(BESIDE).after.policy()
    targets = [(Kind.DIFFERING, shot) for shot in shots(pair.forbidden)]
    targets += [(Kind.ALLOWED, shot) for shot in shots(pair.allowed)]
    with storm_on(host) as storm:
        storm.aim(ResolvedPolicy(), policy, targets)
        tally = Tally()
        for _ in range(4 * TRIES):
            prepare(host)
            with enforcer(host) as agent:
                tally += storm.change(policy, partial(agent.enforce, policy))
    return tally
