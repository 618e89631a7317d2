"""A host in memory on which agents are started one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sgagent.agent.control.answers import Dispatcher
from sgagent.agent.control.handlers import CommandHandler
from sgagent.agent.inbox import Inbox
from sgagent.agent.lockout_hold import LockoutHold
from sgagent.agent.names.resolver import NameWatch
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.state.directory import StateDirectory
from sgagent.agent.step import EventLog
from sgagent.core.binding import HostFacts
from sgagent.core.endpoints import Endpoint
from sgagent.core.lockout import LiveSession, NamedCut
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.ruleset import Ruleset
from sgagent.settings import Settings, parse_settings
from sgagent.sources.guardrails import GuardrailFiles
from sgagent.sources.verified_parse import guardrails_signature_file, read_signature
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
        self.previewed: list[tuple[ResolvedPolicy | None, ResolvedPolicy]] = []
        """The changes before which open sessions were looked at: from what, to what."""

        self.changed: list[Ruleset | None] = []
        """The tables that stood when a change of them was announced."""

        self.counters_read: list[frozenset[str]] = []
        """The counters that were read for the last time, a set for each reading before a change."""

        self.counters_at_zero: list[frozenset[str]] = []
        """The counters that were told to start at zero, a set for each change."""

        self.cut: tuple[NamedCut, ...] = ()
        """What is previewed; set by tests."""

        self.logins: tuple[LiveSession, ...] = ()
        """The live sessions that a hold looks at; set by tests."""

        self.state = StateDirectory(directory)
        self.clock = FakeClock()

    def reconciler(
        self,
        configuration: str = "",
        name_servers: Callable[[], tuple[Endpoint, ...]] = tuple,
        names: NameWatch | None = None,
        hold: LockoutHold | None = None,
    ) -> Reconciler:
        """Return the reconciler of an agent that was just started."""
        settings = parse_settings(configuration, "sgagent.toml") if configuration else Settings()
        return Reconciler(
            settings=settings,
            source=self.source,
            host=self.host,
            dataplane=self.dataplane,
            directory=self.state,
            clock=self.clock,
            before_change=lambda: self.changed.append(self.dataplane.ruleset),
            before_counters_go=self.counters_read.append,
            counters_gone=self.counters_at_zero.append,
            preview_cuts=self._preview_cuts,
            name_servers=name_servers,
            name_watch=names,
            lockout_hold=hold,
            guardrail_source=GuardrailFiles.configured(
                settings, lambda: read_signature(guardrails_signature_file(self.state.directory))
            ),
        )

    def commands(self, reconciler: Reconciler, log: EventLog, boot_id: str = "this boot") -> CommandHandler:
        """Return what carries out the commands of that agent."""
        return CommandHandler(
            reconciler=reconciler, state=self.state, clock=self.clock, boot_id=boot_id, log=log
        )

    def dispatcher(self, inbox: Inbox, log: EventLog) -> Dispatcher:
        """Return what takes commands of an agent that was just started."""
        return Dispatcher(inbox, self.commands(self.reconciler(), log), self.state)

    def _preview_cuts(
        self, old: ResolvedPolicy | None, new: ResolvedPolicy, _facts: HostFacts
    ) -> tuple[NamedCut, ...]:
        self.previewed.append((old, new))
        return self.cut
