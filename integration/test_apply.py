"""Definitions by hand: applied on trial and for good, confirmed, given up, rolled back, with real packets."""

from __future__ import annotations

import random
import time
from ipaddress import ip_address
from typing import Any

import pytest

from integration.control_client import query, send_command, status
from integration.lab import Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import NOTICED_SECONDS, Service, definitions
from sgagent.policy_test.packet_bytes import tcp

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
SSH = "ingress accept 1 tcp 22 from 0.0.0.0/0"
MAIL = "ingress accept 1 tcp 25 from 0.0.0.0/0"
BROKEN = "version: 1\nsecurity_groups: 7\n"
PORTS = (22, 25, 80)
KILLS = 12


agent = agent_with(definitions(WEB))


def written(agent: Service, text: str) -> str:
    """Write a document where the agent does not look, and return its path."""
    path = agent.directory / "by-hand.yaml"
    path.write_text(text)
    return str(path)


def apply(agent: Service, *rules: str, within: str | None = None) -> dict[str, Any]:
    """Apply a policy by hand, and return the command's output."""
    more = ("--confirm-within", within) if within else ()
    return dict(agent.as_json("apply", written(agent, definitions(*rules)), *more))


def open_ports(lab: Lab) -> set[int]:
    """Return the ports that let a new session in."""
    found = lab.send_ingress([tcp(CLIENT, HOST, 1024, port) for port in PORTS])
    return {port for port, passed in zip(PORTS, found, strict=True) if passed}


def wait_for_ports(lab: Lab, ports: set[int], seconds: float = NOTICED_SECONDS) -> None:
    """Wait until just these ports are open."""
    wait_for(lambda: open_ports(lab) == ports, f"the ports {ports}", seconds)


def test_what_is_not_confirmed_is_given_up(agent: Service, one_interface: Lab) -> None:
    """It is in force at once, shown as pending, and gone when its time is up; nothing of it is kept."""
    before = status(agent)["snapshot_version"]
    answer = apply(agent, SSH, within="6s")
    assert open_ports(one_interface) == {22}
    assert 0 < answer["seconds_left"] <= 6
    assert answer["goes_back_to"] == before
    pending = status(agent)["pending"]
    assert (pending["version"], pending["goes_back_to"]) == (answer["version"], before)
    assert "is on trial" in agent.command("status").output
    assert agent.metric("sgagent_confirmation_pending") == 1
    wait_for_ports(one_interface, {80}, 6 + NOTICED_SECONDS)
    agent.wait_for_event("rolled_back")
    assert agent.events("rolled_back")[0]["reason"] == "unconfirmed"
    found = status(agent)
    assert (found["snapshot_version"], found["pending"]) == (before, None)
    assert agent.metric("sgagent_confirmation_pending") == 0
    assert [entry["version"] for entry in history(agent)] == [before]
    assert agent.command("confirm").status == 1


def history(agent: Service) -> list[dict[str, Any]]:
    """Return the history."""
    return list(query(agent, question="history")["answer"]["entries"])


def test_what_is_confirmed_stays(agent: Service, one_interface: Lab) -> None:
    """The source's version is held back, over a kill and without the source too, until it has another."""
    held_back = status(agent)["snapshot_version"]
    version = apply(agent, SSH, within="60s")["version"]
    confirmed = agent.as_json("confirm")
    assert confirmed["is_confirmed"]
    assert (confirmed["version"], confirmed["overtaken_by"]) == (version, None)
    for end in (agent.kill, agent.stop):
        end()
        agent.start()
        assert open_ports(one_interface) == {22}
        held = status(agent)["held"]
        assert (held["version"], held["origin"], held["held_back"]) == (version, "apply", held_back)
    assert f"the source's {held_back} is held back" in agent.command("status").output
    assert agent.metric("sgagent_source_held_back") == 1
    agent.define(definitions(WEB, MAIL))
    wait_for_ports(one_interface, {25, 80})
    assert status(agent)["held"] is None
    assert [entry["origin"] for entry in history(agent)] == ["source", "apply", "source"]


def test_a_session_that_is_allowed_again_lives(agent: Service, one_interface: Lab) -> None:
    """One that a trial cuts goes on when the trial is given up: the way back into a remote machine."""
    with (
        one_interface.listen(one_interface.host, str(HOST), 80) as listener,
        one_interface.connect(one_interface.peer, (str(CLIENT), 0), (str(HOST), 80)) as client,
    ):
        listener.settimeout(2)
        server, _ = listener.accept()
        with server:
            server.settimeout(10)
            answer = apply(agent, SSH, within="2s")
            assert [cut["local_port"] for cut in answer["sessions_cut"]] == [80]
            client.sendall(b"word")
            assert server.recv(64) == b"word"  # sent again by TCP, until it may pass
            assert open_ports(one_interface) == {80}


