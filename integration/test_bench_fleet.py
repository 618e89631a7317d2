"""The bench of a fleet works; its measurements are for bench/costs.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_SECONDS = 180.0


@pytest.mark.long
def test_a_small_fleet_is_measured() -> None:
    """Every host sees each change, and its costs are told."""
    argv = [sys.executable, "-m", "bench.fleet", "--hosts", "12", "--rounds", "1"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| 12 |")]
    assert [row.split(" | ")[1] for row in rows[1:]] == ["one rule of every group", "one member"]
