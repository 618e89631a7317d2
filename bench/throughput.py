"""Measure TCP's throughput from a peer to a host: without a firewall, under the least, and under sgagent.

``python -m bench.throughput``, as root; ``--write`` keeps it. The contenders take turns, each with hosts and
a session of its own that stays open. Sender and receiver have a processor each where there are two.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address

from bench.frames import HOST_MAC
from bench.goals import Goal
from bench.hosts import BenchHost, bench_host
from bench.packetcost import (
    CONNTRACK_ONLY,
    ESTABLISHED_ONLY,
    ESTABLISHED_RULESET,
    NO_FIREWALL,
    OURS,
    compiled_text,
)
from bench.policies import INTERFACE, BenchPolicy, invent, with_rule
from bench.results import Spread
from bench.section import Section, begin, figure, finish, goal_table, parser_of, table
from bench.sizes import SIZES
from bench.traffic import HOST_ADDRESS

NAME = "throughput"
LEAST_SHARE = 0.98
"""Of what TCP carries without a firewall."""

SIZE = SIZES[2]
ROUNDS, QUICK_ROUNDS = 60, 4
_ROUND_SECONDS = 0.1
_CHUNK = 1 << 20
_BUFFER = 4 << 20
_DEADLINE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The throughput of one contender."""

    packets: str
    """How large they were."""

    contender: str
    gigabits: Spread
    """A second."""

    share: Spread
    """Of what was carried without a firewall in the same round."""


def measure_throughput(policy: BenchPolicy, rounds: int) -> list[Carried]:
    """Measure all contenders, first with packets as the kernel joins them, then with such as cross a wire."""
    policy = with_rule(policy)
    new = policy.rules[-1]
    source, port = IPv4Address(policy.groups[0].numbers[1]), new.ports[0]
    rulesets = {
        NO_FIREWALL: "",
        CONNTRACK_ONLY: "",
        ESTABLISHED_ONLY: ESTABLISHED_RULESET,
        OURS: compiled_text(policy),
    }
    found: list[Carried] = []
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        hosts = {
            name: stack.enter_context(bench_host(text, tracks=name != NO_FIREWALL))
            for name, text in rulesets.items()
        }
        sessions = {
            name: stack.enter_context(_session(host, (str(source), port), pool))
            for name, host in hosts.items()
        }
        for packets in ("up to 64 KiB", "up to 1,500 bytes"):
            found.extend(_carried(packets, _take_turns(sessions, rounds)))
            for host in hosts.values():
                host.peer.ip(f"link set {INTERFACE} gso_max_segs 1")
    return found


@contextlib.contextmanager
def _session(host: BenchHost, end: tuple[str, int], pool: Executor) -> Iterator[_Session]:
    """Open a session from the peer to the host, from an address that the policy lets in."""
    source, port = end
    host.peer.ip(
        f"address add {source}/32 dev {INTERFACE}",
        f"route add {HOST_ADDRESS} dev {INTERFACE} src {source}",
        f"neighbour replace {HOST_ADDRESS} lladdr {HOST_MAC} dev {INTERFACE} nud permanent",
    )
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(host.host.socket(socket.AF_INET, socket.SOCK_STREAM))
        sender = stack.enter_context(host.peer.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        for opened in (listener, sender):
            opened.settimeout(_DEADLINE_SECONDS)
        listener.bind((str(HOST_ADDRESS), port))
        listener.listen()
        sender.connect((str(HOST_ADDRESS), port))
        receiver = stack.enter_context(listener.accept()[0])
        receiver.settimeout(_DEADLINE_SECONDS)
        yield _Session(sender, receiver, pool)


@dataclass(frozen=True, slots=True)
class _Session:
    """Both ends of a TCP session."""

    sender: socket.socket
    receiver: socket.socket
    pool: Executor

    def carry(self, chunks: int) -> float:
        """Send so many chunks, and return the seconds until the last one was received."""
        began = time.perf_counter()
        received = self.pool.submit(self._receive, chunks * _CHUNK)
        with _on(min):
            chunk = memoryview(bytes(_CHUNK))
            for _ in range(chunks):
                self.sender.sendall(chunk)
            return received.result(_DEADLINE_SECONDS) - began

    def _receive(self, count: int) -> float:
        buffer = memoryview(bytearray(_CHUNK))
        with _on(max):
            while count:
                taken = self.receiver.recv_into(buffer, min(count, _CHUNK))
                if not taken:
                    raise ConnectionError("the sender ended the session")
                count -= taken
            return time.perf_counter()


@contextlib.contextmanager
def _on(choose: Callable[[set[int]], int]) -> Iterator[None]:
    """Keep the calling thread on one of the processors."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {choose(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _take_turns(sessions: Mapping[str, _Session], rounds: int) -> list[Mapping[str, float]]:
    """Return bytes a second for each session, round by round, each beginning with another one."""
    first = next(iter(sessions.values()))
    first.carry(64)
    chunks = max(1, int(64 * _ROUND_SECONDS / first.carry(64)))
    names, found = list(sessions), list[Mapping[str, float]]()
    for number in range(rounds):
        order = names[number % len(names) :] + names[: number % len(names)]
        found.append({name: chunks * _CHUNK / sessions[name].carry(chunks) for name in order})
    return found


def _carried(packets: str, rounds: Sequence[Mapping[str, float]]) -> Iterator[Carried]:
    for contender in (NO_FIREWALL, CONNTRACK_ONLY, ESTABLISHED_ONLY, OURS):
        yield Carried(
            packets=packets,
            contender=contender,
            gigabits=Spread.of(8e-9 * found[contender] for found in rounds),
            share=Spread.of(found[contender] / found[NO_FIREWALL] for found in rounds),
        )


def judge(found: Sequence[Carried]) -> Iterator[Goal]:
    """Yield the goal for throughput, with packets as a host sees them."""
    ours = next(carried for carried in found if carried.contender == OURS)
    yield Goal.at_least(LEAST_SHARE, "TCP under sgagent, of TCP without a firewall", ours.share.median)


def lines(found: Sequence[Carried]) -> Iterator[str]:
    """Yield the goal, and the table: Gbit/s, and the share of the throughput of a host without a firewall."""
    yield from goal_table(list(judge(found)))
    carried_by = {(carried.contender, carried.packets): carried for carried in found}
    packets = list(dict.fromkeys(carried.packets for carried in found))
    yield from table(
        ("Gbit/s (share: median, quartiles)", *packets),
        (
            (contender, *(_cell(carried_by[contender, each]) for each in packets))
            for contender in dict.fromkeys(carried.contender for carried in found)
        ),
    )


def _cell(carried: Carried) -> str:
    share = carried.share
    return f"{figure(carried.gigabits.median)} ({share.median:.2f}, {share.low:.2f} to {share.high:.2f})"


def main(argv: Sequence[str]) -> int:
    """Measure, and print tables."""
    options = parser_of(NAME, "Measure what TCP carries.").parse_args(argv)
    begin()
    found = measure_throughput(invent(SIZE), QUICK_ROUNDS if options.quick else ROUNDS)
    return finish(Section(NAME, list(lines(found)), found), list(judge(found)), writes=options.write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
