"""Run a command on a host without an agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.runner import Run, runner


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs a command with an empty configuration; some tests have another."""
    configuration = tmp_path / "sgagent.toml"
    configuration.write_text(f'[state]\nruntime_directory = "{tmp_path}/run"\n')
    return runner(capsys, "--config", configuration)
