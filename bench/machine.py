"""Describe the machine of the measurements."""

from __future__ import annotations

import os
import platform
import subprocess

from bench.results import Machine


def look_at_machine() -> Machine:
    """Return the facts of this machine."""
    return Machine(
        processors=os.cpu_count() or 1,
        kernel=".".join(platform.release().split("-")[0].split(".")[:2]),
        nftables=_first_line("nft", "--version"),
        python=platform.python_version(),
        load=os.getloadavg()[0],
    )


def _first_line(*argv: str) -> str:
    output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return output.partition(" (")[0].strip()
