"""The real daemon is asked: by status, hits, explain and probes, by those who may and those who may not."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.control_client import status
from integration.lab import Lab, wait_for
from integration.service import Ended, Service, definitions, is_let_in, service_on
from tests.patience import PATIENCE

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
DROP_TELNET = "ingress drop 1 tcp 23 from 0.0.0.0/0"
POLICY = definitions(WEB, DROP_TELNET)
BROKEN = "version: 1\nsecurity_groups: 7\n"
WEB_PACKET = (
    *("explain", "ingress", "--source", str(CLIENT), "--destination", str(HOST)),
    *("--protocol", "tcp", "--port", "80"),
)
NOBODY = 65534
STRANGER = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@pytest.fixture
def agent(one_interface: Lab) -> Iterator[Service]:
    """Give the host an agent that runs, in a directory that everybody may enter."""
    one_interface.add_host_addresses([str(HOST)])
    with tempfile.TemporaryDirectory(prefix="sgagent-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        made = stack.enter_context(service_on(one_interface.host, directory))
        made.define(POLICY)
        made.start()
        yield made


def socket_of(agent: Service) -> Path:
    """Return where the daemon can be asked."""
    return agent.directory / "run" / "control.sock"


def test_the_status_is_on_one_screen(agent: Service) -> None:
    """The status shows the policy, where and since when; the exit code says that it is in force."""
    found = agent.as_json("status")
    assert (found["is_enforcing"], found["posture"], found["is_ready"]) == (True, "enforcing", True)
    assert found["pid"] == agent.pid
    assert found["snapshot_version"] == agent.events("ruleset_applied")[0]["version"]
    assert [(i["name"], i["state"], i["network_interface_id"]) for i in found["interfaces"]] == [
        ("eth0", "bound", "eni-1")
    ]
    text = agent.command("status")
    assert text.status == 0
    assert text.output.startswith("enforcing since 20")
    assert len(text.output.splitlines()) < 12


def test_what_is_refused_shows_until_it_is_mended(agent: Service) -> None:
    """The older snapshot stays in force, so the host is protected; but it is not as its owner wants it."""
    agent.define(BROKEN)
    wait_for(lambda: agent.as_json("status")["is_refused"] is True, "the refusal to show", 5)
    found = agent.as_json("status")
    assert (found["is_enforcing"], found["errors"]) == (True, 1)
    assert "security_groups" in found["first_errors"][0]
    assert "security_groups" in agent.command("status").output
    assert agent.get("/readyz") == (
        503,
        "the newest definitions have errors; the previous ones stay active\n",
    )
    assert agent.get("/healthz") == (200, "ok\n")
    agent.define(POLICY)
    wait_for(lambda: agent.get("/readyz") == (200, "ok\n"), "the agent to be ready again", 5)


def test_hits_are_those_of_the_metrics(agent: Service, one_interface: Lab) -> None:
    """Asked right after the traffic, both show it; rules stand in the order in which they decide."""
    for port in (80, 80, 23, 24):
        is_let_in(one_interface, CLIENT, HOST, port)
    found = agent.as_json("hits", "--interface", "eth0")
    ingress, egress = found["interfaces"]
    told = [(hit["rule_id"], hit["packets"]) for hit in ingress["hits"] if hit["step"] in ("rule", "default")]
    assert told == [("sgr-1", 1), ("sgr-0", 2), (None, 1)]
    assert {hit["rule_id"]: hit["packets"] for hit in ingress["hits"] if hit["rule_id"]} == {
        rule_id: agent.hits(rule_id) for rule_id in ("sgr-0", "sgr-1")
    }
    octets = next(hit["bytes"] for hit in ingress["hits"] if hit["rule_id"] == "sgr-0")
    assert octets == agent.metric("sgagent_rule_bytes_total", rule_id="sgr-0")
    assert egress["direction"] == "egress"
    assert re.search(r"^ +2 +\d+ +accept +1 +sgr-0 +sg-1", agent.command("hits").output, re.MULTILINE)
    assert agent.command("hits", "--interface", "eth7").status == 2


@pytest.mark.long
def test_watched_hits_are_painted_until_interrupted(agent: Service, one_interface: Lab) -> None:
    """On a terminal they change where they stand, and Ctrl-C leaves no trace."""
    leader, terminal = pty.openpty()
    watcher = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sgagent",
            "hits",
            "--watch",
            "--config",
            str(agent.directory / "sgagent.toml"),
        ],
        stdout=terminal,
        stderr=terminal,
        cwd=Path(__file__).parent.parent,
    )
    os.close(terminal)
    painted = bytearray()

    def shows(expected: bytes) -> bool:
        painted.extend(os.read(leader, 65536))
        return re.search(expected, painted) is not None

    try:
        wait_for(lambda: shows(b"eth0 egress"), "the first look", 10)
        is_let_in(one_interface, CLIENT, HOST, 80)
        wait_for(lambda: shows(rb"      1 +[0-9.]* +accept +1 +sgr-0"), "the hit to show", 10)
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(5 * PATIENCE) == 0
    finally:
        watcher.kill()
        watcher.wait()
        os.close(leader)
    assert b"Traceback" not in painted


def test_explain_asks_the_policy_in_force(agent: Service) -> None:
    """Not the documents on disk, which may be broken, unless they are named."""
    agent.define(BROKEN)
    wait_for(lambda: agent.as_json("status")["is_refused"] is True, "the refusal to show", 5)
    found = agent.as_json(*WEB_PACKET)
    assert found.pop("other_tables")["verdict"] == "accept"
    assert found == {
        "verdict": "accept",
        "decided_by": "rule",
        "rule_id": "sgr-0",
        "security_group_id": "sg-1",
        "priority": 1,
        "interface": "eth0",
        "shadowed": [],
    }
    assert "asked the running agent" in agent.command(*WEB_PACKET).output
    assert agent.command(*WEB_PACKET, "--definitions", str(agent.documents)).status == 2
    agent.stop()
    assert agent.command(*WEB_PACKET).status == 2


def explained(agent: Service, direction: str, source: tuple[str, int], destination: tuple[str, int]) -> str:
    """Return the step that decides about a TCP packet."""
    near = ("--source", source[0], "--source-port", str(source[1]))
    far = ("--destination", destination[0], "--port", str(destination[1]))
    decided_by: str = agent.as_json("explain", direction, *near, *far, "--protocol", "tcp")["decided_by"]
    return decided_by


def test_explain_knows_live_sessions(agent: Service, one_interface: Lab) -> None:
    """Packets of an allowed session, either way, are decided by it until the policy takes it away."""
    lab = one_interface
    server, client = (str(HOST), 80), (str(CLIENT), 40000)
    with lab.listen(lab.host, *server), lab.connect(lab.peer, client, server):
        assert explained(agent, "ingress", client, server) == "session"
        assert explained(agent, "egress", server, client) == "session"
        assert explained(agent, "ingress", (str(CLIENT), 40001), server) == "rule"
        assert explained(agent, "egress", client, server) == "default"
        agent.define(definitions(DROP_TELNET))
        wait_for(lambda: explained(agent, "ingress", client, server) == "default", "the policy to change", 5)
        packet = ("--source", server[0], "--source-port", "80", "--destination", client[0], "--port", "40000")
        found = agent.as_json("explain", "egress", *packet, "--protocol", "tcp")
        assert (found["verdict"], found["decided_by"]) == ("drop", "default")


def test_explain_knows_sessions_that_are_translated(agent: Service, one_interface: Lab) -> None:
    """The packet on the wire counts: before the DNAT of this host when it comes in (§2.2)."""
    lab = one_interface
    rule = f"tcp dport 80 dnat to {HOST}:8080"
    nat = f"table ip nat {{ chain in {{ type nat hook prerouting priority -100; {rule}\n }}\n }}"
    lab.host.nft("-f", "-", stdin=nat)
    server, client = (str(HOST), 80), (str(CLIENT), 40000)
    with lab.listen(lab.host, str(HOST), 8080), lab.connect(lab.peer, client, server):
        assert explained(agent, "ingress", client, server) == "session"
        assert explained(agent, "egress", server, client) == "session"
        assert explained(agent, "ingress", client, (str(HOST), 8080)) == "default"


def test_explain_knows_sessions_that_are_opened_outwards(agent: Service, one_interface: Lab) -> None:
    """The answers of the far end belong to them, though no rule would let them in."""
    lab = one_interface
    server, client = (str(CLIENT), 443), (str(HOST), 40000)
    with lab.listen(lab.peer, *server), lab.connect(lab.host, client, server):
        assert explained(agent, "egress", client, server) == "session"
        assert explained(agent, "ingress", server, client) == "session"
    assert explained(agent, "ingress", (str(CLIENT), 444), client) == "default"


def test_without_an_agent_one_is_told_how_to_start_it(agent: Service) -> None:
    """After an orderly end and after a kill alike; and the next agent can be asked again."""
    agent.kill()
    assert socket_of(agent).is_socket()
    assert_nobody_answers(agent.command("status"))
    assert_nobody_answers(agent.command("hits"))
    assert agent.command(*WEB_PACKET).status == 0
    agent.start()
    assert agent.command("status").status == 0
    assert agent.stop() == 0
    assert not socket_of(agent).exists()
    assert_nobody_answers(agent.command("status"))


def assert_nobody_answers(ended: Ended) -> None:
    """Assert that a command failed, in one line, as no agent is running."""
    assert ended.status == 4
    assert ended.output == ""
    told = (
        r"sgagent: no agent is running here .*: start one with 'sgagent run'(; .* hold all the same, .*)?\n"
    )
    assert re.fullmatch(told, ended.errors)


def test_only_those_who_may_are_answered(agent: Service) -> None:
    """A stranger is told who may ask; a member of the socket's group is answered, and changes nothing."""
    refused = agent.command("status", user=NOBODY)
    assert (refused.status, refused.output) == (5, "")
    assert "may ask" in refused.errors
    assert refused.errors.count("\n") == 1
    assert agent.command(*WEB_PACKET, user=NOBODY).status == 5
    os.chown(socket_of(agent), -1, 65534)
    assert agent.command("status", user=NOBODY).status == 0
    assert agent.command("history", user=NOBODY).status == 0
    for order in (("confirm",), ("rollback",), ("mode", "observe"), ("apply", str(agent.documents))):
        refused = agent.command(*order, user=NOBODY)
        assert (refused.status, refused.output) == (5, "")
        assert "may change anything" in refused.errors
    socket_of(agent).chmod(0o666)
    os.chown(socket_of(agent), -1, 0)
    assert agent.command("status", user=NOBODY).status == 5


