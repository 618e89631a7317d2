"""The daemon on a real host: it follows its file, survives what is broken, and leaves no gap when it goes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.agentprocess import AgentProcess, running_agent
from integration.enforcer import one_group
from integration.lab import HOST_MAC, Lab, wait_for
from integration.traffic import Session, Traffic, is_open, traffic
from sgagent.core.host import HandBinding

HOST, CLIENT, OTHER = "10.0.0.11", "198.51.100.7", "198.51.100.8"
PROMISED_SECONDS = 2.0
"""Within which a changed file is enforced."""

BY_HAND = (HandBinding(interface="eth0", security_group_ids=("sg-1",)),)
WEB = one_group("ingress accept 1 tcp 80/82 from 198.51.100.0/24")
WEB_FOR_ONE = one_group(f"ingress accept 1 tcp 80/82 from {CLIENT}")
SHUT = one_group()


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """Return a directory of documents that opens the web to two clients."""
    directory = tmp_path / "groups.d"
    directory.mkdir()
    write(directory, WEB)
    return directory


@pytest.fixture
def host(one_interface: Lab) -> Iterator[Lab]:
    """Return a host that serves the web at an address."""
    one_interface.add_host_addresses([HOST])
    with one_interface.listen(one_interface.host, HOST, 80):
        yield one_interface


@pytest.fixture
def agent(host: Lab, groups: Path) -> Iterator[AgentProcess]:
    """Run the daemon there."""
    with running_agent(host.host, groups, BY_HAND) as started:
        yield started


def write(directory: Path, definitions: str, name: str = "groups.yaml") -> None:
    """Write a document as editors do: a new file that takes the place of the old one."""
    draft = directory / ".draft"
    draft.write_text(f"version: 1\n{definitions}\n")
    draft.rename(directory / name)


def reaches(host: Lab, source: str = CLIENT) -> bool:
    """Tell whether a new connection is made."""
    return is_open(lambda: host.connect(host.peer, (source, 0), (HOST, 80), seconds=0.3))


def applied(agent: AgentProcess) -> float:
    """Return how many transactions the daemon has carried out."""
    return next(s.value for s in agent.samples("sgagent_apply_total") if s.labels["outcome"] == "applied")


def test_a_changed_file_is_enforced_in_time(agent: AgentProcess, host: Lab, groups: Path) -> None:
    """A file that is replaced decides about new connections within the two seconds that are promised."""
    assert reaches(host, OTHER)
    write(groups, WEB_FOR_ONE)
    assert wait_for(lambda: not reaches(host, OTHER), "the change to be enforced") < PROMISED_SECONDS
    assert reaches(host, CLIENT)
    assert applied(agent) == 2


def test_a_file_written_in_place_and_one_more_are_noticed(
    agent: AgentProcess, host: Lab, groups: Path
) -> None:
    """A document that is rewritten where it stands is noticed, and so is a second one beside it."""
    (groups / "groups.yaml").write_text(f"version: 1\n{SHUT}\n")
    wait_for(lambda: not reaches(host), "the change to be enforced", PROMISED_SECONDS)
    (groups / "groups.yaml").unlink()
    write(groups, WEB, "web.json.yaml")
    wait_for(lambda: reaches(host), "the new file to be enforced", PROMISED_SECONDS)
    assert agent.process.poll() is None


def test_a_broken_document_keeps_the_last_good_policy(agent: AgentProcess, host: Lab, groups: Path) -> None:
    """What can't be read changes nothing, shows in metrics and log, and is forgotten when it is mended."""
    write(groups, "security_groups: [{security_group_id: sg-1, typ: basic}]")
    wait_for(lambda: refused(agent) == 1, "the refusal to show", PROMISED_SECONDS)
    assert reaches(host, CLIENT)
    assert "snapshot_refused" in agent.log
    assert "typ" in agent.log
    write(groups, WEB_FOR_ONE)
    wait_for(lambda: not reaches(host, OTHER), "the mended file to be enforced", PROMISED_SECONDS)
    wait_for(lambda: refused(agent) == 0, "the refusal to be forgotten", PROMISED_SECONDS)


def refused(agent: AgentProcess) -> float:
    """Return 1 if the newest documents are refused, else 0."""
    lines = agent.scrape().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("sgagent_snapshot_refused "))


def test_a_reload_steps_at_once(agent: AgentProcess, host: Lab, groups: Path) -> None:
    """SIGHUP makes the daemon look at its source, and does not end it."""
    agent.reload()
    wait_for(lambda: agent.log.count("reload") > 0 or agent.process.poll() is not None, "the reload to show")
    assert agent.process.poll() is None
    write(groups, SHUT)
    agent.reload()
    wait_for(lambda: not reaches(host), "the change to be enforced", PROMISED_SECONDS)


