"""Change a thousand members a second for a minute, and see whether the daemon keeps up and stays as it is.

``python -m bench.churn``, as root; ``--write`` keeps it. Each change writes the file of one group anew, or a
key of the store, at an even pace. All the while the newest member is followed into the kernel, then the next.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from bench.definition_writers import FIRST_NEWCOMER, store_writer
from bench.goals import Goal
from bench.installed import installed_agent, processor_seconds_of
from bench.membership import FileMembership, Member, Membership, StoreMembership
from bench.memory import mebibytes_together
from bench.policies import INTERFACE, BenchPolicy, invent
from bench.section import (
    COSTS_PAGE,
    Section,
    begin,
    figure,
    finish,
    milliseconds,
    parser_of,
    percentile,
    table,
)
from bench.sizes import SIZES
from integration.lab import LabError, wait_for
from integration.namespaces import Namespace, network_namespace
from integration.service import Service
from sgagent.core.model import Direction, Family
from sgagent.nft.names import peers_chain

NAME = "churn"
SIZE = SIZES[2]
A_SECOND = 1_000
SECONDS, QUICK_SECONDS = 60, 6
SAMPLES = 6
"""Equal parts of that time, for each of which is told what it took."""

MOST_LAG = 2.0
"""Seconds until a change is enforced, as is promised for a file."""

MOST_GROWTH = 1.1
"""Of memory, and of processor time, from the second part to the last."""

LEAST_COALESCED = 50
"""Changes that are enforced together, in the mean."""

_AT_ONCE = 10
_STAY = 2_000
"""Newcomers that are members at a time."""

_MAP = peers_chain(Direction.INGRESS, INTERFACE, Family.IPV4)
_ENFORCED_SECONDS = 60.0
_MOST_NEWCOMERS = 1 << 20


class Way(enum.Enum):
    """How changes get to the daemon."""

    FILES = "files"
    STORE = "etcd keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The costs of a part of the time."""

    changes: int
    applies: int
    processor_seconds: float
    """Of all processes."""

    mebibytes: float
    """Of both, at its end."""

    lags: tuple[float, ...]
    """Seconds until members who were followed were in the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """All that was measured of one way."""

    way: str
    seconds: float
    samples: tuple[Sample, ...]
    last_lag: float
    """Seconds after the very last change until the kernel had it."""

    missing: int
    """Members who are not in the kernel in the end."""

    left_over: int
    """Those who are in the kernel and have left."""

    @property
    def changes(self) -> int:
        """Return how many members joined or left."""
        return sum(sample.changes for sample in self.samples)

    @property
    def applies(self) -> int:
        """Return how many transactions enforced them."""
        return sum(sample.applies for sample in self.samples)

    @property
    def lags(self) -> tuple[float, ...]:
        """Return all lags, the last one among them."""
        return (*(lag for sample in self.samples for lag in sample.lags), self.last_lag)


def measure_churn(policy: BenchPolicy, way: Way, seconds: int) -> Churn:
    """Change members for so many seconds."""
    with (
        network_namespace("churn") as host,
        tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory,
        installed_agent(host, Path(directory)) as service,
        _membership(service, policy, way) as membership,
    ):
        service.start()
        crowd, began = _Crowd(membership), time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            pace = _Pace(service, crowd, _Follower(host, pool))
            samples = [pace.keep(seconds / SAMPLES) for _ in range(SAMPLES)]
            lasted = time.monotonic() - began
            lag = _Follower(host, pool).lag_of(crowd.move())
        with contextlib.suppress(LabError):  # who is there wrongly is told
            wait_for(lambda: _newcomers(host) == crowd.present, "those who left to go", _ENFORCED_SECONDS)
        there = _newcomers(host)
        return Churn(
            way=way.value,
            seconds=lasted,
            samples=tuple(samples),
            last_lag=lag,
            missing=len(crowd.present - there),
            left_over=len(there - crowd.present),
        )


@contextlib.contextmanager
def _membership(service: Service, policy: BenchPolicy, way: Way) -> Iterator[Membership]:
    if way is Way.FILES:
        yield FileMembership(service, policy)
        return
    with store_writer(service, policy, service.namespace, service.directory / "store") as writer:
        yield StoreMembership(writer)


@dataclass(slots=True)
class _Crowd:
    """Members who come and go."""

    membership: Membership
    changes: int = 0
    _dice: random.Random = field(default_factory=lambda: random.Random(3))
    _there: deque[Member] = field(default_factory=deque)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def move(self) -> IPv4Address:
        """Have some join, and those leave who came first if there are many; return who joined last."""
        leaving = len(self._there) >= _STAY
        count = _AT_ONCE // 2 if leaving else _AT_ONCE
        joined = [
            Member(self._dice.randrange(self.membership.groups), FIRST_NEWCOMER + next(self._numbers))
            for _ in range(count)
        ]
        left = [self._there.popleft() for _ in range(count)] if leaving else []
        self.membership.write(joined, left)
        self._there.extend(joined)
        self.changes += len(joined) + len(left)
        return joined[-1].address

    @property
    def present(self) -> set[IPv4Address]:
        """Return who has come and not gone."""
        return {member.address for member in self._there}


@dataclass(slots=True)
class _Follower:
    """Waits, beside the one who asks, until the kernel knows a member."""

    host: Namespace
    pool: Executor
    _lag: Future[float] | None = None

    def follow(self, address: IPv4Address) -> None:
        """Follow a member from now on, if nobody else is followed."""
        if self._lag is None:
            self._lag = self.pool.submit(self._wait, address, time.perf_counter())

    def lag_of(self, address: IPv4Address) -> float:
        """Return how many seconds it takes until the kernel knows a member."""
        return self._wait(address, time.perf_counter())

    def take(self) -> float | None:
        """Return how many seconds it took, once; None while nobody has been seen."""
        if self._lag is None or not self._lag.done():
            return None
        lag, self._lag = self._lag.result(), None
        return lag

    def _wait(self, address: IPv4Address, since: float) -> float:
        wait_for(lambda: _has(self.host, address), f"{address} to be enforced", _ENFORCED_SECONDS)
        return time.perf_counter() - since


@dataclass(slots=True)
class _Pace:
    """Moves the crowd, so many times a second."""

    service: Service
    crowd: _Crowd
    follower: _Follower
    _due: float = field(default_factory=time.monotonic)

    def keep(self, seconds: float) -> Sample:
        """Go on for a while, and return the daemon's costs of that."""
        lags, changes = list[float](), self.crowd.changes
        spent, applies, until = processor_seconds_of(self.service), self._applies(), self._due + seconds
        while self._due < until:
            _IMPATIENCE.wait(max(0.0, self._due - time.monotonic()))
            self.follower.follow(self.crowd.move())
            if (lag := self.follower.take()) is not None:
                lags.append(lag)
            self._due += _AT_ONCE / A_SECOND
        return Sample(
            changes=self.crowd.changes - changes,
            applies=self._applies() - applies,
            processor_seconds=processor_seconds_of(self.service) - spent,
            mebibytes=mebibytes_together(self.service.process_ids),
            lags=tuple(lags),
        )

    def _applies(self) -> int:
        return self.service.log.count('"ruleset_applied"')


