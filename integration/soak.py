"""Change a policy thousands of times under one daemon, and measure its cost in memory, files and time."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from time import perf_counter, process_time

from bench.policies import (
    GROUP_ID,
    INTERFACE,
    BenchPolicy,
    BenchRule,
    MemberGroup,
    invent,
    with_member,
    with_rule,
)
from bench.sizes import Size
from integration.lab import wait_for
from integration.service import Service
from sgagent.core.model import TCP, Policy

SIZE = Size(100, 1_000)
APPLIES = 10_000
WARM = 0.1
"""The part of all applies after which memory is taken as what is to stay."""

OF_A_SAMPLE = 100
"""How many of the first and of the last applies are compared."""

_APPLIED = '"ruleset_applied"'
_SCRAPED_EVERY = 10
_CONFIGURATION = f"""
[[interface]]
name = "{INTERFACE}"
security_group_ids = ["{GROUP_ID}"]
"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The resources of a process."""

    kibibytes: int
    """Resident in memory."""

    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Latency:
    """How long applies took, from the file that was renamed into place to the word that it is in force."""

    median: float
    worst_of_hundred: float
    processor: float
    """Seconds that both processes computed, on average."""

    yardstick: float
    """Seconds that a piece of work, always the same, computed meanwhile, on average. Beside other work of the
    machine, with which caches and processors are shared, both take longer."""

    @classmethod
    def of(cls, applies: Sequence[Apply]) -> Latency:
        """Return the median, the 99th percentile, and the computing time."""
        seconds = [apply.seconds for apply in applies]
        return cls(
            median=statistics.median(seconds),
            worst_of_hundred=statistics.quantiles(seconds, n=100, method="inclusive")[98],
            processor=statistics.mean(apply.processor for apply in applies),
            yardstick=statistics.mean(apply.yardstick for apply in applies),
        )


@dataclass(frozen=True, slots=True)
class Apply:
    """One change that was made and enforced."""

    seconds: float
    processor: float
    """Seconds that both processes computed since the change before."""

    yardstick: float
    """Seconds that the same work computed right after."""


@dataclass(frozen=True, slots=True)
class Soak:
    """The result of soaking."""

    applies: int
    warm: Mapping[str, Footprint]
    """The daemon's processes by name, when a tenth of the applies was done."""

    end: Mapping[str, Footprint]
    first: Latency
    last: Latency

    def growth(self, name: str) -> float:
        """Return by which part of itself a process's memory grew after the first tenth."""
        return self.end[name].kibibytes / self.warm[name].kibibytes - 1

    @property
    def slowdown(self) -> float:
        """Return how many times as much was computed for one of the last applies as for one of the first.

        What made everything slower is taken out.
        """
        first, last = (one.processor / one.yardstick for one in (self.first, self.last))
        return last / first

    def rows(self) -> Iterator[str]:
        """Yield the results as lines of tables."""
        yield f"| | after {int(self.applies * WARM):,} applies | after {self.applies:,} | growth |"
        yield "|---|---:|---:|---:|"
        for name, end in self.end.items():
            warm = self.warm[name]
            yield (
                f"| memory of the {name}, MiB | {warm.kibibytes / 1024:.1f} | {end.kibibytes / 1024:.1f}"
                f" | {self.growth(name):+.1%} |"
            )
            yield f"| its open files | {warm.descriptors} | {end.descriptors} | |"
        yield ""
        samples = f"first {OF_A_SAMPLE} | last {OF_A_SAMPLE}"
        yield f"| seconds from a renamed file to the word that it is in force | {samples} |"
        yield "|---|---:|---:|"
        yield f"| median | {self.first.median:.3f} | {self.last.median:.3f} |"
        yield f"| 99 of 100 below | {self.first.worst_of_hundred:.3f} | {self.last.worst_of_hundred:.3f} |"
        yield f"| of them computed, on average | {self.first.processor:.3f} | {self.last.processor:.3f} |"
        yield f"| the same, other work of the machine taken out | | {self.slowdown:.2f} times |"


