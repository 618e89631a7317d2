"""The names of rules in force, kept resolved: ask, remember, and write down for the next agent (§12.3).

It belongs to the daemon's loop. Only the resolver's threads wait for name servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from sgagent.agent.names.name_table import NameStatus, NameTable, ResolvedNames
from sgagent.agent.names.resolver import BackgroundResolver, Resolver
from sgagent.agent.state.directory import write_durably
from sgagent.core.binding import NO_FACTS, HostFacts
from sgagent.core.policy import Endpoint
from sgagent.json_model import UNREADABLE, seal, unseal
from sgagent.ports import Clock
from sgagent.settings import Settings
from sgagent.sources.servers import dns_endpoints, host_name_servers

FILE_NAME = "names.json"
_FORMAT = 1

TURN_SECONDS = 1.0

SECONDS_BETWEEN_WRITES = 60.0
"""Of the file, where nothing but ages changes."""

ASK_SECONDS = 5.0
"""How long a command waits for name servers."""


class NameWatch:
    """The names of one agent."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        latest: datetime,
        resolver: Resolver | None = None,
        find_servers: Callable[[], tuple[str, ...]] = host_name_servers,
    ) -> None:
        """Read what an earlier agent kept; nothing is asked yet.

        Args:
            settings: the configuration.
            clock: of seconds that never go back.
            latest: the latest time that the host has known.
            resolver: looks names up; None asks nobody, and keeps nothing.
            find_servers: returns the host's name servers, for a configuration that names none.
        """
        self._settings = settings
        self._path = settings.state.directory / FILE_NAME
        self._clock = clock
        self._resolver = resolver
        self._find_servers = find_servers
        self._servers = self._current_servers()
        limits = settings.limits
        self._table = NameTable(
            keep_seconds=3600.0 * settings.dns.keep_hours,
            most_addresses=limits.addresses_per_name,
            most_unused=limits.names,
        )
        self.fault = self._load(latest)
        self.failures = 0
        """Look-ups that failed, or failed in part, since the agent started."""

        self._facts: HostFacts = NO_FACTS
        self._resolved = ResolvedNames()
        self._stale_at = float("-inf")
        """When what is resolved changes by itself."""

        self._turned_at = float("-inf")
        self._ask_until: float | None = None
        self._written_at: float | None = None

    @property
    def servers(self) -> tuple[str, ...]:
        """Return the addresses of the name servers, in the order in which they are asked."""
        return self._servers

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where they are asked, which is fail-safe while a rule names a name (§7.4)."""
        return dns_endpoints(self._servers)

    def want(self, names: frozenset[str]) -> None:
        """Keep these names resolved."""
        if names or self._table.wanted:
            self._table.want(names, self._clock.monotonic())

    def resolved(self, facts: HostFacts) -> ResolvedNames:
        """Return what names stand for on a host with these links: the same object while nothing changes."""
        now = self._clock.monotonic()
        if now >= self._stale_at or facts.links != self._facts.links:
            self._facts, self._stale_at = facts, self._table.next_change(now)
            found = self._table.resolved(now, facts)
            self._resolved = self._resolved if found == self._resolved else found
        return self._resolved

    def turn(self, latest: Callable[[], datetime]) -> bool:
        """Take in answers, ask for what is due, and keep both; return whether a policy may change.

        It does so once in :data:`TURN_SECONDS`, so that answers cause no more than one step in that time.

        Args:
            latest: returns the latest time that the host has known.
        """
        now, before, servers = self._clock.monotonic(), self._resolved, self._servers
        if self._resolver is None or not self._table.wanted or now - self._turned_at < TURN_SECONDS:
            return False
        self._turned_at = now
        self._servers = self._current_servers()
        answered = list(self._resolver.found())
        for found in answered:
            self._table.take(found, now)
            self.failures += found.fault is not None
        for name in list(self._table.due(now)):
            self._table.begin(name)
            self._resolver.ask(name, self._servers)
        if answered:
            self._stale_at = now
        is_changed = self.resolved(self._facts) is not before or servers != self._servers
        if is_changed or self._written_at is None or now - self._written_at >= SECONDS_BETWEEN_WRITES:
            self._keep(now, latest())
        return is_changed

    def report(self) -> tuple[NameStatus, ...]:
        """Return how the names of rules in force are."""
        return self._table.report(self._clock.monotonic()) if self._table.wanted else ()

    def ask(self, names: Iterable[str]) -> None:
        """Look up the names that are not known, and wait for that: all calls together no more than 5 s."""
        now, resolver = self._clock.monotonic(), BackgroundResolver()
        self._ask_until = self._ask_until or now + ASK_SECONDS
        missing = {name for name in names if name not in self._table.resolved(now, NO_FACTS).addresses}
        for name in missing:
            resolver.ask(name, self._servers)
        while missing:
            found = resolver.wait(self._ask_until - self._clock.monotonic())
            if found is None:
                break
            missing.discard(found.name)
            self._table.take(found, now)
        self._stale_at = now

    def _current_servers(self) -> tuple[str, ...]:
        return self._settings.dns.servers or self._find_servers()

    def _load(self, latest: datetime) -> str | None:
        """Take in what was kept, and return what is wrong with the file."""
        try:
            body, _ = unseal(self._path.read_bytes(), _FORMAT)
            self._table.take_json(body, self._clock.monotonic(), latest.timestamp())
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"{self._path}: {error.strerror}"
        except UNREADABLE as error:
            return f"{self._path}: not a file of names: {error}"
        return None

    def _keep(self, now: float, latest: datetime) -> None:
        """Write the table down; that this failed is a fault, and tried again a minute later."""
        self._written_at = now
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path, seal(self._table.as_json(now, latest.timestamp()), _FORMAT))
        except OSError as error:
            self.fault = f"the addresses of names could not be kept: {error}"
        else:
            self.fault = None


class DnsAnswers:
    """The addresses of names, for one command."""

    def __init__(self, settings: Settings, clock: Clock, latest: datetime, *, is_asked: bool) -> None:
        """Read what the agent knows, as far as that may be read.

        Args:
            settings: the configuration.
            clock: of seconds that never go back.
            latest: the latest time that the host has known.
            is_asked: whether to ask name servers for what the agent does not know.
        """
        self._watch = NameWatch(settings, clock, latest)
        self._is_asked = is_asked

    def of(self, names: Iterable[str], facts: HostFacts) -> ResolvedNames:
        """Return what names stand for on a host with these links."""
        if self._is_asked:
            self._watch.ask(names)
        return self._watch.resolved(facts)
