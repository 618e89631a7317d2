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
            pairs = [(_processor_seconds(argv), _processor_seconds(python)) for _ in range(runs)]
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


def _compared(command: str, baseline: str, limit: float, pairs: list[tuple[float, float]]) -> Compared:
    return Compared(
        command=command,
        seconds=min(one for one, _ in pairs),
        baseline=baseline,
        baseline_seconds=min(other for _, other in pairs),
        limit=limit,
    )


def _in_new_namespace(argv: tuple[str, ...]) -> float:
    with network_namespace("starting") as namespace, namespace.entered():
        return _processor_seconds(argv)


def _processor_seconds(argv: tuple[str, ...]) -> float:
    """Run a command, and return the processor time of it and of all that it started.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return usage.ru_utime + usage.ru_stime


def main(argv: Sequence[str]) -> None:
    """Print a table."""
    argparse.ArgumentParser(
        prog="python -m bench.starting", description="Measure how commands start, and the first apply."
    ).parse_args(argv)
    write_bytecode()
    remove_stale_namespaces()
    print("| command | processor time, s | baseline | processor time, s | times | at most |")
    print("|---|---|---|---|---|---|")
    compared = [*measure_start(), measure_first_apply(SIZES[2], 4.0, RUNS)]
    compared.append(measure_first_apply(SIZES[3], 3.0, RUNS_OF_LARGE))
    for found in compared:
        print(
            f"| {found.command} | {found.seconds:.3f} | {found.baseline} | {found.baseline_seconds:.3f}"
            f" | {found.ratio:.1f} | {found.limit:g} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
