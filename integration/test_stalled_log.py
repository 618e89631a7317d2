"""Whoever reads the daemon's log and does not read on holds up nothing but the log."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from integration.control_client import status
from integration.lab import Lab, wait_for
from integration.service import Service, definitions, is_let_in, service_on
from sgagent.agent.log import LONGEST_END_SECONDS, MOST_WAITING_BYTES
from tests.patience import PATIENCE

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
MANY_PROBLEMS = "version: 1\nsecurity_groups:\n" + "".join(
    f"  - {{security_group_id: sg-{number}, no_such_field_{'x' * 60}_EDIT: {'y' * 70}}}\n"
    for number in range(50)
)
TRIAL_SECONDS = 2.0


@dataclass(slots=True)
class Reader:
    """Who reads the log, or does not."""

    reading: int
    writing: int
    received: bytearray

    def fill(self) -> None:
        """Leave no room in the pipe, as after many lines that were not read."""
        os.set_blocking(self.writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"\n" * 512)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"\n")
        os.set_blocking(self.writing, True)

    def read_on(self) -> None:
        """Read from now on all that comes, in a thread."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while received := os.read(self.reading, 4096):
                self.received += received

    def events(self) -> list[dict[str, Any]]:
        """Return the events that were read."""
        whole, _, _ = self.received.rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines() if line]


@pytest.fixture(params=(4096, 65536))
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    """Make a pipe of some size that nobody reads."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, request.param)
    yield Reader(reading, writing, bytearray())
    os.close(writing)
    os.close(reading)


@pytest.fixture
def agent(one_interface: Lab, reader: Reader, tmp_path: Path) -> Iterator[Service]:
    """Give the host an agent that writes its log to the pipe and runs."""
    one_interface.add_host_addresses([str(HOST)])
    with service_on(one_interface.host, tmp_path) as made:
        made.errors = reader.writing
        made.define(definitions(WEB))
        made.start()
        yield made


def is_refused(agent: Service, word: str) -> bool:
    """Tell whether the agent found errors that have a word in them."""
    return word in str(status(agent)["first_errors"])


def test_a_trial_ends_in_time_while_nobody_reads_the_log(agent: Service, reader: Reader) -> None:
    """Definitions are followed, a trial is rolled back by itself, and the agent is healthy."""
    reader.fill()
    changed = agent.directory / "changed.yaml"
    changed.write_text(definitions(WEB, "ingress accept 1 tcp 81 from 0.0.0.0/0"))
    before = status(agent)["snapshot_version"]
    ended = agent.command("apply", "--confirm-within", f"{TRIAL_SECONDS:.0f}s", str(changed))
    assert ended.status == 0, ended
    assert status(agent)["snapshot_version"] != before
    wait_for(
        lambda: status(agent)["snapshot_version"] == before, "the trial to be rolled back", TRIAL_SECONDS + 1
    )
    assert agent.get("/healthz")[0] == 200
    agent.define(definitions(WEB, "ingress accept 1 tcp 82 from 0.0.0.0/0"))
    wait_for(lambda: status(agent)["snapshot_version"] != before, "the change to be enforced", 2)
    reader.read_on()
    wait_for(
        lambda: [event["event"] for event in reader.events()].count("ruleset_applied") == 4,
        "the log to arrive whole",
    )
    assert {"confirmation_pending", "rolled_back"} <= {event["event"] for event in reader.events()}
    assert agent.metric("sgagent_log_lines_dropped_total") == 0
    assert agent.stop() == 0
    assert reader.events()[-1]["event"] == "agent_stopped"


def test_what_does_not_fit_is_dropped_and_counted(agent: Service, reader: Reader) -> None:
    """Lines that wait have a bounded room; how many found none is said when somebody reads again."""
    reader.fill()
    edits = 0
    while not agent.metric("sgagent_log_lines_dropped_total"):
        edits += 1
        assert edits < 3 * MOST_WAITING_BYTES / len(MANY_PROBLEMS), "nothing is dropped"
        agent.define(MANY_PROBLEMS.replace("EDIT", f"{edits}"))
        wait_for(partial(is_refused, agent, f"x_{edits}:"), "the edit to be refused", 3)
    assert any("log" in fault and "dropped" in fault for fault in status(agent)["faults"])
    assert agent.get("/healthz")[0] == 200
    reader.read_on()
    wait_for(
        lambda: any(event["event"] == "log_lines_dropped" for event in reader.events()),
        "the reader to be told",
    )
    notices = [event for event in reader.events() if event["event"] == "log_lines_dropped"]
    dropped = agent.metric("sgagent_log_lines_dropped_total")
    assert sum(event["lines"] for event in notices) == dropped
    assert all(event["level"] == "warning" for event in notices)
    agent.define(definitions(WEB, "ingress accept 1 tcp 83 from 0.0.0.0/0"))
    wait_for(lambda: reader.events()[-1]["event"] == "ruleset_applied", "later lines to follow")
    problems = sum(event["event"] == "problem_found" for event in reader.events())
    refusals = sum(event["event"] == "snapshot_refused" for event in reader.events())
    assert problems + refusals + dropped == 51 * edits
    wait_for(lambda: status(agent)["faults"] == [], "the fault to be over")


@pytest.mark.long
def test_the_agent_ends_though_nobody_reads_its_log(agent: Service, reader: Reader) -> None:
    """It waits for a moment, then goes without its last words; the rules stay."""
    reader.fill()
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < LONGEST_END_SECONDS * PATIENCE
    assert "table inet sgagent" in agent.table()


def test_the_agent_ends_with_its_applier_though_nobody_reads_its_log(agent: Service, reader: Reader) -> None:
    """Neither process waits for ever to say why."""
    reader.fill()
    os.kill(agent.applier_pid, signal.SIGKILL)
    assert agent.wait_for_end() == 70


@pytest.mark.long
def test_flows_that_nobody_reads_hold_nothing_up(one_interface: Lab, reader: Reader, tmp_path: Path) -> None:
    """They are lost and counted; changes are enforced, and the agent ends."""
    one_interface.add_host_addresses([str(HOST)])
    with service_on(one_interface.host, tmp_path) as agent:
        agent.output = reader.writing
        agent.configure('[flow_log]\noutput = "stdout"\n')
        agent.define(definitions(WEB))
        agent.start()
        reader.fill()
        before = status(agent)["snapshot_version"]
        assert not is_let_in(one_interface, CLIENT, HOST, 81)
        wait_for(lambda: agent.metric("sgagent_flow_log_lost_total", reason="not_written") == 1, "a loss", 5)
        assert "nobody reads it" in str(status(agent)["faults"])
        agent.define(definitions(WEB, "ingress accept 1 tcp 82 from 0.0.0.0/0"))
        wait_for(lambda: status(agent)["snapshot_version"] != before, "the change to be enforced", 2)
        assert not is_let_in(one_interface, CLIENT, HOST, 83)
        assert agent.stop() == 0