_IMPATIENCE = threading.Event()
"""Is never set: to wait for it is to wait until something is due."""


def _has(host: Namespace, address: IPv4Address) -> bool:
    """Tell whether the kernel knows a member."""
    argv = ("nft", "get", "element", "inet", "sgagent", _MAP, f"{{ {address} }}")
    with host.entered():
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _newcomers(host: Namespace) -> set[IPv4Address]:
    """Return those whom the kernel knows of who were in no group at first."""
    listing = json.loads(host.nft("-j", "list", "map", "inet", "sgagent", _MAP))
    (elements,) = (item["map"]["elem"] for item in listing["nftables"] if "map" in item)
    found = (IPv4Address(address) for address, _ in elements if isinstance(address, str))
    return {address for address in found if FIRST_NEWCOMER <= address < FIRST_NEWCOMER + _MOST_NEWCOMERS}


def judge(found: Sequence[Churn]) -> Iterator[Goal]:
    """Yield the goals for many changes."""
    for churn in found:
        way, wrong = churn.way, churn.missing + churn.left_over
        yield Goal.at_most(MOST_LAG, f"{way}: time until a change is enforced", max(churn.lags), "s")
        yield Goal(f"{way}: wrong members after {churn.changes:,} changes", "0", wrong, wrong == 0)
        for what, growth in _growth(churn):
            yield Goal.at_most(MOST_GROWTH, f"{way}: {what}, last sixth against the second", growth, "times")
        each = churn.changes / max(1, churn.applies)
        yield Goal.at_least(LEAST_COALESCED, f"{way}: changes an apply", each)