_HOLD = """
import json, select, socket, sys, time
path, how, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
question = json.dumps({"version": 1, "question": "documents"}).encode() + b"\\n"
words = {"silent": b"", "begun": b"{", "drips": b"{", "deaf": question, "follows": question}
held = []
print("holding", flush=True)
while True:
    while len(held) < count:
        connection = socket.socket(socket.AF_UNIX)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        try:
            connection.connect(path)
            connection.sendall(words[how])
        except OSError:
            connection.close()
            break
        connection.setblocking(False)
        held.append(connection)
    time.sleep(0.01)
    ready = select.select(held, [], [], 0)[0] if how != "deaf" else []
    for connection in list(held):
        try:
            if how == "drips":
                connection.send(b" ")
            if connection in ready and not connection.recv(65536):
                raise OSError
            if how == "deaf":
                connection.send(b"x")  # only to find out whether it has ended
        except BlockingIOError:
            pass
        except OSError:
            connection.close()
            held.remove(connection)
"""
"""Keeps up as many connections as it is told, in the way that it is told, and opens anew what is closed."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("how", "count"),
    (("silent", 8), ("silent", 100), ("begun", 100), ("drips", 100), ("deaf", 100), ("follows", 100)),
)
def test_members_of_the_group_do_not_lock_root_out(agent: Service, how: str, count: int) -> None:
    """Places for root are apart from those of others, whatever these do and however many they are."""
    agent.define(POLICY + "# an answer has to be larger than what the kernel keeps for a reader\n" * 10_000)
    os.chown(socket_of(agent), -1, 65534)
    command = [*STRANGER, sys.executable, "-c", _HOLD, str(socket_of(agent)), how, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as member:
        try:
            assert member.stdout is not None
            assert member.stdout.readline() == b"holding\n"
            if how != "follows":
                wait_for(lambda: _is_turned_away(agent), "the places to be taken")
            for _ in range(20):
                assert status(agent)["posture"] == "enforcing"
            changed = agent.directory / "changed.yaml"
            changed.write_text(definitions(WEB))
            for order in (("apply", "--confirm-within", "60s", str(changed)), ("confirm",), ("rollback",)):
                ended = agent.command(*order)
                assert ended.status == 0, (order, ended)
        finally:
            member.kill()
    wait_for(lambda: not _is_turned_away(agent), "the places to be free again")


def _is_turned_away(agent: Service) -> bool:
    """Tell whether another member of the group finds no place."""
    return agent.command("history", user=NOBODY).status == 4


def test_a_second_agent_does_not_take_the_socket(agent: Service, one_interface: Lab, tmp_path: Path) -> None:
    """It is told to have a directory of its own; where it can have none it enforces all the same."""
    with service_on(one_interface.peer, tmp_path) as second:
        second.define(POLICY)
        configuration = tmp_path / "sgagent.toml"
        own = configuration.read_text()
        configuration.write_text(own.replace(f"{tmp_path}/run", f"{agent.directory}/run"))
        second.launch()
        assert second.wait_for_end() == 2
        assert "another agent is running" in second.log
        assert agent.as_json("status")["pid"] == agent.pid
        configuration.write_text(own.replace(f"{tmp_path}/run", "/proc/nowhere"))
        second.start()
        assert "/proc/nowhere" in second.events("control_not_served")[0]["reason"]
        assert "table inet sgagent" in second.table()
        assert second.stop() == 0
