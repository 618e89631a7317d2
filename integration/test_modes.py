"""Modes are switched at run time, for every interface or one, and stay until that is cleared (§9.1)."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import Service, definitions, service_on
from sgagent.policy_test.packet_bytes import tcp

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
SSH = "ingress accept 1 tcp 22 from 0.0.0.0/0"
ONE = '[[interface]]\nname = "eth0"\nsecurity_group_ids = ["sg-1"]\n'
TWO = ONE + ONE.replace("eth0", "eth1")


agent = agent_with(definitions(WEB))


def switch(agent: Service, *arguments: str) -> dict[str, tuple[str, bool]]:
    """Switch a mode, and return the modes then: by interface, and whether each is overridden."""
    answer = agent.as_json("mode", *arguments)
    assert answer["fault"] is None
    return {one["interface"]: (one["mode"], one["is_overridden"]) for one in answer["interfaces"]}


def lets_in(lab: Lab, interface: str | None = None) -> list[bool]:
    """Tell whether new sessions to port 80, and to one that is not allowed, get in."""
    return lab.send_ingress([tcp(CLIENT, HOST, 1024, port) for port in (80, 81)], interface)


def test_observing_drops_nothing_until_it_is_cleared(agent: Service, one_interface: Lab) -> None:
    """Over a kill and a stop, whatever the configuration says, and shown where people look."""
    assert lets_in(one_interface) == [True, False]
    assert switch(agent, "observe") == {"eth0": ("observe", True)}
    for end in (agent.kill, agent.stop):
        assert lets_in(one_interface) == [True, True]
        assert agent.metric("sgagent_mode", interface="eth0", mode="observe") == 1
        ended = agent.command("status")
        assert ended.status == 1
        assert ended.output.startswith("observing")
        assert "observe on every interface, by 'sgagent mode'" in ended.output
        end()
        agent.configure('[enforcement]\nmode = "enforce"\n')
        agent.start()
    assert switch(agent, "default") == {"eth0": ("enforce", False)}
    assert lets_in(one_interface) == [True, False]
    assert [event["mode"] for event in agent.events("mode_overridden")] == ["observe"]
    assert len(agent.events("mode_override_cleared")) == 1
    assert not (agent.state / "modes.json").exists()


def test_leaving_observe_judges_every_session_again(agent: Service, one_interface: Lab) -> None:
    """One that began while nothing was dropped, and that no rule allows, ends at once, both ways."""
    switch(agent, "observe", "--interface", "eth0")
    with (
        one_interface.listen(one_interface.host, str(HOST), 81) as listener,
        one_interface.connect(one_interface.peer, (str(CLIENT), 0), (str(HOST), 81)) as client,
    ):
        listener.settimeout(2)
        server, _ = listener.accept()
        with server:
            for sender, receiver in ((client, server), (server, client)):
                receiver.settimeout(2)
                sender.sendall(b"word")
                assert receiver.recv(64) == b"word"
            switch(agent, "enforce")
            for sender, receiver in ((client, server), (server, client)):
                receiver.settimeout(0.5)
                sender.sendall(b"more")
                with pytest.raises(TimeoutError):
                    receiver.recv(64)


def test_a_closed_host_may_be_observed(agent: Service, one_interface: Lab) -> None:
    """Without a snapshot too nothing is dropped then (§9.2); and it is closed when that is cleared."""
    agent.stop()
    agent.namespace.remove_table("sgagent")
    for path in (agent.state / "history").iterdir():
        path.write_text("scribble")
    (agent.documents / "policy.yaml").unlink()
    agent.configure(ONE)
    agent.start()
    assert lets_in(one_interface) == [False, False]
    assert switch(agent, "observe") == {"eth0": ("observe", True)}
    assert lets_in(one_interface) == [True, True]
    switch(agent, "default")
    assert lets_in(one_interface) == [False, False]


def test_interfaces_are_switched_one_by_one(tmp_path: Path) -> None:
    """An order about one stands before one about all; a name that nobody knows is wrong use."""
    with lab("eth0", "eth1") as built, service_on(built.host, tmp_path) as agent:
        built.add_host_addresses([str(HOST)])
        agent.configure(TWO)
        agent.define(definitions(WEB))
        agent.start()
        assert switch(agent, "observe", "--interface", "eth1") == {
            "eth0": ("enforce", False),
            "eth1": ("observe", True),
        }
        assert [lets_in(built, name) for name in ("eth0", "eth1")] == [[True, False], [True, True]]
        agent.kill()
        agent.start()
        assert [lets_in(built, name) for name in ("eth0", "eth1")] == [[True, False], [True, True]]
        assert set(switch(agent, "enforce").values()) == {("enforce", True)}
        assert [lets_in(built, name) for name in ("eth0", "eth1")] == [[True, False]] * 2
        ended = agent.command("mode", "observe", "--interface", "eth7")
        assert ended.status == 2
        assert "no interface eth7" in ended.errors


def test_a_document_that_comes_meanwhile_is_observed_too(agent: Service, one_interface: Lab) -> None:
    """The mode is none of the definitions'."""
    switch(agent, "observe")
    agent.define(definitions(SSH))
    agent.wait_for_event("ruleset_applied", 3)
    assert lets_in(one_interface) == [True, True]
    switch(agent, "default")
    wait_for(lambda: lets_in(one_interface) == [False, False], "the new policy to be enforced")
