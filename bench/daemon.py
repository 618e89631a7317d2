"""Measure the daemon at work: from a changed file or key to the kernel's table, and the costs of that.

``python -m bench.daemon``, as root; ``--write`` keeps it. In turns with the daemon's changes ``nft`` makes
the same ones by transactions that are ready, on a copy of the table that nobody owns. On a machine that
others use too, processor time says more than the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.definition_writers import (
    FIRST_NEWCOMER,
    FREE_PORT,
    Change,
    DefinitionWriter,
    FileWriter,
    Notice,
    store_writer,
)
from bench.durations import run_in
from bench.goals import Goal
from bench.installed import installed_agent, processor_seconds_of, wait_for_proof
from bench.memory import mebibytes_together
from bench.overlapping import OverlappingPolicy, invent_overlapping
from bench.packetcost import LAYOUT, compiled_text
from bench.policies import INTERFACE, BenchPolicy, invent
from bench.section import (
    RESULTS,
    Section,
    begin,
    finish,
    milliseconds,
    parser_of,
    percentile,
    table,
)
from bench.sizes import SIZES, Size
from integration.lab import wait_for
from integration.namespaces import Namespace, network_namespace
from integration.service import Service
from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import Enforced, enforce
from sgagent.core.model import Direction, Family
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.generation import RulesetGeneration
from sgagent.nft.marks import first_state
from sgagent.nft.names import class_chain, peers_chain
from sgagent.nft.transactions import encode_plan

CHANGES = {SIZES[1]: 60, SIZES[2]: 100, SIZES[3]: 60}
"""Of each kind, told of by a signal; of the other ways to be told there are a third as many."""

QUICK_CHANGES = 6
NAME = "daemon"

_MOST_MEBIBYTES = {SIZES[2]: 80, SIZES[3]: 300}
_MOST_AT_REST = {SIZES[2]: 75, SIZES[3]: 150}
_MOST_SECONDS_OVERLAPPING = 0.040
"""For half of the changes of 1,000 rules and 10,000 members whose objects overlap."""

_LIMITS = {Change.MEMBER: (2.0, 0.005), Change.RULE: (3.0, 0.0)}
"""How many times what nft takes, and how many seconds on top, for 99 of 100."""

_START_SECONDS = 300.0
_ENFORCED_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The durations of changes of one kind, with one kind of notice."""

    change: str
    notice: str
    enforced: tuple[float, ...]
    """Seconds from the word to the daemon until the kernel has all of the change, for each."""

    processor_seconds: float
    """Of all processes for each change, all that comes after it included, the proof too."""

    by_nft: tuple[float, ...]
    """Seconds for the same transaction, the start of a process included, for each."""

    processor_seconds_by_nft: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWork:
    """The daemon's costs at one size, with one kind of notice."""

    size: Size
    shape: str = ""
    """Of policies other than the bench's own: ``overlapping``."""

    start_seconds: float
    mebibytes: float
    """Of all processes, after the first proof."""

    mebibytes_later: float
    """After all changes."""

    mebibytes_at_rest: float = math.nan
    """Once the last change is proved, and the process that proves has ended."""

    changed: tuple[Changed, ...]
    start_processor_seconds: float = math.nan
    """Of all processes, until the daemon is ready."""

    proved_processor_seconds: float = math.nan
    """The same until the table is proved, too."""

    @property
    def policy(self) -> str:
        """Return the size and the shape of the policy, as tables have them."""
        return f"{self.size}, {self.shape}" if self.shape else str(self.size)


