"""Measure every contender at one size: its operations one contender after the other, its packets in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from bench.frames import Frames
from bench.hosts import BenchHost, bench_host
from bench.packetcost import CONNTRACK_ONLY, Effort, take_turns
from bench.peers.contender import Contender, Hook, Newcomer, Took, is_group, rules_of
from bench.peers.contenders import CONTENDERS
from bench.peers.figures import Counted, Figures, Operation
from bench.peers.place import PlaceError, TooSlowError, place_in
from bench.peers.watch import Probes, Stream, Watch
from bench.policies import BenchPolicy, MemberGroup, with_rule
from bench.processor import LostPacketsError
from bench.results import PacketCost, Spread
from bench.traffic import Aim, choose
from integration.lab import LabError
from sgagent.core.model import TCP, Policy, PortSet
from sgagent.core.policy import ResolvedRule

_ENOUGH_SECONDS = 5.0
"""What took so long is not repeated."""

_LONGEST_STREAM_SECONDS = 30.0
"""No stream is sent while something changes that takes longer: the smaller sizes have shown it."""

_MOST_STREAMED = 20
_ENOUGH_STREAMED_SECONDS = 2.0
"""Changes are made under a stream for so long, or so often."""

_FIRST_NEWCOMER = int(IPv4Address("10.200.0.0"))
_FIRST_PORT = 60_600
_KIBIBYTES_PER_MEBIBYTE = 1024
_SINK = """
table ip bench_sink {
    chain entered {
        type filter hook input priority 200; policy drop;
    }
}
"""
"""Drops what got in, behind those that judge there."""


@dataclass(slots=True)
class Bout:
    """One contender on a host of its own, and its costs so far."""

    name: str
    policy: BenchPolicy
    probes: Probes
    repeats: int
    _seconds: dict[str, Spread] = field(default_factory=dict)
    _failures: dict[str, str] = field(default_factory=dict)
    _most: float = 0.0
    _reloads: int = 0

    def measure(self, stack: contextlib.ExitStack) -> tuple[Figures, BenchHost | None]:
        """Measure all operations, and leave the host to the stack; None if nobody knows its policy."""
        starts: list[Took] = []
        began = time.perf_counter()
        with contextlib.suppress(_NotMeasuredError):
            while len(starts) < self.repeats - 1 and _goes_on(began):
                with contextlib.ExitStack() as soon:
                    starts.append(self._started(soon)[2])
            host, contender, took = self._started(stack)
            self._keep(Operation.START, [*starts, took])
            figures = self._measure_running(host, contender)
            return figures, None if Operation.RELOAD.value in self._failures else host
        return self._figures(), None

    def _started(self, stack: contextlib.ExitStack) -> tuple[BenchHost, Contender, Took]:
        host = stack.enter_context(bench_host(""))
        kind = CONTENDERS[self.name]
        contender = kind(stack.enter_context(place_in(host.host, has_packages=kind.has_packages)))
        stack.callback(contender.close)
        with self._trying(Operation.START):
            return host, contender, contender.start(self.policy)

    def _measure_running(self, host: BenchHost, contender: Contender) -> Figures:
        watch = Watch(host, self.probes)
        wrong = watch.probe()
        self._measure_changes(contender)
        watch.probe()
        counted = self._measure_reload(host, contender)
        stream = self._stream(watch, contender)
        watch.end()
        steady = _mebibytes(contender.processes(), "VmRSS")
        self._most = max(self._most, _mebibytes(contender.processes(), "VmHWM"))
        made = self._figures()
        return dataclasses.replace(made, steady_mebibytes=steady, wrong=wrong, stream=stream, counted=counted)

    def _measure_changes(self, contender: Contender) -> None:
        """Measure a member's coming, and a rule's."""
        group = _spoken_of(self.policy)
        newcomers = (
            Newcomer(group, IPv4Address(_FIRST_NEWCOMER + 2 * number)) for number in range(self.repeats)
        )
        self._repeat(Operation.MEMBER, (partial(contender.add_member, newcomer) for newcomer in newcomers))
        rules = (_new_rule(self.policy, number) for number in range(self.repeats))
        self._repeat(Operation.RULE, (partial(contender.add_rule, rule) for rule in rules))

    def _measure_reload(self, host: BenchHost, contender: Contender) -> Counted | None:
        """Measure how changed files are read again, and the effect on counters."""
        before = _counted_packets(host)
        calls = (partial(self._reload, contender) for _ in range(self.repeats))
        if not self._repeat(Operation.RELOAD, calls):
            return None
        return Counted(before=before, after=_counted_packets(host))

    def _stream(self, watch: Watch, contender: Contender) -> Stream | None:
        """Send packets while the files, which now say something else, are read again."""
        took = self._seconds.get(Operation.RELOAD.value)
        if took is None or took.median > _LONGEST_STREAM_SECONDS:
            return None
        with contextlib.suppress(_NotMeasuredError), self._trying(Operation.RELOAD):
            with watch.streaming() as sender:
                changes = self._reload_for_a_while(contender)
            return dataclasses.replace(sender.outcome, changes=changes)
        return None

    def _reload_for_a_while(self, contender: Contender) -> int:
        """Change the policy as often as there is time for, and return how often that was."""
        until = time.perf_counter() + _ENOUGH_STREAMED_SECONDS
        for number in range(_MOST_STREAMED):
            self._reload(contender)
            if time.perf_counter() > until:
                return number + 1
        return _MOST_STREAMED

    def _reload(self, contender: Contender) -> Took:
        """Have a rule more, or the policy as it was, by turns."""
        self._reloads += 1
        return contender.reload(with_rule(self.policy) if self._reloads % 2 else self.policy)

    def _repeat(self, operation: Operation, calls: Iterator[Callable[[], Took]]) -> bool:
        """Do something until it was done often enough, and tell whether it can be done."""
        took: list[Took] = []
        began = time.perf_counter()
        with contextlib.suppress(_NotMeasuredError), self._trying(operation):
            for call in calls:
                took.append(call())
                if not _goes_on(began):
                    break
            self._keep(operation, took)
        return bool(took)

    def _keep(self, operation: Operation, took: Sequence[Took]) -> None:
        self._seconds[operation.value] = Spread.of(one.seconds for one in took)
        self._most = max(self._most, *(one.mebibytes for one in took))

    @contextlib.contextmanager
    def _trying(self, operation: Operation) -> Iterator[None]:
        """Keep why something did not work."""
        try:
            yield
        except (TooSlowError, LabError) as error:
            self._failures[operation.value] = "> 120 s"
            raise _NotMeasuredError(operation.value) from error
        except (PlaceError, LostPacketsError, subprocess.SubprocessError) as error:
            self._failures[operation.value] = str(error)
            raise _NotMeasuredError(operation.value) from error

    def _figures(self) -> Figures:
        return Figures(
            size=self.policy.size,
            contender=self.name,
            seconds=self._seconds,
            failures=self._failures,
            peak_mebibytes=self._most,
        )


def _goes_on(began: float) -> bool:
    """Tell whether there is time to do it once more."""
    return time.perf_counter() - began < _ENOUGH_SECONDS


class _NotMeasuredError(Exception):
    """Say that an operation did not work; why is kept."""


def _spoken_of(policy: BenchPolicy) -> MemberGroup:
    """Return a group that some rule speaks of: nothing need change in the kernel for the others."""
    objects = (rule.authorization_object for rule in policy.rules)
    return next(found for found in objects if isinstance(found, MemberGroup))


def _new_rule(policy: BenchPolicy, number: int) -> ResolvedRule:
    """Return a rule like one for a group that there is, but for a port that none has."""
    model = next(rule for rule in rules_of(policy.resolved) if is_group(rule.peer))
    port = _FIRST_PORT + number
    return dataclasses.replace(
        model,
        rule_id=f"sgr-new-{number}",
        policy=Policy.ACCEPT,
        priority=50,
        protocols=(TCP,),
        ports=PortSet.of((port, port)),
    )


def measure_packets(
    policy: BenchPolicy, hosts: Mapping[str, BenchHost], effort: Effort
) -> Iterator[PacketCost]:
    """Measure packets that open sessions, each above connection tracking with the drop at the same place."""
    with contextlib.ExitStack() as stack:
        floors = {hook: stack.enter_context(bench_host("")) for hook in Hook}
        all_hosts = {_floor(hook): host for hook, host in floors.items()} | dict(hosts)
        hooks = {_floor(hook): hook for hook in Hook} | {name: CONTENDERS[name].hook for name in hosts}
        for name, host in all_hosts.items():
            _close(host, hooks[name])
        for aim in (Aim.SPREAD, Aim.NONE):
            rounds = take_turns(all_hosts, Frames(choose(policy, aim, effort.frames)), effort)
            for name in all_hosts:
                floor = _floor(hooks[name])
                yield PacketCost(
                    size=policy.size,
                    session="new",
                    aim=aim.value,
                    contender=name,
                    whole=Spread.of(found[name] for found in rounds),
                    above=Spread.of(found[name] - found[floor] for found in rounds),
                )


def _floor(hook: Hook) -> str:
    return f"{CONNTRACK_ONLY}, {hook.value}"


def _close(host: BenchHost, hook: Hook) -> None:
    """Drop from now on whatever is let in, right behind where that is decided."""
    if hook is Hook.EDGE:
        host.close_edge()
    else:
        host.host.nft("-f", "-", stdin=_SINK)


def _counted_packets(host: BenchHost) -> int:
    """Return the sum of all counters that are not the bench's."""
    listing = json.loads(host.host.run("nft", "-j", "list", "ruleset", seconds=120))
    return sum(_packets_of(item) for item in listing["nftables"])


def _packets_of(item: Mapping[str, Mapping[str, object]]) -> int:
    ((kind, content),) = item.items()
    if str(content.get("table", "")).startswith("bench_"):
        return 0
    if kind == "counter":
        return int(str(content["packets"]))
    expressions = content.get("expr", []) if kind == "rule" else []
    if not isinstance(expressions, list):
        return 0
    counters = (expression["counter"] for expression in expressions if "counter" in expression)
    return sum(int(counter["packets"]) for counter in counters if isinstance(counter, dict))


def _mebibytes(processes: Sequence[int], what: str) -> float:
    """Return the memory of processes by their status, all together."""
    return sum(_kibibytes(process, what) for process in processes) / _KIBIBYTES_PER_MEBIBYTE


def _kibibytes(process: int, what: str) -> int:
    lines = Path("/proc", str(process), "status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{what}:")))
