"""A change that would cut a login waits, and a mode can be tried, with real sessions (§7.4, §9.1)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, wait_for
from integration.service import Service, definitions, is_let_in
from tests.patience import PATIENCE

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
ADMIN, ADMIN6, STRANGER = "198.51.100.7", "2001:db8:7::1", "203.0.113.5"
ADDRESSES = f"{HOST}, '{HOST6}'"
OPEN = definitions(
    "ingress accept 1 tcp 22 from 0.0.0.0/0", "ingress accept 1 tcp 22 from ::/0", addresses=ADDRESSES
)
SHUT = definitions("ingress accept 1 tcp 80 from 0.0.0.0/0", addresses=ADDRESSES)
LONG, SHORT = 600, int(15 * PATIENCE)
Ends = tuple[socket.socket, socket.socket]
"""The far end of a session, and the near one."""

SAY_WALL = '#!/bin/sh\ncat >>"{file}"\nexec sleep 1000\n'
"""A wall(1) whose terminals are stopped: it never ends."""


@pytest.fixture
def agent(agent: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Have the agent hold changes that would cut a login; it is not started yet."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "wall"
    program.write_text(SAY_WALL.format(file=tmp_path / "told"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    agent.is_forked = False  # with this PATH
    hold(agent, LONG)
    agent.define(OPEN)
    return agent


def hold(agent: Service, seconds: int) -> None:
    """Configure how long a change waits."""
    agent.configure(f"[enforcement]\nhold_lockout_seconds = {seconds}\n")


@pytest.fixture(params=[(ADMIN, HOST), (ADMIN6, HOST6)], ids=["IPv4", "IPv6"])
def login(bench: Lab, request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Log in; return both ends of the session."""
    with logged_in(bench, *request.param) as ends:
        yield ends


@pytest.fixture
def login4(bench: Lab) -> Iterator[Ends]:
    """Log in over IPv4."""
    with logged_in(bench) as ends:
        yield ends


@contextmanager
def logged_in(bench: Lab, far: str = ADMIN, near: str = HOST) -> Iterator[Ends]:
    """Log in; yield both ends of the session."""
    with (
        bench.listen(bench.host, near, 22) as listener,
        bench.connect(bench.peer, (far, 0), (near, 22)) as client,
        listener.accept()[0] as server,
    ):
        yield client, server


def talks(login: Ends) -> bool:
    """Return whether a byte comes through in both directions."""
    try:
        for one, other in (login, login[::-1]):
            one.send(b"x")
            other.settimeout(1.0)
            if other.recv(1) != b"x":
                return False
    except OSError:  # silence, or an end
        return False
    return True


def opens(bench: Lab, port: int) -> bool:
    """Return whether a stranger's new session gets in."""
    return is_let_in(bench, ip_address(STRANGER), ip_address(HOST), port)


@pytest.mark.sampled(1)
def test_it_waits_and_says_so_everywhere(agent: Service, bench: Lab, login: Ends) -> None:
    """In the status, the log, the metric, on terminals, and in the answer to a reload; the login lives."""
    agent.start()
    agent.define(SHUT)
    agent.wait_for_event("change_held")
    peer = login[0].getsockname()[0]
    (event,) = agent.events("change_held")
    assert peer in event["sessions"][0]
    held = agent.as_json("status")["held_change"]
    assert held["sessions"][0]["peer"] == peer
    assert 0 < held["seconds_left"] <= LONG
    assert "'sgagent apply' enforces it now" in agent.command("status").output
    assert agent.metric("sgagent_change_held") == 1
    told = agent.directory / "told"
    wait_for(lambda: told.exists() and peer in told.read_text(), "the terminals to be told")
    reloaded = agent.command("reload")
    assert (reloaded.status, "waits, as it would cut" in reloaded.output) == (0, True)
    assert talks(login)
    assert not opens(bench, 80)


