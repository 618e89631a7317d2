"""The session that a command is typed in is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.cli.lockout_guard import own_sessions
from sgagent.core.lockout import SessionKind
from sgagent.core.model import CidrBlock, Family
from tests.unit.agent.test_forbidden_sessions import SESSION

CONNECTION = {"SSH_CONNECTION": "198.51.100.7 40000 10.0.0.11 22"}
CLIENT = {"SSH_CLIENT": "198.51.100.7 40000 22"}
OTHER = replace(SESSION, inode=8, peer_port=40_001)


@pytest.mark.parametrize(
    ("callers", "environment"),
    (({7}, {}), (set(), CONNECTION), (set(), CLIENT), ({7}, {**CONNECTION, **CLIENT})),
)
def test_it_is_found_once(callers: set[int], environment: dict[str, str]) -> None:
    """By who holds it, or by what the server told, or by all of these; others are not it."""
    (found,) = own_sessions([OTHER, SESSION], callers, environment)
    assert (found.peer_address, found.peer_port) == (SESSION.peer_address, 40_000)
    assert (found.local_address, found.local_port) == (SESSION.local_address, 22)
    assert found.kind is SessionKind.MANAGEMENT


def test_the_server_is_believed() -> None:
    """What it told counts also where the kernel shows no such session."""
    (found,) = own_sessions([], set(), {"SSH_CONNECTION": "2001:db8::7 40000 2001:db8::11 2222"})
    assert found.family is Family.IPV6
    assert found.peer_address == CidrBlock.parse("2001:db8::7").first
    assert found.local_port == 2222


@pytest.mark.parametrize(
    "environment",
    (
        {},
        {"SSH_CONNECTION": ""},
        {"SSH_CONNECTION": "UNKNOWN 65535 UNKNOWN 65535"},
        {"SSH_CONNECTION": "198.51.100.7 40000 10.0.0.11"},
        {"SSH_CONNECTION": "198.51.100.7 70000 10.0.0.11 22"},
        {"SSH_CLIENT": "198.51.100.9 40000 22"},
        {"SSH_CLIENT": "host 40000 22"},
        {"SSH_CLIENT": "198.51.100.7 x 22"},
    ),
)
def test_nothing_else_is_taken_for_one(environment: dict[str, str]) -> None:
    """A console has none of it, and a variable may hold anything."""
    assert own_sessions([SESSION], set(), environment) == ()