def test_what_can_not_be_enforced_changes_nothing(agent: Service, one_interface: Lab) -> None:
    """All errors are told, with the exit code of wrong documents; so are wrong times and missing files."""
    ended = agent.command("apply", written(agent, BROKEN + "typo: 1\n"))
    assert ended.status == 2
    assert "by-hand.yaml:2: security_groups" in ended.errors
    assert "typo" in ended.errors
    unknown = definitions("ingress drop 1 tcp 80 from sg-nowhere")
    ended = agent.command("apply", written(agent, unknown), "--confirm-within", "5s")
    assert ended.status == 2
    assert "sg-nowhere" in ended.errors
    assert agent.command("apply", str(agent.directory / "nothing")).status == 2
    ended = agent.command("apply", written(agent, definitions(SSH)), "--confirm-within", "soon")
    assert ended.status == 2
    assert "--confirm-within soon" in ended.errors
    assert open_ports(one_interface) == {80}
    assert not (agent.state / "pending.json").exists()


def test_an_interrupted_command_is_done_wholly_or_not_at_all(agent: Service, one_interface: Lab) -> None:
    """A client that goes away right after it has asked leaves an order that is withdrawn, unless it began."""
    documents = [{"name": "a.yaml", "content": definitions(SSH)}]
    send_command(agent, question="apply", documents=documents, confirm_within=None).close()
    ends = ("order_withdrawn", "applied_by_hand")
    wait_for(lambda: any(agent.events(end) for end in ends), "the end of the order")
    wait_for_ports(one_interface, {80} if agent.events("order_withdrawn") else {22})


@pytest.mark.long
def test_kills_at_any_moment_of_a_trial(agent: Service, one_interface: Lab) -> None:
    """The policy before or the one on trial is in force, never anything else, and the status says which."""
    documents = [{"name": "a.yaml", "content": definitions(SSH)}]
    dice, longest = random.Random(1), 0.04
    seen = set()
    for number in range(KILLS):
        moment = time.monotonic() + dice.uniform(0, longest)
        with send_command(agent, question="apply", documents=documents, confirm_within=600.0):
            while time.monotonic() < moment:
                pass  # a few hundredths of a second, to the point
            agent.kill()
        assert open_ports(one_interface) in ({80}, {22})
        agent.start()
        is_pending = status(agent)["pending"] is not None
        seen.add(is_pending)
        longest *= 0.7 if is_pending else 1.5  # towards the time that an order takes on this machine
        assert open_ports(one_interface) == ({22} if is_pending else {80})
        if is_pending and number % 2:
            assert query(agent, question="confirm")["answer"]["is_confirmed"]
            assert open_ports(one_interface) == {22}
        if is_pending:
            assert query(agent, question="rollback")["answer"]["is_changed"]
        assert open_ports(one_interface) == {80}
        assert status(agent)["pending"] is None
    assert seen == {True, False}


def test_restoring_a_file_after_a_rollback_says_what_activates_it(agent: Service, one_interface: Lab) -> None:
    """It stays held back; reload, status, page and log name the command, and that command does it."""
    agent.define(definitions(WEB, SSH))
    wait_for_ports(one_interface, {22, 80})
    rolled = agent.command("rollback")
    remedy = f"'sgagent apply {agent.documents}' enforces it now"
    assert remedy in rolled.output
    assert open_ports(one_interface) == {80}
    (agent.documents / "policy.yaml").unlink()
    wait_for(lambda: agent.metric("sgagent_source_up") == 0, "the source to be empty")
    agent.define(definitions(WEB, SSH))
    wait_for(lambda: agent.metric("sgagent_source_up") == 1, "the same file again")
    reloaded = agent.command("reload")
    assert (reloaded.status, remedy in reloaded.output) == (0, True)
    assert open_ports(one_interface) == {80}
    assert remedy in agent.command("status").output
    assert agent.as_json("status")["held"]["remedy"] == remedy
    assert all(event["remedy"] == remedy for event in agent.events("source_held_back"))
    assert len(agent.events("source_held_back")) >= 3, "at the rollback, at the file's return, at the reload"
    assert agent.command("apply", str(agent.documents), "--yes").status == 0
    assert open_ports(one_interface) == {22, 80}
    assert status(agent)["held"] is None
    agent.define(definitions(MAIL))
    wait_for_ports(one_interface, {25})
