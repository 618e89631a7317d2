"""What a command says where no agent runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.cli.agent_client import how_to_start
from sgagent.settings import Settings, StateSettings

BY_SYSTEMD = "start it with 'systemctl start sgagent'"
BY_HAND = "start one with 'sgagent run'"


def make_files(root: Path, *names: str) -> None:
    """Make files below a root, with their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


@pytest.mark.parametrize(
    ("names", "said"),
    (
        (("run/systemd/system/x", "usr/lib/systemd/system/sgagent.service"), BY_SYSTEMD),
        (("run/systemd/system/x", "etc/systemd/system/sgagent.service"), BY_SYSTEMD),
        (("run/systemd/system/x",), BY_HAND),
        (("usr/lib/systemd/system/sgagent.service",), BY_HAND),
        ((), BY_HAND),
    ),
)
def test_the_service_manager_starts_its_unit(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """Where systemd runs and has it; in a container or a checkout a person does."""
    make_files(tmp_path, *names)
    assert how_to_start(Settings(), tmp_path).startswith(said)


def test_an_agent_of_another_configuration_is_none_of_the_units(tmp_path: Path) -> None:
    """Its socket is elsewhere."""
    make_files(tmp_path, "run/systemd/system/x", "usr/lib/systemd/system/sgagent.service")
    settings = replace(Settings(), state=StateSettings(runtime_directory=tmp_path))
    assert how_to_start(settings, tmp_path) == BY_HAND