def test_hits_are_scraped_as_they_are_made(agent: AgentProcess, host: Lab) -> None:
    """A scrape right after a connection shows its hit, and one per session only."""
    assert agent.hits_of_rules() == {("eth0", "sgr-0"): 0}
    with host.connect(host.peer, (CLIENT, 0), (HOST, 80)) as client:
        client.sendall(bytes(100_000))
        assert agent.hits_of_rules() == {("eth0", "sgr-0"): 1}
    assert reaches(host, OTHER)
    assert agent.hits_of_rules() == {("eth0", "sgr-0"): 2}


def test_the_rules_outlive_the_daemon(host: Lab, groups: Path) -> None:
    """After an orderly end, and after a kill, what was enforced still is."""
    with running_agent(host.host, groups, BY_HAND) as agent:
        assert agent.stop() == 0
        assert not reaches(host, "192.0.2.1")
        assert reaches(host)
    with running_agent(host.host, groups, BY_HAND) as agent:
        kill(agent)
        assert not reaches(host, "192.0.2.1")
        assert reaches(host)


def test_a_restart_changes_nothing_and_counts_on(host: Lab, groups: Path, tmp_path: Path) -> None:
    """A daemon that comes back finds its table, loses no hit, and cuts no session (§6.3)."""
    state = tmp_path / "kept"
    with traffic(host) as busy, running_agent(host.host, groups, BY_HAND, state=state) as agent:
        open_web(busy)
        with busy.running():
            busy.wait_until_all_talk()
            kill(agent)
            with running_agent(host.host, groups, BY_HAND, state=state) as second:
                busy.wait_until_all_talk()
                assert applied(second) == 0
                assert second.hits_of_rules() == {("eth0", "sgr-0"): 1}
            busy.settle({"web"})


def test_a_session_is_cut_by_a_changed_file(agent: AgentProcess, host: Lab, groups: Path) -> None:
    """From the file to the wire: a session that is not allowed any more stops, the other goes on."""
    with traffic(host) as busy:
        open_web(busy)
        busy.open("goes on", host.peer, OTHER, host.host, (HOST, 82))
        with busy.running():
            busy.wait_until_all_talk()
            began = time.perf_counter()
            write(groups, one_group(f"ingress accept 1 tcp 80/82 from {OTHER}"))
            silent = busy.silent_since(began, PROMISED_SECONDS + 1)
        assert set(silent) == {"web"}
        assert silent["web"] < PROMISED_SECONDS
    assert agent.process.poll() is None


def test_sessions_that_nobody_followed_are_ended(host: Lab, groups: Path) -> None:
    """Where conntrack did not run before, forbidden sessions at local listeners end with the start (§6.3).

    Otherwise the server's next packet would open them outwards, as if it had been asked.
    """
    write(groups, WEB_FOR_ONE)
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(host.listen(host.host, HOST, 82))
        clients, servers = {}, {}
        for source in (CLIENT, OTHER):
            clients[source] = opened.enter_context(host.connect(host.peer, (source, 0), (HOST, 82)))
            servers[source] = opened.enter_context(listener.accept()[0])
        opened.enter_context(running_agent(host.host, groups, BY_HAND))
        forbidden = servers[OTHER]
        wait_for(lambda: forbidden.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0, "its end", 5)
        servers[CLIENT].sendall(b"still here")
        assert clients[CLIENT].recv(10, socket.MSG_WAITALL) == b"still here"


def open_web(busy: Traffic) -> Session:
    """Open a session to a web server of the session's own."""
    return busy.open("web", busy.lab.peer, CLIENT, busy.lab.host, (HOST, 81))


def test_an_interface_is_found_by_its_mac(host: Lab, groups: Path) -> None:
    """Nothing bound by hand: the documents name the interface by its MAC address."""
    write(
        groups,
        WEB
        + "\nnetwork_interfaces:\n  - network_interface_id: eni-1\n"
        + f"    mac_address: {HOST_MAC % 0}\n    addresses: [{HOST}]\n    security_group_ids: [sg-1]",
    )
    with running_agent(host.host, groups, ()) as agent:
        assert reaches(host)
        assert not reaches(host, "192.0.2.1")
        (info,) = [s for s in agent.samples("sgagent_interface_info") if s.labels["interface"] == "eth0"]
        assert info.labels["network_interface_id"] == "eni-1"


def test_a_foreign_flush_opens_nothing(agent: AgentProcess, host: Lab) -> None:
    """``nft flush ruleset`` passes the daemon's table by, and its edits are refused."""
    host.host.nft("flush", "ruleset")
    assert not reaches(host, "192.0.2.1")
    assert reaches(host)
    assert agent.process.poll() is None


def test_a_second_daemon_does_not_take_the_table(agent: AgentProcess, host: Lab, tmp_path: Path) -> None:
    """While one daemon owns the table another one can't change it, and says so."""
    others = tmp_path / "others.yaml"
    others.write_text(f"version: 1\n{SHUT}\n")
    with running_agent(host.host, others, BY_HAND, metrics=("127.0.0.1", 9470)) as second:
        assert "owned by process" in second.log
        assert reaches(host)
    assert agent.process.poll() is None
    assert reaches(host)


def kill(agent: AgentProcess) -> None:
    """End the daemon without a warning."""
    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.wait(10)
