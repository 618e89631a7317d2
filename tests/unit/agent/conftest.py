"""Give a host whose definitions bind its link, and a daemon on one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.agent.machine import GOOD, Machine
from tests.unit.agent.running import Running


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a host with definitions that bind its link; some tests have another."""
    made = Machine(tmp_path / "state")
    made.source.write(GOOD)
    return made


@pytest.fixture
def running(machine: Machine, tmp_path: Path) -> Running:
    """Return a daemon on a host with definitions."""
    return Running(machine, tmp_path)
