"""The daemon without a snapshot, in observe mode, and with ``sessions = "keep"`` (§9)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from integration.lab import Lab, wait_for
from integration.service import NOTICED_SECONDS, Service, definitions, is_let_in
from sgagent.policy_test.packet_bytes import tcp

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
METADATA = ip_address("100.100.100.200")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
BROKEN = "version: 1\nsecurity_groups: 7\n"
BOUND = """
[[interface]]
name = "eth0"
security_group_ids = ["sg-1"]
"""
FAIL_CLOSED = "[enforcement]\nfail_closed = true\n"


@pytest.mark.parametrize("document", (None, BROKEN))
def test_a_new_host_stays_open_and_says_so(agent: Service, one_interface: Lab, document: str | None) -> None:
    """A host that never enforced anything is left as it is, with a loud word about it (§9.2)."""
    agent.configure(BOUND)
    if document:
        agent.define(document)
    agent.start()
    assert not agent.table()
    assert is_let_in(one_interface, CLIENT, HOST, 81)
    level = "error" if document else "warning"  # without a document it is as after an installation
    assert [event["level"] for event in agent.events("nothing_enforced")] == [level]
    assert not agent.events("source_failed")
    assert agent.metric("sgagent_interface_info", interface="eth0", state="unbound") == 1
    assert agent.metric("sgagent_snapshot_info") is None
    agent.define(definitions(WEB))
    wait_for(lambda: not is_let_in(one_interface, CLIENT, HOST, 81), "the policy", NOTICED_SECONDS)
    assert is_let_in(one_interface, CLIENT, HOST, 80)


def assert_closed(agent: Service, lab: Lab) -> None:
    """Check that steps 1 to 3 of §3 alone let anything pass, and that the agent says so."""
    assert not is_let_in(lab, CLIENT, HOST, 80)
    assert lab.send_egress([tcp(HOST, CLIENT, 1024, 443), tcp(HOST, METADATA, 1024, 80)]) == [False, True]
    assert agent.events("host_closed")[-1]["level"] == "error"
    assert agent.metric("sgagent_interface_info", interface="eth0", state="closed") == 1
    assert not agent.events("nothing_enforced")


def test_a_new_host_may_be_closed(agent: Service, one_interface: Lab) -> None:
    """With ``fail_closed`` the interfaces of the configuration are closed without a snapshot (§9.2)."""
    agent.configure(BOUND + FAIL_CLOSED)
    agent.start()
    assert_closed(agent, one_interface)
    agent.define(definitions(WEB))
    wait_for(lambda: is_let_in(one_interface, CLIENT, HOST, 80), "the policy", NOTICED_SECONDS)
    assert agent.metric("sgagent_interface_info", interface="eth0", state="bound") == 1


def test_a_host_that_enforced_and_lost_its_state_is_closed(agent: Service, one_interface: Lab) -> None:
    """The last policy can't be read any more: the interfaces of the configuration are closed (§9.2)."""
    agent.configure(BOUND)
    agent.define(definitions(WEB))
    agent.start()
    agent.stop()
    agent.namespace.nft("flush", "ruleset")
    (agent.documents / "policy.yaml").unlink()
    for kept in (agent.state / "history").iterdir():
        kept.write_text("scribble")
    agent.start()
    assert_closed(agent, one_interface)
    assert str(agent.state) in agent.events("state_damaged")[0]["reason"]
