"""No group blocks the way to the agent's own source, and nothing beside it is let through (§7.4)."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.etcdcluster import CLIENT_PORT, Cluster, etcd_cluster, source_keys
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
    with service_on(one_interface.host, tmp_path / "agent") as made:
        made.configure(BOUND, source=cluster.source_keys("web-1"))
        yield made


def follow(agent: Service, endpoint: object) -> None:
    """Have an agent that does not run follow the cluster by one end point."""
    agent.configure(BOUND, source=source_keys(endpoint, host_name="web-1"))


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


@pytest.mark.long
def test_commands_know_the_way_too(agent: Service, cluster: Cluster) -> None:
    """As the agent enforces the way: a change does not seem to close it, nor does its session seem cut."""
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


@pytest.mark.long
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
    agent.namespace.remove_table("sgagent")
    assert agent.command("boot").status == 0
    member = cluster.members[0].address
    assert is_reached(agent, member, CLIENT_PORT)
    assert not is_reached(agent, member, ELSEWHERE)


@pytest.mark.long
def test_an_agent_that_lost_its_state_finds_a_source_that_moved(agent: Service, cluster: Cluster) -> None:
    """The table that stands lets nothing out; the way to the source alone is opened in it (§7.4)."""
    here, there = cluster.members[0], cluster.members[1]
    follow(agent, here.endpoint)
    agent.start()
    publish(agent, CLOSED)
    agent.wait_for_event("ruleset_applied", 1, SOON)
    assert not is_reached(agent, there.address, CLIENT_PORT)
    counted = counters(agent)
    agent.kill()
    shutil.rmtree(agent.state)
    follow(agent, there.endpoint)
    agent.start()
    agent.wait_for_event("source_way_opened", 1, SOON)
    wait_for(lambda: agent.metric("sgagent_source_up") == 1, "the source to be reached", SOON)
    assert not is_reached(agent, there.address, ELSEWHERE)
    assert not is_reached(agent, here.address, CLIENT_PORT)
    assert all(after >= before for before, after in zip(counted, counters(agent), strict=True))
    publish(agent, CLOSED, f"egress accept 2 tcp 9 to {there.address}")
    wait_for(lambda: has_a_second_rule(agent), "what is published now", SOON)
    assert "ct direction original ct protocol tcp" not in agent.table()


@pytest.mark.parametrize("rule", ("ct mark set 0x00000001", "counter packets 0 bytes 0"))
def test_rules_of_others_that_close_the_way_are_named(rule: str, tmp_path: Path, one_interface: Lab) -> None:
    """The agent leaves them where they are, says so, and opens the way once they are gone."""
    with service_on(one_interface.host, tmp_path / "agent") as agent:
        agent.define(definitions(CLOSED))
        agent.start()
        agent.kill()
        shutil.rmtree(agent.state)
        agent.namespace.nft("add", "rule", "inet", "sgagent", "postrouting", *rule.split())
        url = "https://192.0.2.5/policy"
        agent.configure(source=f'type = "https"\nurl = "{url}"\nconnect_timeout_seconds = 1\n')
        agent.start()
        assert not agent.events("ruleset_refused")
        (failed,) = agent.events("source_failed")
        assert "other programs have rules in postrouting" in failed["reason"]
        agent.kill()
        listed = agent.namespace.nft("-a", "list", "chain", "inet", "sgagent", "postrouting")
        (handle,) = re.findall(f"{rule.partition(' 0')[0]} .* handle (.*)", listed)
        agent.namespace.nft("delete", "rule", "inet", "sgagent", "postrouting", "handle", handle)
        agent.start()
        (opened,) = agent.events("source_way_opened")
        assert opened["endpoints"] == ["192.0.2.5 tcp 443"]


def counters(agent: Service) -> list[int]:
    """Return the packets that the default and the rule outwards have counted."""
    names = (f"default/{LINK}/egress", f"rule/{LINK}/sgr-0")
    listed = json.loads(agent.namespace.nft("-j", "list", "counters", "table", "inet", "sgagent"))["nftables"]
    found = {one["counter"]["name"]: one["counter"]["packets"] for one in listed if "counter" in one}
    return [found[name] for name in names]


NAME = "etcd.example.com"


class NameServer:
    """A name server that knows one name."""

    def __init__(self, listening: socket.socket, address: str) -> None:
        """Answer questions at a socket until that is closed."""
        self.address = address
        self._listening = listening
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._is_over.set()
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        self._listening.settimeout(0.2)
        while not self._is_over.is_set():
            with contextlib.suppress(TimeoutError):
                question, asker = self._listening.recvfrom(512)
                self._listening.sendto(self._answer(question), asker)

    def _answer(self, question: bytes) -> bytes:
        """Return an answer of one address, or none to who asks for another family's (RFC 1035)."""
        end = question.index(b"\0", 12) + 5
        is_ipv4 = question[end - 4 : end - 2] == b"\0\1"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + ip_address(self.address).packed
        head = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_ipv4 else b"\0\0") + b"\0\0\0\0"
        return head + question[12:end] + (record if is_ipv4 else b"")


@pytest.fixture
def name_server(cluster: Cluster) -> Iterator[NameServer]:
    """Run a name server beside the first member, which says that the source is there."""
    member = cluster.members[0]
    listening = member.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind((member.address, 53))
    made = NameServer(listening, member.address)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.long
def test_a_source_with_a_name_is_found_too(
    tmp_path: Path, one_interface: Lab, cluster: Cluster, name_server: NameServer
) -> None:
    """Who may know where it is by now is asked, and nobody once it is found."""
    (tmp_path / "resolv.conf").write_text(f"nameserver {name_server.address}\noptions timeout:1\n")
    private = tmp_path / "private"
    private.write_text(
        f"#!/bin/sh\nexec unshare --mount --propagation private sh -c"
        f' \'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf; exec {sys.executable} "$@"\' sh "$@"\n'
    )
    private.chmod(0o755)
    with service_on(one_interface.host, tmp_path / "agent", str(private)) as agent:
        follow(agent, f"http://{NAME}:{CLIENT_PORT}")
        agent.start()
        publish(agent, CLOSED)
        agent.wait_for_event("ruleset_applied", 1, SOON)
        agent.kill()
        shutil.rmtree(agent.state)
        name_server.address = cluster.members[1].address
        agent.start()
        agent.wait_for_event("source_way_opened", 2, 2 * SOON)
        wait_for(lambda: agent.metric("sgagent_source_up") == 1, "the source to be reached", 2 * SOON)
        wait_for(lambda: agent.command("status").status == 0, "the agent to enforce", SOON)
        opened = [one["endpoints"] for one in agent.events("source_way_opened")]
        assert f"{cluster.members[0].address} udp 53" in opened[0]
        assert f"{cluster.members[1].address} tcp {CLIENT_PORT}" in opened[-1]
        assert "53" not in {word for line in agent.table().splitlines() for word in line.split()}
