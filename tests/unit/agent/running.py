"""A daemon that runs on a host in memory, and what tests may do to it meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from sgagent.agent.counters import CounterPoller
from sgagent.agent.daemon import Daemon
from sgagent.agent.doctor import Doctor
from sgagent.agent.inbox import Inbox, LoopEvent
from sgagent.agent.lockout_hold import LockoutHold
from sgagent.agent.names.resolver import NameWatch
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.state.counter_file import CounterFile
from sgagent.agent.step import Step
from sgagent.agent.systemd import ServiceManager
from sgagent.agent.verification import Verification
from sgagent.analysis.doctor.findings import Diagnosis
from sgagent.nft.marks import MarkLayout
from tests.fakes.log import FakeLog
from tests.unit.agent.machine import Machine
from tests.waiting import wait_until


class Running:
    """A daemon, and what a test may do to it while it runs."""

    def __init__(
        self,
        machine: Machine,
        directory: Path,
        names: NameWatch | None = None,
        hold: LockoutHold | None = None,
    ) -> None:
        """Put a daemon together."""
        self.machine = machine
        self.log = FakeLog()
        self.clock = machine.clock
        self.inbox = Inbox()
        self.published = PublishedStatus(self.clock, self.inbox.wait_for_reading)
        self.commands = machine.commands(machine.reconciler(names=names, hold=hold), self.log)
        self.first_steps: list[Step] = []
        self.daemon = Daemon(
            source=machine.source,
            host=machine.host,
            clock=self.clock,
            commands=self.commands,
            poller=CounterPoller(machine.dataplane, CounterFile(directory, "this boot"), machine.clock),
            inbox=self.inbox,
            service_manager=ServiceManager({}),
            event_log=self.log,
            published=self.published,
            after_first=self.first_steps.append,
            doctor=Doctor(examine=lambda *_: Diagnosis(), mark_mask=0xFFFF0000, event_log=self.log),
            sessions=(),
            verification=Verification(_list_nothing, MarkLayout(0xFFFF0000), self.log),
        )

    def while_it_runs(self, script: Callable[[], object]) -> None:
        """Run the daemon in this thread, and in another what is to happen meanwhile; then stop it."""
        faults: list[BaseException] = []

        def act() -> None:
            try:
                self.wait_for("agent_started")
                script()
            except BaseException as fault:  # noqa: BLE001 - raised again in the test's own thread
                faults.append(fault)
            finally:
                self.inbox.put(LoopEvent.STOP)

        thread = threading.Thread(target=act)
        thread.start()
        self.daemon.run()
        thread.join()
        if faults:
            raise faults[0]

    def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until an event was logged so often."""
        wait_until(lambda: self.log.events().count(event) >= count, event)

    def wait_for_fetches(self, count: int) -> None:
        """Wait until the source was asked so often."""
        wait_until(lambda: self.machine.source.fetches == count, f"{count} fetches")


def _list_nothing() -> socket.socket:
    raise AssertionError("no proof was to run")