def soak(service: Service, applies: int, note: Callable[[int, float], None]) -> Soak:
    """Start the daemon and change its policy so many times, each change for itself.

    Args:
        service: not started yet; its host has the bench's interface.
        applies: how many.
        note: told of each hundredth apply, and how long it took.
    """
    service.configure(_CONFIGURATION)
    policies = _changes(invent(SIZE))
    service.define(next(policies).document(), "policy.json")
    service.start()
    log = _Log(service.directory / "log")
    log.wait_for_apply()
    warm: Mapping[str, Footprint] = {}
    done: list[Apply] = []
    processes = (service.pid, service.applier_pid)
    spent = processor_seconds(processes)
    for number, policy in zip(range(1, applies + 1), policies, strict=False):
        text = policy.document()
        began = perf_counter()
        service.define(text, "policy.json")
        log.wait_for_apply()
        seconds, before, spent = perf_counter() - began, spent, processor_seconds(processes)
        done.append(Apply(seconds, spent - before, _yardstick()))
        if number % _SCRAPED_EVERY == 0:
            service.scrape()
        if number % OF_A_SAMPLE == 0:
            note(number, seconds)
        if number == int(applies * WARM):
            warm = footprints(service)
    first, last = done[:OF_A_SAMPLE], done[-OF_A_SAMPLE:]
    return Soak(applies, warm, footprints(service), Latency.of(first), Latency.of(last))


def _yardstick() -> float:
    """Return the seconds that a piece of work computes, which is always the same: less than a thousandth."""
    began = process_time()
    sorted(str(number) for number in range(1_000))
    return process_time() - began


def footprints(service: Service) -> Mapping[str, Footprint]:
    """Return the resources of each process of the daemon."""
    return {"agent": _footprint(service.pid), "applier": _footprint(service.applier_pid)}


def processor_seconds(processes: Iterable[int]) -> float:
    """Return how long processes have computed so far."""
    ticks = sum(map(_ticks, processes))
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # of the user and of the system


def _footprint(pid: int) -> Footprint:
    place = Path("/proc", str(pid))
    fields = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    return Footprint(
        kibibytes=int(fields["VmRSS"].split()[0]),
        descriptors=len(list((place / "fd").iterdir())),
        threads=int(fields["Threads"]),
    )


def _changes(policy: BenchPolicy) -> Iterator[BenchPolicy]:
    """Return policies without end, each one member, one rule or one group away from that before."""
    ways: tuple[Callable[[BenchPolicy], BenchPolicy], ...] = (with_member, with_rule, _with_group)
    changed = [False] * len(ways)
    for number in count():
        made = policy
        for way, is_changed in zip(ways, changed, strict=True):
            made = way(made) if is_changed else made
        yield made
        place = number % len(ways)
        changed[place] = not changed[place]


def _with_group(policy: BenchPolicy) -> BenchPolicy:
    """Return the policy with one more group, of which a rule of its own speaks."""
    last = policy.groups[-1].numbers.stop + 10
    group = MemberGroup("sg-new", range(last, last + 10))
    rule = BenchRule(
        rule_id="sgr-of-new",
        policy=Policy.DROP,
        priority=40,
        protocol=TCP,
        ports=(60_600, 60_700),
        authorization_object=group,
    )
    return replace(policy, groups=(*policy.groups, group), rules=(*policy.rules, rule))


@dataclass(slots=True)
class _Log:
    """The daemon's log, read once."""

    path: Path
    _read: int = 0
    _applied: int = field(default=0)
    _awaited: int = 0

    def wait_for_apply(self) -> None:
        """Wait until it says that one policy more is in force."""
        self._awaited += 1
        wait_for(self._is_there, f"apply {self._awaited}")

    def _is_there(self) -> bool:
        with self.path.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        self._applied += whole.count(_APPLIED.encode())
        return self._applied >= self._awaited
