"""Measure whole commands: wall time and peak memory, as a person at a terminal would have them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from bench.durations import BINDING, ROOT, sgagent
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
    began = time.perf_counter()
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    return Command(
        size=size,
        command=name,
        seconds=took,
        peak_mebibytes=usage.ru_maxrss / _KIBIBYTES_PER_MEBIBYTE,
        status=process.returncode,
    )
