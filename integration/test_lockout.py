"""Who would be locked out is told before it happens, and nobody locks out themselves unasked (§7.4)."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from integration.lab import Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import Ended, Service, definitions

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
ADMIN, ADMIN6, VISITOR = "198.51.100.7", "2001:db8:7::1", "198.51.100.8"
ADDRESSES = f"{HOST}, '{HOST6}'"
OPEN = definitions(
    "ingress accept 1 tcp 22 from 0.0.0.0/0",
    "ingress accept 1 tcp 22 from ::/0",
    "ingress accept 1 tcp 80 from 0.0.0.0/0",
    addresses=ADDRESSES,
)
NARROW = definitions(
    f"ingress drop 1 tcp 22 from {ADMIN}", "ingress accept 2 tcp 80 from 0.0.0.0/0", addresses=ADDRESSES
)

LOGIN_SERVER = """
import os, socket, subprocess, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
connection, _ = listener.accept()
terminal = os.openpty()
sys.exit(subprocess.run(["sh", "-c", '"$@"; exit $?', "sh", *sys.argv[3:]]).returncode)
"""
"""Waits for one session, and runs a command in it, in a shell; it holds a terminal, as login servers do."""


agent = agent_with(OPEN, is_started=False)


@pytest.fixture
def sessions(bench: Lab) -> Iterator[dict[str, int]]:
    """Open a login over each family, and a visit to the web server; return the far ends' ports."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(session(bench, stack, far, near, port)).getsockname()[1]
            for name, far, near, port in (
                ("login", ADMIN, HOST, 22),
                ("login over IPv6", ADMIN6, HOST6, 22),
                ("visit", VISITOR, HOST, 80),
            )
        }


def session(lab: Lab, stack: ExitStack, far: str, near: str, port: int) -> socket.socket:
    """Open a session to the host that lasts as long as the stack; return the far end."""
    listener = stack.enter_context(lab.listen(lab.host, near, port))
    client = lab.connect(lab.peer, (far, 0), (near, port))
    stack.enter_context(listener.accept()[0])
    return client


def foreseen(agent: Service) -> set[tuple[str, str, int, str | None]]:
    """Return kind, far end and forbidding rule of the sessions that were named before a change."""
    return {
        (event["kind"], event["peer"], event["peer_port"], event["rule_id"])
        for event in agent.events("session_cut_foreseen")
    }


def test_sessions_are_named_before_they_are_cut(agent: Service, sessions: Mapping[str, int]) -> None:
    """Those that lived by the old policy and don't by the new one, in log, status and metrics; no others."""
    agent.start()
    assert not agent.events("session_cut_foreseen")
    assert agent.metric("sgagent_sessions_cut_total", kind="management") == 0
    agent.define(NARROW)
    agent.wait_for_event("ruleset_applied", 2)
    assert foreseen(agent) == {
        ("management", ADMIN, sessions["login"], "sgr-0"),
        ("management", ADMIN6, sessions["login over IPv6"], None),
    }
    order = [event["event"] for event in agent.all_events()]
    assert order.index("session_cut_foreseen") < len(order) - 1 - order[::-1].index("ruleset_applied")
    wait_for(lambda: agent.metric("sgagent_sessions_cut_total", kind="management") == 2, "the metric")
    assert agent.metric("sgagent_sessions_cut_total", kind="other") == 0
    said = agent.as_json("status")
    assert said["sessions_cut"] == 2
    assert {cut["peer"] for cut in said["first_sessions_cut"]} == {ADMIN, ADMIN6}
    assert f"the login from {ADMIN}" in agent.command("status").output


def test_the_first_start_names_them_too(agent: Service, sessions: Mapping[str, int]) -> None:
    """They are named before the first table stands, and with the action taken (§6.3)."""
    agent.define(NARROW)
    agent.start()
    assert {found[1:3] for found in foreseen(agent)} == {
        (ADMIN, sessions["login"]),
        (ADMIN6, sessions["login over IPv6"]),
    }
    order = [event["event"] for event in agent.all_events()]
    assert order.index("session_cut_foreseen") < order.index("ruleset_applied") < order.index("session_cut")


def in_a_session(agent: Service, lab: Lab, peer: str, address: str, *arguments: str) -> Ended:
    """Run a command in a session from the peer, as a login server does."""
    ended: list[Ended] = []
    through = (sys.executable, "-c", LOGIN_SERVER, address, "2222")
    command = threading.Thread(
        target=lambda: ended.append(agent.command(*arguments, through=through)), name="login"
    )
    command.start()
    clients: list[socket.socket] = []

    def connected() -> bool:
        try:
            clients.append(lab.connect(lab.peer, (peer, 0), (address, 2222)))
        except OSError:
            return False
        return True

    wait_for(connected, "the login server")
    command.join()
    clients[0].close()
    return ended[0]


