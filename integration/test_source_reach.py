"""No group blocks the way to the agent's own source, and nothing beside it is let through (§7.4)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.etcdcluster import CLIENT_PORT, Cluster, etcd_cluster
from integration.lab import Lab, wait_for
from integration.service import Service, definitions, service_on

SOON = 15.0
LINK, HERE = "eth9", "10.9.0.50"
BOUND = f"""
[[interface]]
name = "{LINK}"
security_group_ids = ["sg-1"]
"""
CLOSED = "egress drop 1 all -1/-1 to 0.0.0.0/0"
ELSEWHERE = CLIENT_PORT + 1
"""Where the members talk to each other."""


@pytest.fixture
def cluster(tmp_path: Path, one_interface: Lab) -> Iterator[Cluster]:
    """Run a cluster, and give the host a way to it."""
    with etcd_cluster(tmp_path) as made:
        made.network.plug_in(one_interface.host, HERE, LINK)
        made.start()
        yield made


@pytest.fixture
def agent(tmp_path: Path, one_interface: Lab, cluster: Cluster) -> Iterator[Service]:
    """Give the host an agent that follows the cluster over a link that is judged."""
    directory = tmp_path / "agent"
    directory.mkdir()
    with service_on(one_interface.host, directory) as made:
        made.configure(BOUND)
        endpoints = ", ".join(f'"{member.endpoint}"' for member in cluster.members)
        source = f'type = "etcd"\nendpoints = [{endpoints}]\ntimeout_seconds = 2\nhost_name = "web-1"\n'
        path = made.directory / "sgagent.toml"
        path.write_text(path.read_text().replace(f'path = "{made.documents}"\n', source))
        yield made


def publish(agent: Service, *rules: str) -> None:
    """Publish a policy from this host."""
    document = agent.directory / "to-publish.yaml"
    document.write_text(definitions(*rules))
    done = agent.command("publish", str(document))
    assert done.status == 0, done.errors


def has_a_second_rule(agent: Service) -> bool:
    """Tell whether a policy of two rules is in force on the link."""
    return agent.metric("sgagent_rule_packets_total", rule_id="sgr-1", interface=LINK) is not None


def is_reached(agent: Service, address: str, port: int) -> bool:
    """Tell whether a connection to another host is made."""
    with agent.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect((address, port))
        except TimeoutError:
            return False
        return True


def test_a_closed_host_still_follows_its_source(agent: Service, cluster: Cluster) -> None:
    """Over its open session, by a new one, and after a restart; nothing else gets out on that link."""
    agent.start()
    publish(agent, CLOSED)
    agent.wait_for_event("ruleset_applied", 1, SOON)
    member = cluster.members[0].address
    assert is_reached(agent, member, CLIENT_PORT)
    assert not is_reached(agent, member, ELSEWHERE)
    publish(agent, CLOSED, f"egress accept 2 tcp 9 to {member}")
    wait_for(lambda: has_a_second_rule(agent), "what was published next", SOON)
    agent.kill()
    publish(agent, CLOSED)
    agent.start()
    wait_for(lambda: not has_a_second_rule(agent), "what was published meanwhile", SOON)
    assert not is_reached(agent, member, ELSEWHERE)
    assert not [cut for cut in agent.events("session_cut_foreseen") if cut["kind"] == "source"]


def test_commands_know_the_way_too(agent: Service, cluster: Cluster) -> None:
    """As it is what the agent enforces: a change does not seem to close it, nor does its session seem cut."""
    agent.start()
    publish(agent, "egress accept 1 tcp 9 to 0.0.0.0/0")
    agent.wait_for_event("ruleset_applied", 1, SOON)
    document = agent.directory / "closed.yaml"
    document.write_text(definitions(CLOSED))
    named = ("--definitions", str(document), "--json")
    address = cluster.members[0].address
    packet = ("--on", LINK, "egress", "--source", HERE, "--destination", address, "--protocol", "tcp")
    for port, step in ((CLIENT_PORT, "failsafe"), (ELSEWHERE, "rule")):
        ended = agent.command("explain", *packet, "--port", str(port), *named)
        assert ended.status == 0, ended.errors
        assert json.loads(ended.output)["decided_by"] == step
    assert json.loads(agent.command("check", *named).output)["sessions_cut"] == []
    assert "failsafe" not in agent.command("plan", str(document)).output


def test_check_names_what_an_agent_has_open(agent: Service) -> None:
    """Also a session to an end point that the configuration does not know any more."""
    agent.start()
    publish(agent, "egress accept 1 tcp 9 to 0.0.0.0/0")
    agent.wait_for_event("ruleset_applied", 1, SOON)
    document = agent.directory / "closed.yaml"
    document.write_text(definitions(CLOSED))
    agent.configure(BOUND)
    ended = agent.command("check", "--definitions", str(document), "--json")
    cut = json.loads(ended.output)["sessions_cut"]
    assert {one["kind"] for one in cut} == {"source"}, ended.errors
    assert {one["peer_port"] for one in cut} == {CLIENT_PORT}


def test_a_host_that_boots_finds_its_way_to_its_source(agent: Service, cluster: Cluster) -> None:
    """The table of the boot leaves it open, so that the agent gets its first answer at once."""
    agent.start()
    publish(agent, CLOSED)
    agent.wait_for_event("ruleset_applied", 1, SOON)
    agent.kill()
    agent.namespace.nft("destroy", "table", "inet", "sgagent")
    assert agent.command("boot").status == 0
    member = cluster.members[0].address
    assert is_reached(agent, member, CLIENT_PORT)
    assert not is_reached(agent, member, ELSEWHERE)
