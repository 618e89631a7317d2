"""Measure the daemon at work: from a changed file to what the kernel enforces, and what that takes.

``python -m bench.daemon`` measures only this, as root, and keeps nothing. Beside each change stands what
``nft`` takes for the same one-element transaction on a copy of the table that nobody owns. On a machine that
others use too, processor time says more than the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench.durations import run_in
from bench.packetcost import compiled_text
from bench.policies import GROUP_ID, INTERFACE, BenchPolicy, MemberGroup, invent
from bench.results import Spread
from bench.sizes import SIZES, Size
from integration.lab import wait_for
from integration.namespaces import Namespace, network_namespace, remove_stale_namespaces
from integration.service import Service, service_on
from integration.soak import footprints, processor_seconds
from sgagent.core.kernel.names import class_chain, peers_chain
from sgagent.core.model import Direction, Family
from sgagent.dataplane.generation import RulesetGeneration

CHANGES = 30
GROUPS_OF_A_FILE = 20
"""The rules stand in a file of their own."""

_START_SECONDS = 300.0
_ENFORCED_SECONDS = 60.0
_FIRST_NEWCOMER = int(IPv4Address("10.200.0.0"))
_KIBIBYTES_PER_MEBIBYTE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWork:
    """What the daemon took at one size."""

    size: Size
    start_seconds: float
    mebibytes: float
    """Of both processes, after the first apply."""

    mebibytes_later: float
    """After all changes."""

    enforced: Spread
    """Seconds from the renaming of a file to the kernel's new table."""

    worst: float
    processor_seconds: float
    """Of both processes for each change, all that comes after it included."""

    by_nft: Spread
    """Seconds for the same transaction, the start of a process included."""

    processor_seconds_by_nft: float


def measure_daemon(policy: BenchPolicy, changes: int) -> AtWork:
    """Run the daemon on a policy, have members join and leave, and do the same with ``nft``."""
    with (
        network_namespace("daemon") as host,
        network_namespace("copy") as copy,
        tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory,
        service_on(host, Path(directory)) as service,
        contextlib.closing(_generation_in(host)) as generation,
    ):
        desk = _Desk(service, policy, generation)
        desk.write_all()
        began = time.perf_counter()
        service.launch()
        wait_for(lambda: any("READY=1" in n for n in service.notices()), "the daemon", _START_SECONDS)
        started, first = time.perf_counter() - began, _mebibytes(service)
        processes = (service.pid, service.applier_pid)
        before = processor_seconds(processes)
        seconds = [desk.change(number) for number in range(changes)]
        spent = (processor_seconds(processes) - before) / changes
        (copy_text := Path(directory) / "copy.nft").write_text(compiled_text(policy))
        run_in(copy, ("nft", "-f", str(copy_text)))
        by_nft, spent_by_nft = _by_nft(policy, copy, changes)
        return AtWork(
            size=policy.size,
            start_seconds=started,
            mebibytes=first,
            mebibytes_later=_mebibytes(service),
            enforced=Spread.of(seconds),
            worst=max(seconds),
            processor_seconds=spent,
            by_nft=Spread.of(by_nft),
            processor_seconds_by_nft=spent_by_nft,
        )


def _mebibytes(service: Service) -> float:
    return sum(found.kibibytes for found in footprints(service).values()) / _KIBIBYTES_PER_MEBIBYTE


def _generation_in(host: Namespace) -> RulesetGeneration:
    with host.entered():
        return RulesetGeneration()


class _Desk:
    """The documents of a daemon, and who changes them."""

    def __init__(self, service: Service, policy: BenchPolicy, generation: RulesetGeneration) -> None:
        self._service = service
        self._rules, *self._groups = json.loads(policy.document())["security_groups"]
        self._dice = random.Random(1)
        self._generation = generation
        service.configure(f'[[interface]]\nname = "{INTERFACE}"\nsecurity_group_ids = ["{GROUP_ID}"]\n')

    def write_all(self) -> None:
        """Write all documents."""
        self._service.define(_document([self._rules]), "rules.json")
        for first in range(0, len(self._groups), GROUPS_OF_A_FILE):
            self._write_file(first)

    def _write_file(self, first: int) -> None:
        self._service.define(_document(self._groups[first : first + GROUPS_OF_A_FILE]), f"{first}.json")

    def change(self, number: int) -> float:
        """Have a member join a group or leave one, and return the seconds until that is enforced.

        The daemon is told by a signal, so that it does not wait for more changes to come.
        """
        place = self._dice.randrange(len(self._groups))
        members = self._groups[place]["member_addresses"]
        if number % 2:
            members.pop(self._dice.randrange(len(members)))
        else:
            members.append(str(IPv4Address(_FIRST_NEWCOMER + number)))
        self._service.notices()
        before = self._generation.read()
        self._write_file(place // GROUPS_OF_A_FILE * GROUPS_OF_A_FILE)
        began = time.perf_counter()
        self._service.reload()
        wait_for(lambda: self._generation.read() != before, "the change to be enforced", _ENFORCED_SECONDS)
        seconds = time.perf_counter() - began
        told = self._service.log.count("ruleset_applied")
        wait_for(lambda: self._is_done(told), "the step to end", _ENFORCED_SECONDS)
        return seconds

    def _is_done(self, told: int) -> bool:
        """Tell whether the daemon has said that it is ready again."""
        return (
            self._service.log.count("ruleset_applied") >= told and "READY=1" in self._service.notices()[-2:]
        )


def _document(groups: list[dict[str, object]]) -> str:
    return json.dumps({"version": 1, "security_groups": groups}, indent=1)


def _by_nft(policy: BenchPolicy, copy: Namespace, changes: int) -> tuple[list[float], float]:
    """Put one element in and take it out again, and return the seconds and the processor seconds for each."""
    group: MemberGroup = policy.groups[-1]
    place = (Direction.INGRESS, INTERFACE, Family.IPV4)
    target = class_chain(*place, (group.group_id,))
    element = f"{{ {IPv4Address(_FIRST_NEWCOMER)} : goto {target} }}"
    before = _children_seconds()
    seconds = [
        run_in(copy, ("nft", f"{verb} element inet sgagent {peers_chain(*place)} {element}"))
        for _ in range(changes // 2)
        for verb in ("add", "delete")
    ]
    return seconds, (_children_seconds() - before) / len(seconds)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _rows(sizes: tuple[Size, ...]) -> Iterator[str]:
    yield (
        "| rules / members | start, s | memory then, MiB | memory later | one member: enforced, ms | worst"
        " | processor time, ms | nft, the same: ms | processor time, ms |"
    )
    yield "|" + "---|" * 9
    for size in sizes:
        found = measure_daemon(invent(size), CHANGES)
        yield (
            f"| {size} | {found.start_seconds:.1f} | {found.mebibytes:.0f} | {found.mebibytes_later:.0f}"
            f" | {1000 * found.enforced.median:.1f} | {1000 * found.worst:.1f}"
            f" | {1000 * found.processor_seconds:.1f} | {1000 * found.by_nft.median:.1f}"
            f" | {1000 * found.processor_seconds_by_nft:.1f} |"
        )


def main(argv: Sequence[str]) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.daemon", description="Measure the daemon at work.")
    parser.add_argument(
        "--size", type=int, choices=range(len(SIZES)), help="measure this size alone, from 0, the smallest"
    )
    size = parser.parse_args(argv).size
    remove_stale_namespaces()
    for row in _rows(SIZES[1:] if size is None else (SIZES[size],)):
        print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
