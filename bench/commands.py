"""Measure whole commands: wall time and peak memory, as a person at a terminal would have them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.durations import BINDING, ROOT, sgagent
from bench.installed import INTERPRETER
from bench.results import Command
from bench.sizes import Size

_KIBIBYTES_PER_MEBIBYTE = 1024


def measure_dry_run(size: Size, definitions: Path, *, verifies: bool) -> Command:
    """Run ``sgagent compile --dry-run`` once.

    Args:
        size: what the definitions hold.
        definitions: the document.
        verifies: whether the kernel is asked about the text, as it is unless told otherwise.
    """
    options = () if verifies else ("--no-verify",)
    argv = sgagent("compile", "--dry-run", *options, "--definitions", str(definitions), *BINDING)
    name = " ".join(("sgagent compile --dry-run", *options))
    took = run_measured(argv)
    return Command(
        size=size,
        command=name,
        seconds=took.elapsed,
        peak_mebibytes=took.mebibytes,
        status=took.status,
    )


@dataclass(frozen=True, slots=True)
class Took:
    """What one run of a command took."""

    status: int
    elapsed: float
    """Seconds by the clock."""

    processor: float
    """Seconds, of it and of all that it started."""

    mebibytes: float
    """At its peak; of the largest of them."""


def run_measured(argv: Sequence[str]) -> Took:
    """Run a command from a small process: the kernel counts the memory of what starts one as its own."""
    parent = (INTERPRETER, "-I", "-S", "-c", _PARENT, *argv)
    done = subprocess.run(parent, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    status, elapsed, processor, kibibytes = json.loads(done.stdout)
    return Took(status, elapsed, processor, kibibytes / _KIBIBYTES_PER_MEBIBYTE)


_PARENT = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
elapsed = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, elapsed, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