@pytest.mark.sampled(1)
def test_apply_enforces_what_waits(agent: Service, bench: Lab, login: Ends) -> None:
    """At once; then nothing waits to be applied."""
    agent.start()
    agent.define(SHUT)
    agent.wait_for_event("change_held")
    applied = agent.command("apply")
    assert (applied.status, applied.errors) == (0, "")
    assert opens(bench, 80)
    assert not talks(login)
    assert agent.as_json("status")["held_change"] is None
    again = agent.command("apply")
    assert (again.status, "no change waits" in again.errors) == (2, True)


@pytest.mark.long
def test_a_mode_on_trial_ends_by_itself(agent: Service, bench: Lab) -> None:
    """Enforcing is tried and given up: the login, which it stopped, goes on; confirmed, it stays."""
    agent.configure('[enforcement]\nmode = "observe"\n')
    agent.define(SHUT)
    agent.start()
    assert opens(bench, 443)
    with logged_in(bench) as login:
        expect_a_trial(agent, bench, login)
    assert agent.command("mode", "enforce", "--confirm-within", "60s").status == 0
    assert agent.command("confirm").output == "confirmed mode enforce\n"
    agent.kill()
    agent.start()
    assert not opens(bench, 443)


def expect_a_trial(agent: Service, bench: Lab, login: Ends) -> None:
    """Try to enforce, and wait for the end of that."""
    tried = agent.command("mode", "enforce", "--confirm-within", f"{SHORT}s")
    assert tried.status == 0, tried.errors
    assert "unless 'sgagent confirm' runs" in tried.output
    assert not opens(bench, 443)
    assert agent.as_json("status")["pending_mode"]["mode"] == "enforce"
    agent.wait_for_event("mode_rolled_back", seconds=2 * SHORT)
    wait_for(lambda: opens(bench, 443), "the mode of before")
    assert talks(login)


@pytest.mark.long
def test_no_mode_cuts_its_own_session(agent: Service, login4: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ``enforce`` nor ``default``, unless told so."""
    agent.configure('[enforcement]\nmode = "enforce"\n')
    agent.define(OPEN)
    agent.start()
    assert agent.command("mode", "observe").status == 0
    agent.define(SHUT)
    agent.wait_for_event("ruleset_applied", 3)
    port = login4[0].getsockname()[1]
    monkeypatch.setenv("SSH_CONNECTION", f"{ADMIN} {port} {HOST} 22")
    for mode in ("enforce", "default"):
        refused = agent.command("mode", mode)
        assert refused.status == 2
        assert f"the login from {ADMIN} port {port}" in refused.errors
        assert "--confirm-within" in refused.errors
    assert talks(login4)
    assert agent.command("mode", "enforce", "--yes").status == 0
    assert not talks(login4)


@pytest.mark.long
def test_an_unbound_link_is_told(agent: Service, bench: Lab) -> None:
    """A MAC that changes opens the host: a warning, a refusal, an error in the log, and in the metrics."""
    agent.configure()
    agent.start()
    assert (agent.metric("sgagent_bound_links"), agent.metric("sgagent_unbound_expected")) == (1, 0)
    assert not opens(bench, 80)
    other = definitions(mac_address="02:00:00:00:00:99", addresses="10.0.0.99")
    path = agent.directory / "by-hand.yaml"
    path.write_text(other)
    checked = agent.command("check", str(path))
    assert (checked.status, "eth0 of this host, bound before as" in checked.output) == (0, True)
    refused = agent.command("apply", str(path))
    assert (refused.status, "would open eth0" in refused.errors) == (2, True)
    assert not opens(bench, 80)
    agent.define(other)
    agent.wait_for_event("interface_unbound")
    assert (agent.metric("sgagent_bound_links"), agent.metric("sgagent_unbound_expected")) == (0, 1)
    assert "on eth0 before" in agent.command("status").output
    assert "eth0 of this host, bound before as" in agent.command("check").output
    assert opens(bench, 80)
    agent.define(OPEN)
    wait_for(lambda: agent.metric("sgagent_bound_links") == 1, "the link to be bound again")
    applied = agent.command("apply", str(path), "--yes")
    assert (applied.status, "on no interface" in applied.output) == (0, True)