def test_what_else_serves_is_no_login(agent: Service, sessions: Mapping[str, int]) -> None:
    """This process holds the near ends of all sessions and calls the command, and nobody logged in."""
    agent.define(NARROW)
    done = agent.command("compile")
    assert done.status == 0, done.errors
    assert sessions
    assert agent.table()


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("peer", "address"), ((ADMIN, HOST), (ADMIN6, HOST6)), ids=("IPv4", "IPv6"))
def test_a_one_shot_does_not_cut_its_own_session(agent: Service, bench: Lab, peer: str, address: str) -> None:
    """It changes nothing and names the session, where, and the forbidding rule; with ``--yes`` it goes on."""
    refused = in_a_session(agent, bench, peer, address, "compile")
    assert refused.status == 2
    assert f"the login from {peer} port " in refused.errors
    assert "to port 2222 on eth0, by the default" in refused.errors
    assert "--yes" in refused.errors
    assert not agent.table()
    done = in_a_session(agent, bench, peer, address, "compile", "--yes")
    assert done.status == 0, done.errors
    assert agent.table()


def test_what_a_login_server_told_is_believed(
    agent: Service, sessions: Mapping[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of an SSH server name the session, also where its process can't be looked into."""
    monkeypatch.setenv("SSH_CONNECTION", f"{ADMIN} {sessions['login']} {HOST} 22")
    agent.define(NARROW)
    refused = agent.command("compile")
    assert refused.status == 2
    assert (
        f"the login from {ADMIN} port {sessions['login']} to port 22 on eth0, by rule sgr-0" in refused.errors
    )
    assert agent.command("compile", "--dry-run").status == 0
    assert not agent.table()
    monkeypatch.delenv("SSH_CONNECTION")
    monkeypatch.setenv("SSH_CLIENT", f"{ADMIN} {sessions['login']} 22")
    assert agent.command("compile").status == 2
    assert agent.command("compile", "--yes").status == 0


@pytest.mark.long
def test_apply_does_not_cut_its_own_session(agent: Service, bench: Lab) -> None:
    """As a one-shot, unless it is on trial, told so, or the agent only observes (§9.1)."""
    agent.define(definitions(f"ingress accept 1 tcp 2222 from {ADMIN}"))
    agent.start()
    path = agent.directory / "by-hand.yaml"
    path.write_text(definitions())

    def applied(*more: str) -> Ended:
        return in_a_session(agent, bench, ADMIN, HOST, "apply", str(path), *more)

    refused = applied()
    assert refused.status == 2
    assert f"the login from {ADMIN} port " in refused.errors
    assert "--confirm-within 60s" in refused.errors
    assert len(agent.events("ruleset_applied")) == 1
    trial = applied("--confirm-within", "1s")
    assert trial.status == 0
    assert f"this cuts the session that you are in until then: the login from {ADMIN}" in trial.output
    agent.wait_for_event("ruleset_applied", 3)
    assert agent.command("mode", "observe").status == 0
    assert applied().status == 0
    path.write_text(OPEN)
    assert agent.command("apply", str(path)).status == 0
    assert agent.command("mode", "default").status == 0
    path.write_text(definitions(f"ingress accept 1 tcp 2222 from {ADMIN}"))
    assert agent.command("apply", str(path)).status == 0
    path.write_text(definitions())
    assert applied("--yes").status == 0


def test_a_rollback_does_not_cut_its_own_session(agent: Service, bench: Lab) -> None:
    """Nor unbinds the link that it comes through, unless it is told so."""
    admits = definitions(f"ingress accept 1 tcp 2222 from {ADMIN}")
    elsewhere = definitions(f"ingress accept 1 tcp 2222 from {ADMIN}", mac_address="", addresses="10.9.9.9")
    path = agent.directory / "by-hand.yaml"
    agent.define(definitions())
    agent.start()
    for text in (elsewhere, admits):
        path.write_text(text)
        assert agent.command("apply", str(path), "--yes").status == 0
    applied = len(agent.events("ruleset_applied"))

    def rolled_back(*arguments: str) -> Ended:
        return in_a_session(agent, bench, ADMIN, HOST, "rollback", *arguments)

    unbinding, cutting = rolled_back(), rolled_back("1")
    assert (unbinding.status, cutting.status) == (2, 2)
    assert "this would open eth0" in unbinding.errors
    assert "correct network_interfaces, or say --yes" in unbinding.errors
    assert f"the login from {ADMIN} port " in cutting.errors
    assert "or say --yes" in cutting.errors
    assert len(agent.events("ruleset_applied")) == applied
    assert rolled_back("1", "--yes").status == 0
    assert agent.as_json("history")["entries"][0]["origin"] == "rollback"


def test_check_names_who_would_be_cut(agent: Service, sessions: Mapping[str, int]) -> None:
    """The login is named with its purpose; the exit code is that of the documents alone."""
    agent.define(NARROW)
    checked = agent.command("check")
    assert checked.status == 0
    assert f"would cut the login from {ADMIN} port {sessions['login']} to port 22" in checked.output
    said = agent.as_json("check")
    assert {(cut["kind"], cut["peer"]) for cut in said["sessions_cut"]} == {
        ("management", ADMIN),
        ("management", ADMIN6),
    }
