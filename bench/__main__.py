"""``python -m bench``: measure all, keep the numbers, and write table and picture."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.bytecode import write_bytecode
from bench.commands import measure_dry_run
from bench.daemon import read_at_work
from bench.durations import ROOT, Files, measure_durations
from bench.goals import judge_goals
from bench.machine import look_at_machine
from bench.packetcost import FULL, QUICK, measure_known, measure_new
from bench.picture import draw
from bench.policies import BenchPolicy, invent
from bench.report import insert_tables, write_tables
from bench.results import Command, Duration, PacketCost, Results, read_results, write_results
from bench.sizes import QUICK_SIZES, SIZES
from integration.namespaces import remove_stale_namespaces

RESULTS = ROOT / "bench" / "results" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"

_COLLECTOR = (100_000, 20, 100)
"""As sgagent's own commands set it."""

_REPEATS = 5
_QUICK_REPEATS = 2


def main() -> int:
    """Measure, or write the page again from the numbers of the last run; return 1 if a goal is missed."""
    options = _parse_arguments()
    if options.report_only:
        results = read_results(RESULTS)
    elif os.geteuid() != 0:
        print("network namespaces and nftables need root", file=sys.stderr)
        return 2
    else:
        results = _measure(is_quick=options.quick)
    print(write_tables(results))
    if not results.is_quick:
        _publish(results)
    return 0 if all(goal.is_met for goal in judge_goals(results)) else 1


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer sizes and rounds; under a minute, not kept"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="write the page from the last run's numbers"
    )
    return parser.parse_args()


def _measure(*, is_quick: bool) -> Results:
    write_bytecode()
    remove_stale_namespaces()
    gc.set_threshold(*_COLLECTOR)
    results = Results(machine=look_at_machine(), is_quick=is_quick)
    for size in QUICK_SIZES if is_quick else SIZES:
        policy = invent(size)
        results = replace(results, packets=(*results.packets, *_packets(policy, is_quick=is_quick)))
        with tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory:
            files = Files.write(policy, Path(directory))
            results = replace(
                results,
                durations=(*results.durations, *_durations(policy, files, is_quick=is_quick)),
                commands=(*results.commands, *_commands(policy, files)),
            )
    return results


def _packets(policy: BenchPolicy, *, is_quick: bool) -> Iterator[PacketCost]:
    effort = QUICK if is_quick else FULL
    for measure in (measure_known, measure_new):
        for cost in measure(policy, effort):
            above = f"{cost.above.median:,.0f} ({cost.above.low:,.0f} to {cost.above.high:,.0f})"
            _say(
                f"{cost.size} {cost.session} {cost.aim}: {cost.contender} {cost.whole.median:,.0f} ns, "
                f"above conntrack only {above}"
            )
            yield cost


def _durations(policy: BenchPolicy, files: Files, *, is_quick: bool) -> Iterator[Duration]:
    for duration in measure_durations(policy, files, _QUICK_REPEATS if is_quick else _REPEATS):
        milliseconds = f"{duration.seconds.median * 1000:,.1f} ms"
        _say(f"{duration.size} {duration.operation}: {duration.contender} {milliseconds}")
        yield duration


def _commands(policy: BenchPolicy, files: Files) -> Iterator[Command]:
    for verifies in (True, False):
        command = measure_dry_run(policy.size, files.definitions, verifies=verifies)
        _say(f"{command.size} {command.command}: {command.seconds:.2f} s, {command.peak_mebibytes:.0f} MiB")
        yield command


def _publish(results: Results) -> None:
    write_results(results, RESULTS)
    PICTURE.write_text(draw(results, read_at_work()), encoding="utf-8")
    PAGE.write_text(insert_tables(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


_STARTED = time.monotonic()


def _say(line: str) -> None:
    print(f"{time.monotonic() - _STARTED:6.1f} s  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