def measure_daemon(policy: BenchPolicy | OverlappingPolicy, notice: Notice, changes: int) -> AtWork:
    """Run the daemon on a policy, change a member and a rule so many times each, and do the same with nft."""
    with (
        network_namespace("daemon") as host,
        network_namespace("copy") as copy,
        tempfile.TemporaryDirectory(prefix="sgagent-bench-") as name,
        installed_agent(host, Path(name)) as service,
        _writer(service, policy, notice) as writer,
        contextlib.closing(generation_in(host)) as generation,
    ):
        began = time.perf_counter()
        service.launch()
        wait_for(lambda: any("READY=1" in n for n in service.notices()), "the daemon", _START_SECONDS)
        started, ready = time.perf_counter() - began, processor_seconds_of(service)
        wait_for_proof(service, _START_SECONDS)
        proved, first = processor_seconds_of(service), _mebibytes(service)
        proving = len(service.process_ids)
        run_in(copy, ("nft", "-f", "-"), compiled_text(policy))
        watch = Watch(service, generation, is_signalled=notice is Notice.SIGNAL)
        changed = [
            _measure_changes(policy, copy, writer, watch, (change, notice, changes)) for change in Change
        ]
        later = _mebibytes(service)
        wait_for(lambda: len(service.process_ids) < proving, "the prover to end", _START_SECONDS)
        return AtWork(
            size=policy.size,
            shape="overlapping" if isinstance(policy, OverlappingPolicy) else "",
            start_seconds=started,
            mebibytes=first,
            mebibytes_later=later,
            mebibytes_at_rest=_mebibytes(service),
            changed=tuple(changed),
            start_processor_seconds=ready,
            proved_processor_seconds=proved,
        )


@contextlib.contextmanager
def _writer(
    service: Service, policy: BenchPolicy | OverlappingPolicy, notice: Notice
) -> Iterator[DefinitionWriter]:
    if notice is Notice.STORE and isinstance(policy, BenchPolicy):
        with store_writer(service, policy, service.namespace, service.directory / "store") as writer:
            yield writer
    else:
        yield FileWriter(service, policy, notice)


def _mebibytes(service: Service) -> float:
    return mebibytes_together(service.process_ids)


def generation_in(host: Namespace) -> RulesetGeneration:
    """Return the number of the ruleset of a host, to be looked at from anywhere."""
    with host.entered():
        return RulesetGeneration()


def _measure_changes(
    policy: BenchPolicy | OverlappingPolicy,
    copy: Namespace,
    writer: DefinitionWriter,
    watch: Watch,
    wanted: tuple[Change, Notice, int],
) -> Changed:
    """Make changes of one kind, in turns with ``nft``."""
    change, notice, count = wanted
    there_and_back = transactions(policy, change)
    ours: list[float] = []
    by_nft: list[float] = []
    before, before_nft = watch.processor_seconds(), _children_seconds()
    for number in range(count):
        ours.append(watch.enforced_seconds(writer.prepare(change, number)))
        argv, stdin = there_and_back[number % 2]
        by_nft.append(run_in(copy, argv, stdin))
    return Changed(
        change=change.value,
        notice=notice.value,
        enforced=tuple(ours),
        processor_seconds=(watch.processor_seconds() - before) / count,
        by_nft=tuple(by_nft),
        processor_seconds_by_nft=(_children_seconds() - before_nft) / count,
    )


@dataclass(frozen=True, slots=True)
class Watch:
    """Sees when a change is enforced, and when the daemon is done with it."""

    service: Service
    generation: RulesetGeneration
    is_signalled: bool
    """So that the daemon says when it is ready again."""

    def enforced_seconds(self, make_known: Callable[[], None]) -> float:
        """Make a change known, and return the seconds until the last of its transactions is seen."""
        told, noticed = self._told(), len(self.service.notices())
        seen, last = self.generation.read(), math.nan
        began = time.perf_counter()
        make_known()

        def is_done() -> bool:
            nonlocal seen, last
            now = self.generation.read()
            if now != seen:
                seen, last = now, time.perf_counter()
            return not math.isnan(last) and self._is_done(told, noticed)

        wait_for(is_done, "the change to be enforced, and the step to end", _ENFORCED_SECONDS)
        return last - began

    def processor_seconds(self) -> float:
        """Return how long all processes of the daemon have computed."""
        return processor_seconds_of(self.service)

    def _is_done(self, told: int, noticed: int) -> bool:
        if self.is_signalled and "READY=1" not in self.service.notices()[noticed:]:
            return False
        return self._told() > told

    def _told(self) -> int:
        return self.service.log.count('"ruleset_applied"')


