"""Measure whole commands by the processor time that they take, each beside its baseline.

``python -m bench.starting`` measures only this, as root, and keeps nothing. The least of several runs is
shown, as on a machine that others use too everything else is theirs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.bytecode import write_bytecode
from bench.durations import BINDING, ROOT, Files, sgagent
from bench.policies import invent
from bench.sizes import SIZES, Size
from integration.namespaces import network_namespace, remove_stale_namespaces

RUNS = 7
RUNS_OF_LARGE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a command takes, and what its baseline does."""

    command: str
    elapsed: float
    """Seconds by the clock, of the quickest run."""

    seconds: float
    """Of the processor."""

    baseline: str
    baseline_seconds: float
    limit: float
    """How many times the baseline it may take."""

    @property
    def ratio(self) -> float:
        """Return how many times the baseline it takes."""
        return self.seconds / self.baseline_seconds


def measure_start(runs: int = RUNS) -> Iterator[Compared]:
    """Measure what a command takes that has little to do."""
    python = (sys.executable, "-c", "pass")
    small = SIZES[1]
    with tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory:
        files = Files.write(invent(small), Path(directory))
        dry_run = sgagent("compile", "--dry-run", "--definitions", str(files.definitions), *BINDING)
        for command, argv, limit in (
            ("sgagent --version", (sys.executable, "-m", "sgagent", "--version"), 5.0),
            (f"sgagent compile --dry-run, {small}", dry_run, 15.0),
        ):
            pairs = [(_run(argv), _run(python)) for _ in range(runs)]
            yield _compared(command, "python3 -c pass", limit, pairs)


def measure_first_apply(size: Size, limit: float, runs: int) -> Compared:
    """Measure the first compile and apply of a policy, with that of the finished text."""
    with tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory:
        files = Files.write(invent(size), Path(directory))
        ours = sgagent("compile", "--definitions", str(files.definitions), *BINDING)
        pairs = [
            (_in_new_namespace(ours), _in_new_namespace(("nft", "-f", str(files.ours)))) for _ in range(runs)
        ]
    return _compared(f"sgagent compile, {size}", "nft -f of the finished text", limit, pairs)


@dataclass(frozen=True, slots=True)
class _Took:
    """What one run of a command took, in seconds."""

    elapsed: float
    processor: float
    """Of it and of all that it started."""


def _compared(command: str, baseline: str, limit: float, pairs: list[tuple[_Took, _Took]]) -> Compared:
    return Compared(
        command=command,
        elapsed=min(one.elapsed for one, _ in pairs),
        seconds=min(one.processor for one, _ in pairs),
        baseline=baseline,
        baseline_seconds=min(other.processor for _, other in pairs),
        limit=limit,
    )


def _in_new_namespace(argv: tuple[str, ...]) -> _Took:
    with network_namespace("starting") as namespace, namespace.entered():
        return _run(argv)


def _run(argv: tuple[str, ...]) -> _Took:
    """Run a command.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    began = time.perf_counter()
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return _Took(elapsed, usage.ru_utime + usage.ru_stime)


def main(argv: Sequence[str]) -> None:
    """Print a table."""
    argparse.ArgumentParser(
        prog="python -m bench.starting", description="Measure how commands start, and the first apply."
    ).parse_args(argv)
    write_bytecode()
    remove_stale_namespaces()
    print(
        "| command | by the clock, s | processor time, s | baseline | processor time, s | times | at most |"
    )
    print("|---|---|---|---|---|---|---|")
    compared = [*measure_start(), measure_first_apply(SIZES[2], 4.0, RUNS)]
    compared.append(measure_first_apply(SIZES[3], 3.0, RUNS_OF_LARGE))
    for found in compared:
        print(
            f"| {found.command} | {found.elapsed:.2f} | {found.seconds:.3f} | {found.baseline}"
            f" | {found.baseline_seconds:.3f} | {found.ratio:.1f} | {found.limit:g} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
