"""Put an agent that systemd runs, on a booted machine, under traffic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from integration.agent_under_traffic import HOST, HOST6, AgentUnderTraffic, Stream, under_traffic, watching
from integration.lab import LabError, lab, wait_for
from integration.machine import Machine, machine_in
from integration.service import Service
from integration.traffic import traffic

_UNIT = "sgagent.service"
_IMPATIENT = "[Service]\nWatchdogSec=3s\n"
_NOTICED_SECONDS = 40.0
"""For the watchdog, the end of what hangs, and the wait of up to ten seconds before the next start."""


@dataclass(slots=True)
class BootedService(Service):
    """The daemon as a unit of a machine that is on."""

    machine: Machine | None = None

    def define(self, text: str, name: str = "policy.yaml") -> None:
        """Write a document where the machine's agent reads it."""
        self._machine().write(f"/etc/sgagent/groups.d/{name}", text)

    def stop(self) -> int:
        """Have systemd stop the unit."""
        self._machine().run("systemctl", "stop", _UNIT)
        return 0

    def hang(self) -> None:
        """Stop the agent in its tracks, and wait until systemd has noticed and another is ready."""
        machine, before = self._machine(), self._restarts()
        machine.run("kill", "-STOP", str(machine.main_pid(_UNIT)))
        wait_for(lambda: self._restarts() > before, "the unit to be started anew", _NOTICED_SECONDS)
        wait_for(lambda: machine.show(_UNIT, "ActiveState") == "active", "the unit to be ready")

    def _restarts(self) -> int:
        return int(self._machine().show(_UNIT, "NRestarts"))

    def _machine(self) -> Machine:
        if self.machine is None:
            raise LabError("there is no machine")
        return self.machine


@contextlib.contextmanager
def booted_agent_under_traffic(directory: Path, dice: Random) -> Iterator[AgentUnderTraffic]:
    """Boot a machine whose agent has a watchdog of three seconds, and let traffic begin."""
    with lab() as built, machine_in(built.host) as machine, traffic(built) as busy, watching(built):
        built.add_host_addresses([str(HOST), HOST6])
        service = BootedService(built.host, directory, machine=machine)
        made = AgentUnderTraffic(built, service, dice, busy, Stream(built))
        mark = made.change_policy()
        machine.write(f"/etc/systemd/system/{_UNIT}.d/impatient.conf", _IMPATIENT)
        machine.enable(_UNIT)
        machine.boot()
        made.wait_for_policy(mark)
        with under_traffic(made):
            yield made