def transactions(
    policy: BenchPolicy | OverlappingPolicy, change: Change
) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Return how nft makes a change on the copy, and how it takes it back: its arguments and its input."""
    if isinstance(policy, OverlappingPolicy):
        is_member = change is Change.MEMBER
        changed = policy.with_member(FIRST_NEWCOMER) if is_member else policy.with_moved_rule(FREE_PORT)
        return _there_and_back(policy.resolved, changed.resolved)
    if change is Change.MEMBER:
        rule = next(rule for rule in policy.rules if rule.authorization_object in policy.groups)
        place = (Direction.INGRESS, INTERFACE, Family.IPV4)
        target = class_chain(*place, (str(rule.authorization_object),))
        element = f"{{ {FIRST_NEWCOMER} : goto {target} }}"
        return tuple(
            (("nft", f"{verb} element inet sgagent {peers_chain(*place)} {element}"), "")
            for verb in ("add", "delete")
        )
    first, *others = policy.rules
    moved = replace(first, ports=(FREE_PORT, FREE_PORT))
    return _there_and_back(policy.resolved, replace(policy, rules=(moved, *others)).resolved)


def _there_and_back(here: ResolvedPolicy, there: ResolvedPolicy) -> tuple[tuple[tuple[str, ...], str], ...]:
    argv = ("nft", "-j", "-f", "-")
    return (argv, _commands(here, there)), (argv, _commands(there, here))


def _commands(before: ResolvedPolicy, after: ResolvedPolicy) -> str:
    """Return the transaction that leads from one policy to another, as our data plane hands it on."""
    stands = compile_(before, LAYOUT, first_state([INTERFACE], LAYOUT)).ruleset
    enforced = Enforced(policy=before, ruleset=stands)
    return json.dumps(encode_plan(enforce(after, stands, (), LAYOUT, enforced=enforced).plan, []))


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read_at_work() -> list[AtWork]:
    """Return the kept results of the last run; nothing where there was none."""
    path = RESULTS / f"{NAME}.json"
    return [_revived(item) for item in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def _revived(item: dict[str, Any]) -> AtWork:
    """Return the value with the values within it made again."""
    rows = [
        Changed(**{**row, "enforced": tuple(row["enforced"]), "by_nft": tuple(row["by_nft"])})
        for row in item["changed"]
    ]
    return AtWork(**{**item, "size": Size(**item["size"]), "changed": tuple(rows)})


def judge(found: Sequence[AtWork]) -> Iterator[Goal]:
    """Yield the goals for changes, at the sizes that have one."""
    for at_work in found:
        for changed in at_work.changed:
            limit = _limit(at_work, changed)
            if at_work.shape and at_work.size == SIZES[2]:
                text = f"{changed.change} at {at_work.policy}, by {changed.notice}: median"
                half = percentile(changed.enforced, 50)
                yield Goal.at_most(1000 * _MOST_SECONDS_OVERLAPPING, text, 1000 * half, "ms")
            if limit is not None:
                text = f"{changed.change} at {at_work.size}, by {changed.notice}: 99th percentile"
                measured = percentile(changed.enforced, 99)
                yield Goal.at_most(round(1000 * limit, 1), text, 1000 * measured, "ms")


def _limit(at_work: AtWork, changed: Changed) -> float | None:
    """Return the most seconds for 99 of 100 changes; None for a policy that has no such goal."""
    if at_work.shape or at_work.size not in SIZES[2:]:
        return None
    times, more = _LIMITS[Change(changed.change)]
    return times * percentile(changed.by_nft, 50) + more


def judge_memory(found: Sequence[AtWork]) -> Iterator[Goal]:
    """Yield the goals for the memory of all processes, likewise."""
    for at_work in found:
        most = None if at_work.shape else _MOST_MEBIBYTES.get(at_work.size)
        if most is not None:
            text = f"memory at {at_work.size}, after changes by {at_work.changed[0].notice}"
            yield Goal.at_most(most, text, at_work.mebibytes_later, "MiB")
        if at_work.size in _MOST_AT_REST and not math.isnan(at_work.mebibytes_at_rest):
            text = f"memory at {at_work.policy}, by {at_work.changed[0].notice}, at rest"
            yield Goal.at_most(_MOST_AT_REST[at_work.size], text, at_work.mebibytes_at_rest, "MiB")


def lines(found: Sequence[AtWork]) -> Iterator[str]:
    """Yield both tables."""
    yield from table(
        (
            *("rules/members", "change", "notice", "median", "99th percentile", "limit", "processor"),
            *("`nft`: median", "processor"),
        ),
        (_row(at_work, changed) for at_work in found for changed in at_work.changed),
    )
    yield from table(
        (
            *("rules/members", "notice", "start, s", "processor, s", "proved"),
            *("MiB after start", "MiB after changes", "limit", "MiB at rest", "limit"),
        ),
        (
            (
                *(at_work.policy, at_work.changed[0].notice, f"{at_work.start_seconds:.1f}"),
                *map(_known, (at_work.start_processor_seconds, at_work.proved_processor_seconds)),
                *(f"{at_work.mebibytes:.0f}", f"{at_work.mebibytes_later:.0f}"),
                "" if at_work.shape else str(_MOST_MEBIBYTES.get(at_work.size, "")),
                "" if math.isnan(at_work.mebibytes_at_rest) else f"{at_work.mebibytes_at_rest:.0f}",
                str(_MOST_AT_REST.get(at_work.size, "")),
            )
            for at_work in found
        ),
    )


def _known(seconds: float) -> str:
    """Return seconds; nothing of a run that did not measure them."""
    return "" if math.isnan(seconds) else f"{seconds:.2f}"


def _row(at_work: AtWork, changed: Changed) -> tuple[str, ...]:
    half, most = (milliseconds(percentile(changed.enforced, percent)) for percent in (50, 99))
    limit = _limit(at_work, changed)
    if limit is not None and percentile(changed.enforced, 99) > limit:
        most = f"**{most}**"
    return (
        *(at_work.policy, changed.change, changed.notice, half, most),
        *("" if limit is None else milliseconds(limit), milliseconds(changed.processor_seconds)),
        milliseconds(percentile(changed.by_nft, 50)),
        milliseconds(changed.processor_seconds_by_nft),
    )


def main(argv: Sequence[str]) -> int:
    """Measure, and print tables."""
    parser = parser_of(NAME, "Measure the daemon at work.")
    parser.add_argument(
        "--size", type=int, choices=range(1, len(SIZES)), help="measure this size alone, 1 is the smallest"
    )
    parser.add_argument(
        "--notice", choices=[n.name.lower() for n in Notice], help="have the daemon be told in this way alone"
    )
    options = parser.parse_args(argv)
    begin()
    found = []
    for policy, notice, changes in _runs(options):
        found.append(measure_daemon(policy, notice, changes))
        print("\n".join(lines(found[-1:])), file=sys.stderr, flush=True)
    goals = [*judge(found), *judge_memory(found)]
    return finish(Section(NAME, list(lines(found)), found), goals, writes=options.write)


def _runs(options: argparse.Namespace) -> Iterator[tuple[BenchPolicy | OverlappingPolicy, Notice, int]]:
    """Yield the measurements, and the number of changes of each kind."""
    for size in SIZES[1:] if options.size is None else (SIZES[options.size],):
        count = QUICK_CHANGES if options.quick else CHANGES.get(size, CHANGES[SIZES[1]])
        for notice in Notice:
            if notice is Notice.SIGNAL and options.notice in (None, "signal"):
                yield invent(size), notice, count
                if size == SIZES[2]:
                    yield invent_overlapping(size), notice, count
            elif options.notice == notice.name.lower() or (options.notice is None and size in SIZES[2:]):
                yield invent(size), notice, max(2, count // 3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
