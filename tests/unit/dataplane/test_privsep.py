"""What the first life of the daemon loads, and what the second is told."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sgagent.core.errors import NotPermittedError, UsageError
from sgagent.dataplane.privsep import applier_of_first_life

READS = ("yaml", "tomllib", "http", "ssl", "structlog", "prometheus_client", "sgagent.documents")
"""What reads documents and configuration, or speaks to the network."""


def test_nothing_that_reads_is_loaded_beside_the_privilege() -> None:
    """The applier is forked from a process that knows only what the applier needs."""
    program = "import sys, sgagent.cli.main, sgagent.cli.run; print(*sys.modules)"
    loaded = set(_output_of(program).split())
    assert "sgagent.dataplane.privsep" in loaded
    assert loaded.isdisjoint(READS)


def test_the_first_life_has_no_applier() -> None:
    """Nobody is told of one that is not there yet."""
    assert applier_of_first_life({}) is None


@pytest.mark.parametrize("told", ("", "1", "1 2", "a b c", "1 999 998", "1 2 3 4"))
def test_who_sets_the_variable_by_hand_is_told_so(told: str) -> None:
    """Before anything is read, and whatever privilege there is."""
    environment = {"SGAGENT_APPLIER": told}
    with pytest.raises((UsageError, NotPermittedError)):
        applier_of_first_life(environment)
    assert environment == {}


def test_sockets_are_handed_on_no_further() -> None:
    """A program that the agent runs never holds the way to the applier."""
    program = (
        "import os\n"
        "from sgagent.dataplane.privileges import give_up_all\n"
        "from sgagent.dataplane.privsep import applier_of_first_life\n"
        "give_up_all()\n"
        "applier = applier_of_first_life(os.environ)\n"
        "assert not any(map(os.get_inheritable, (applier.channel.fileno(), applier.notices.fileno())))\n"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        numbers = ours.fileno(), theirs.fileno()
        assert _output_of(program, {"SGAGENT_APPLIER": f"1 {numbers[0]} {numbers[1]}"}, numbers) == ""


def _output_of(
    program: str, environment: Mapping[str, str] | None = None, files: tuple[int, ...] = ()
) -> str:
    """Run a program of ours in a Python of its own, and return what it printed.

    Args:
        program: its text.
        environment: its environment; this process's by default.
        files: numbers of files that it is to have.
    """
    done = subprocess.run(  # noqa: S603 - this Python, and texts of this file
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        env=environment,
        pass_fds=files,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout
