"""Have the daemon change policies under a storm, and kill it or its applier while it does.

``python -m integration.stormdaemon --tries 200 --seed 1``, as root, kills one of the two in each try, between
two transactions of a change or anywhere in it, and prints how long it took from the death to a clean table.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter

from integration.lab import Lab, LabError, wait_for
from integration.pairs import Pair, Side
from integration.service import Service, is_alive, service_on
from integration.storm import bench, storm_on, targets_of
from integration.stormpairs import SMALL
from integration.streams import Storm, Tally, on_processors, shared_processors
from sgagent.core.policy import ResolvedPolicy
from sgagent.netlink import NETLINK_NETFILTER

_CHANGE_SECONDS = 10.0
_RULESET_GROUP = 7
_NEW_GENERATION = 10 << 8 | 15
_HEADER = struct.Struct("=IHHII")
_RECEIVE_BYTES = 1 << 16
_MOST_TRANSACTIONS = 4
_ANY_MOMENT_SECONDS = 0.15
_GENTLE_PAUSE = 0.05
"""Seconds between rounds of packets while a daemon starts, which takes the processors for itself."""

_DOCUMENT = "policy.yaml"
"""JSON is YAML."""


@dataclass(slots=True)
class StormedDaemon:
    """A daemon that enforces the sides of a pair in turn, on a host under a storm."""

    service: Service
    storm: Storm
    pair: Pair
    sides: tuple[ResolvedPolicy, ResolvedPolicy]
    place: int = 0
    """Of the side whose document was written last."""

    @property
    def policy(self) -> ResolvedPolicy:
        """Return the policy of the document that was written last."""
        return self.sides[self.place]

    def start(self) -> None:
        """Start the daemon on any processor; then keep it off those that send."""
        for_changes, others = shared_processors()
        with on_processors(for_changes | others):
            self.service.start()
        for pid in (self.service.pid, self.service.applier_pid):
            os.sched_setaffinity(pid, for_changes)

    def define_other(self) -> None:
        """Write the document of the other side."""
        self.place = 1 - self.place
        side: Side = (self.pair.before, self.pair.after)[self.place]
        self.service.define(side.document(), _DOCUMENT)

    def change(self) -> Tally:
        """Have the daemon change to the other side under the storm."""
        return self.storm.change(self.sides[1 - self.place], self._change)

    def _change(self) -> None:
        count = len(self.service.events("ruleset_applied"))
        self.define_other()
        self.service.reload()
        self.service.wait_for_event("ruleset_applied", count + 1, _CHANGE_SECONDS)


@contextlib.contextmanager
def stormed_daemon(built: Lab, storm: Storm, pair: Pair, directory: Path) -> Iterator[StormedDaemon]:
    """Run a daemon with the pair's side before the change; both sides have one configuration."""
    if pair.before.configuration() != pair.after.configuration():
        raise LabError(f"{pair.name} changes the configuration, which takes a restart")
    sides = (pair.before.policy(), pair.after.policy())
    built.host.remove_table("sgagent")
    with service_on(built.host, directory) as service:
        service.configure(pair.before.configuration())
        service.define(pair.before.document(), _DOCUMENT)
        storm.aim(*sides, targets_of(pair))
        made = StormedDaemon(service, storm, pair, sides)
        made.start()
        yield made
        service.stop()


@dataclass(slots=True)
class Deaths:
    """The result of killing the daemon or its applier."""

    tries: int = 0
    tally: Tally = field(default_factory=Tally)
    seconds: list[float] = field(default_factory=list)
    """From each death to the moment at which the next daemon had cleaned up."""

    judged_by: list[int] = field(default_factory=list)
    """How many of the two policies gave each packet its fate after each death: 1 is right."""

    changed: int = 0
    """Deaths after which the new policy judged."""

    def row(self, name: str) -> str:
        """Return a line of the table."""
        return (
            f"| {name} | {self.tries} | {self.changed} | {sum(one != 1 for one in self.judged_by)}"
            f" | {self.tally.passed:,} | {self.tally.lost + self.tally.live_lost:,} | {self.tally.went_on:,}"
            f" | {median(self.seconds):.2f} | {max(self.seconds):.2f} |"
        )