def _growth(churn: Churn) -> Iterator[tuple[str, float]]:
    _, second, *_, last = churn.samples
    yield "processor time", last.processor_seconds / second.processor_seconds
    yield "memory", last.mebibytes / second.mebibytes


def lines(found: Sequence[Churn]) -> Iterator[str]:
    """Yield the table."""
    columns = [_column(churn) for churn in found]
    rows = ((name, limit, *(column[name] for column in columns)) for name, limit in _LIMITS.items())
    yield from table((f"in {SECONDS} s", "limit", *(churn.way for churn in found)), rows)


_LIMITS = {
    "changes": "",
    "wrong members at the end": "0",
    "applies": f"≤ 1 for {LEAST_COALESCED} changes",
    "ms until enforced, median": "",
    "ms until enforced, worst": f"≤ {1000 * MOST_LAG:,.0f}",
    "processor time, s": "",
    "its last sixth against the second": f"≤ {MOST_GROWTH:g}×",
    "MiB of all processes": "",
    "last sixth against the second": f"≤ {MOST_GROWTH:g}×",
}
"""The figures of a table, and their limits."""

_JUDGED = (
    "ms until enforced, worst",
    "wrong members at the end",
    "its last sixth against the second",
    "last sixth against the second",
    "applies",
)
"""Those that a goal is about, in the order of the goals."""


def _column(churn: Churn) -> Mapping[str, str]:
    lags = [lag for sample in churn.samples for lag in sample.lags]
    (_, processor), (_, memory) = _growth(churn)
    figures = (
        *(f"{churn.changes:,}", str(churn.missing + churn.left_over), f"{churn.applies:,}"),
        *(milliseconds(percentile(lags, 50)), milliseconds(max(churn.lags))),
        *(figure(sum(sample.processor_seconds for sample in churn.samples)), f"{processor:.2f}×"),
        *(f"{max(sample.mebibytes for sample in churn.samples):.0f}", f"{memory:.2f}×"),
    )
    goals = zip(_JUDGED, judge([churn]), strict=True)
    missed = {name for name, goal in goals if not goal.is_met}
    texts = zip(_LIMITS, figures, strict=True)
    return {name: f"**{text}**" if name in missed else text for name, text in texts}


def main(argv: Sequence[str]) -> int:
    """Measure, and print tables."""
    parser = parser_of(NAME, "Change a thousand members a second.")
    parser.add_argument(
        "--way", choices=[way.name.lower() for way in Way], help="change them in this way alone"
    )
    options = parser.parse_args(argv)
    begin()
    seconds = QUICK_SECONDS if options.quick else SECONDS
    ways = [way for way in Way if options.way in (None, way.name.lower())]
    found = [measure_churn(invent(SIZE), way, seconds) for way in ways]
    return finish(
        Section(NAME, list(lines(found)), found, COSTS_PAGE), list(judge(found)), writes=options.write
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
