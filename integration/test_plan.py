"""A plan is made against the running agent's policy, and comes true when it is carried out."""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from integration.lab import Lab
from integration.service import Service, definitions, is_let_in
from integration.test_lockout import session

HOST, ADMIN, VISITOR = "10.0.0.11", "198.51.100.7", "198.51.100.8"
OLD = definitions(f"ingress accept 1 tcp 22 from {ADMIN}", "ingress accept 1 tcp 80 from 0.0.0.0/0")
NEW = definitions(f"ingress drop 1 tcp 22 from {ADMIN}", "ingress accept 1 tcp 80-81 from 0.0.0.0/0")


@pytest.fixture
def agent(agent: Service) -> Service:
    """Return an agent that enforces the old definitions; the new ones lie beside them."""
    agent.define(OLD)
    agent.start()
    (agent.directory / "new.yaml").write_text(NEW)
    return agent


def test_a_plan_against_the_running_agent(agent: Service, one_interface: Lab) -> None:
    """The plan names flows that open and close, and the session that would be cut; nothing is changed."""
    with ExitStack() as stack:
        stack.enter_context(session(one_interface, stack, ADMIN, HOST, 22))
        before = agent.table()
        found = agent.command("plan", "--definitions", str(agent.directory / "new.yaml"), "--exit-code")
        lines = found.output.splitlines()
        assert found.status == 1, found.errors
        assert lines[0] == "opens 1, closes 1, cuts 1 session"
        assert lines[1].startswith("  against the running agent (snapshot ")
        assert f"  eth0 ingress: tcp 22 from {ADMIN}: dropped by sgr-0 of sg-1" in found.output
        assert f"  the login from {ADMIN} port " in found.output
        assert agent.table() == before


def test_a_link_that_only_observes_cuts_no_session(agent: Service, one_interface: Lab) -> None:
    """A mode that was switched at run time counts, while the agent runs and after it has stopped."""
    with ExitStack() as stack:
        stack.enter_context(session(one_interface, stack, ADMIN, HOST, 22))
        arguments = ("plan", "--definitions", str(agent.directory / "new.yaml"))
        assert agent.command(*arguments).output.splitlines()[0] == "opens 1, closes 1, cuts 1 session"
        assert agent.command("mode", "observe", "--interface", "eth0").status == 0
        assert agent.command(*arguments).output.splitlines()[0] == "opens 1, closes 1"
        agent.stop()
        assert agent.command(*arguments).output.splitlines()[0] == "opens 1, closes 1"


def test_nothing_to_plan(agent: Service) -> None:
    """The configured source is in force: nothing changes, and the exit code says so."""
    found = agent.command("plan", "--exit-code")
    assert (found.status, found.output.splitlines()[0]) == (0, "opens 0, closes 0: nothing changes")


def test_a_plan_comes_true(agent: Service, one_interface: Lab) -> None:
    """The flows that it named open and close; and the agent needs as many operations as it named."""
    plan = agent.as_json("plan", "--definitions", str(agent.directory / "new.yaml"))
    flows = {(flow["effect"], flow["ports"], flow["after"]["rule_id"]) for flow in plan["flows"]}
    assert flows == {("opens", "81/81", "sgr-1"), ("closes", "22/22", "sgr-0")}
    host, admin, visitor = map(ip_address, (HOST, ADMIN, VISITOR))
    assert not is_let_in(one_interface, visitor, host, 81)
    assert is_let_in(one_interface, admin, host, 22)
    agent.define(NEW)
    agent.wait_for_event("ruleset_applied", 2)
    assert is_let_in(one_interface, visitor, host, 81)
    assert not is_let_in(one_interface, admin, host, 22)
    assert agent.events("ruleset_applied")[1]["operations"] == len(plan["operations"])