HEAD = (
    "| killed | tries | new policy judged | table judged by neither or both | forbidden passed | allowed lost"
    " | ended sessions that went on | seconds to a clean table, median | at most |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def kill_once(daemon: StormedDaemon, random: Random, deaths: Deaths, *, applier: bool) -> None:
    """Kill the daemon or its applier in a change, and start it again.

    Between the death and the next start the table judges by one of the two policies. The next start brings
    the new one and leaves nothing behind.
    """
    known = unreferenced(daemon.service.table())
    deaths.tries += 1
    deaths.tally += daemon.storm.change(None, partial(_die, daemon, random, applier=applier))
    judging = daemon.storm.policies_that_judge()
    deaths.judged_by.append(len(judging))
    deaths.changed += judging == (daemon.policy,)

    def start() -> None:
        began = perf_counter()
        daemon.start()
        wait_for(lambda: unreferenced(daemon.service.table()) <= known, "the table to be clean")
        deaths.seconds.append(perf_counter() - began)

    deaths.tally += daemon.storm.change(daemon.policy, start, pause=_GENTLE_PAUSE)
    if daemon.storm.policies_that_judge() != (daemon.policy,):
        raise LabError("the next daemon does not enforce the new policy")


def kill_often(pair: Pair, tries: int, random: Random, *, applier: bool) -> Deaths:
    """Kill the daemon or its applier so often, in changes between the sides of a pair."""
    deaths = Deaths()
    with (
        bench() as built,
        storm_on(built) as storm,
        tempfile.TemporaryDirectory(prefix="sgtest-") as directory,
        stormed_daemon(built, storm, pair, Path(directory)) as daemon,
    ):
        for _ in range(tries):
            kill_once(daemon, random, deaths, applier=applier)
    return deaths


def _die(daemon: StormedDaemon, random: Random, *, applier: bool) -> None:
    """Have the other side enforced, and kill one process behind a transaction of that, or at any moment."""
    service = daemon.service
    victim = service.applier_pid if applier else service.pid
    number = random.randint(0, _MOST_TRANSACTIONS)
    with contextlib.closing(RulesetEvents(daemon.service)) as events:
        daemon.define_other()
        service.reload()
        if number:
            events.wait_for(number, _ANY_MOMENT_SECONDS)
        else:
            threading.Event().wait(random.uniform(0, _ANY_MOMENT_SECONDS))
        os.kill(victim, signal.SIGKILL)
    if applier:
        service.wait_for_end()
        wait_for(lambda: not is_alive(victim), "the applier to end")
    else:
        service.kill()


class RulesetEvents:
    """The kernel's messages about changes of the ruleset, in one namespace."""

    def __init__(self, service: Service) -> None:
        """Listen from now on."""
        self._socket = service.namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, _FORCED_RECEIVE_BUFFER, 32 << 20)
        self._socket.bind((0, 1 << (_RULESET_GROUP - 1)))

    def wait_for(self, count: int, seconds: float) -> None:
        """Return when so many transactions were committed, or when none followed for a while."""
        self._socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            while count > 0:
                received, place = self._socket.recv(_RECEIVE_BYTES), 0
                while place + _HEADER.size <= len(received):
                    length, kind, *_ = _HEADER.unpack_from(received, place)
                    count -= kind == _NEW_GENERATION
                    place += (length + 3) & ~3

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


_FORCED_RECEIVE_BUFFER = 33


_OBJECT = re.compile(r"^\t(?:chain|map|set|counter) (\S+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)


def unreferenced(listing: str) -> frozenset[str]:
    """Return the chains, maps, sets and counters of a listing that nothing in it refers to."""
    declared: set[str] = set()
    for block in re.finditer(
        r"^\t(?:chain|map|set|counter) (\S+) \{\n(.*?)^\t\}", listing, re.MULTILINE | re.DOTALL
    ):
        name, body = block.groups()
        if " hook " not in body and not body.strip().startswith("comment"):
            declared.add(name)
    referred = set(re.findall(r"(?:goto|jump) (\S+?)[,\s]", listing))
    referred |= set(re.findall(r"@([^\s,]+)", listing))
    referred |= set(re.findall(r'counter name "([^"]+)"', listing))
    return frozenset(declared - referred)


def main(argv: Sequence[str]) -> int:
    """Kill the daemon and the applier in turn, and print the results."""
    options = _options(argv)
    random = Random(options.seed)
    pair = next(pair for pair in SMALL if pair.name == options.pair)
    if options.beside:
        pair = pair.beside(options.beside)
    print(HEAD)
    is_right = True
    for applier in (False, True):
        deaths = kill_often(pair, options.tries // 2, random, applier=applier)
        print(deaths.row("the applier" if applier else "the daemon"), flush=True)
        is_right &= deaths.tally.wrong == 0 and set(deaths.judged_by) == {1}
    print(f"\nPair {pair.name}, seed {options.seed}.")
    return 0 if is_right else 1


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill the daemon while it changes policies under a storm.")
    parser.add_argument("--tries", type=int, default=20, help="half of them kill the applier")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--pair", default="list_gets_an_entry", help="the pair whose sides change places")
    parser.add_argument("--beside", type=int, default=0, help="rules of another link that come and go")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
