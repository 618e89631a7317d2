"""Measure the cost of a packet under several rulesets, in turns, so that a disturbance hits all."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.frames import MOST_PER_CALL, Frames
from bench.hosts import BenchHost, bench_host
from bench.linear import Order, render_linear
from bench.overlapping import OverlappingPolicy
from bench.policies import INTERFACE, BenchPolicy
from bench.processor import one_processor
from bench.results import PacketCost, Spread
from bench.traffic import Aim, choose, choose_sessions
from sgagent.compiler.compilation import compile_
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.text import render

OURS = "sgagent"
CONNTRACK_ONLY = "conntrack only"
NO_FIREWALL = "no firewall"
ESTABLISHED_ONLY = "established accept, alone"

LAYOUT = MarkLayout(0xFFFF0000)

_SESSIONS = 512
_PROBE_FRAMES = 16
_CALL_NANOSECONDS = 5_000_000
"""About how long one call of the kernel may last: short against a round."""

ESTABLISHED_RULESET = f"""
table ip established {{
    chain ingress {{
        type filter hook prerouting priority -150; policy accept;
        iifname != "{INTERFACE}" accept
        ct state established accept
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured."""

    rounds: int
    seconds: float
    """For each contender in each round."""

    frames: int
    """Different packets."""


FULL = Effort(rounds=25, seconds=0.05, frames=16_384)
QUICK = Effort(rounds=7, seconds=0.02, frames=4_096)


def compiled_text(policy: BenchPolicy | OverlappingPolicy) -> str:
    """Return the policy's ruleset as sgagent compiles it."""
    state = first_state([INTERFACE], LAYOUT)
    return render(compile_(policy.resolved, LAYOUT, state).ruleset, persist=False)


def measure_new(policy: BenchPolicy, effort: Effort) -> Iterator[PacketCost]:
    """Measure packets that open sessions, under our ruleset and under linear ones."""
    rulesets = {CONNTRACK_ONLY: "", OURS: compiled_text(policy)}
    rulesets |= {order.value: render_linear(policy.resolved, order) for order in Order}
    with contextlib.ExitStack() as stack:
        hosts = {name: stack.enter_context(bench_host(text)) for name, text in rulesets.items()}
        for host in hosts.values():
            host.close_edge()
        for aim in Aim:
            frames = Frames(choose(policy, aim, effort.frames))
            rounds = take_turns(hosts, frames, effort)
            yield from measured_costs(rounds, policy, "new", aim.value, CONNTRACK_ONLY)


def measure_known(policy: BenchPolicy, effort: Effort) -> Iterator[PacketCost]:
    """Measure packets of known sessions, under our ruleset and under the least that knows sessions."""
    sessions = choose_sessions(policy, _SESSIONS)
    rulesets = {CONNTRACK_ONLY: "", ESTABLISHED_ONLY: ESTABLISHED_RULESET, OURS: compiled_text(policy)}
    with contextlib.ExitStack() as stack:
        hosts = {name: stack.enter_context(bench_host(text)) for name, text in rulesets.items()}
        for host in hosts.values():
            host.open_sessions(sessions)
        hosts[NO_FIREWALL] = stack.enter_context(bench_host("", tracks=False))
        for host in hosts.values():
            host.close_edge()
        frames = Frames([session.request for session in sessions])
        rounds = take_turns(hosts, frames, effort)
        yield from measured_costs(rounds, policy, "known", "known sessions", CONNTRACK_ONLY)


def take_turns(hosts: Mapping[str, BenchHost], frames: Frames, effort: Effort) -> list[Mapping[str, float]]:
    """Return nanoseconds per packet for each host, round by round."""
    with one_processor():
        turns = {name: _Turn(host, frames) for name, host in hosts.items()}
        return [
            {name: turn.take(effort.seconds) for name, turn in turns.items()} for _ in range(effort.rounds)
        ]


class _Turn:
    """Send to one host for a while, going on with the frames where the last turn ended."""

    def __init__(self, host: BenchHost, frames: Frames) -> None:
        self._host = host
        self._frames = frames
        self._next = 0
        probe = min(_PROBE_FRAMES, frames.count)
        each = max(1, frames.send(host.wire, 0, probe) // probe)
        self._per_call = max(1, min(MOST_PER_CALL, frames.count, _CALL_NANOSECONDS // each))

    def take(self, seconds: float) -> float:
        """Return the median of the calls' nanoseconds per packet."""
        self._call()
        until = time.monotonic() + seconds
        found = [self._call()]
        while time.monotonic() < until:
            found.append(self._call())
        return statistics.median(found)

    def _call(self) -> float:
        if self._next + self._per_call > self._frames.count:
            self._next = 0
        took = self._frames.send(self._host.wire, self._next, self._per_call)
        self._next += self._per_call
        return took / self._per_call


def measured_costs(
    rounds: Sequence[Mapping[str, float]], policy: BenchPolicy, session: str, aim: str, baseline: str
) -> Iterator[PacketCost]:
    """Yield the costs of each contender's packets, by themselves and above the baseline's."""
    for contender in rounds[0]:
        yield PacketCost(
            size=policy.size,
            session=session,
            aim=aim,
            contender=contender,
            whole=Spread.of(found[contender] for found in rounds),
            above=Spread.of(found[contender] - found[baseline] for found in rounds),
        )
