"""A host in memory on which agents are started one after the other."""

from __future__ import annotations

from pathlib import Path

from sgagent.agent.cuts import NamedCut
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.state import StateDirectory
from sgagent.core.host import HostFacts
from sgagent.core.policy import ResolvedPolicy
from sgagent.settings import Settings, parse_settings
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataplane
from tests.fakes.host import FakeHost
from tests.fakes.source import FakeSource

MAC = "02:00:00:00:00:01"
GOOD = f"""
version: 1
security_groups:
  - security_group_id: sg-1
network_interfaces:
  - {{network_interface_id: eni-1, mac_address: '{MAC}', addresses: [10.0.0.11], security_group_ids: [sg-1]}}
"""


class Machine:
    """A host in memory, and the directory of its agent."""

    def __init__(self, directory: Path) -> None:
        """Start with one link and no definitions."""
        self.source = FakeSource()
        self.host = FakeHost()
        self.host.add_link("eth0", MAC)
        self.dataplane = FakeDataplane()
        self.foreseen: list[tuple[ResolvedPolicy | None, ResolvedPolicy]] = []
        """The changes before which open sessions were looked at: from what, to what."""

        self.cut: tuple[NamedCut, ...] = ()
        """What is foreseen; set by tests."""

        self._state = directory

    def reconciler(self, configuration: str = "") -> Reconciler:
        """Return the reconciler of an agent that was just started."""
        return Reconciler(
            settings=parse_settings(configuration, "sgagent.toml") if configuration else Settings(),
            source=self.source,
            host=self.host,
            dataplane=self.dataplane,
            state=StateDirectory(self._state),
            clock=FakeClock(),
            before_counters_go=lambda: None,
            counters_gone=lambda _: None,
            foresee=self._foresee,
        )

    def _foresee(
        self, old: ResolvedPolicy | None, new: ResolvedPolicy, _facts: HostFacts
    ) -> tuple[NamedCut, ...]:
        self.foreseen.append((old, new))
        return self.cut
