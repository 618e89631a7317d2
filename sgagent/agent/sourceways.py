"""Know what has to stay open for the agent to reach its source, wherever that is by now (§7.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sgagent.agent.choosing.definitions import Definitions
from sgagent.agent.step import Outcome, Step
from sgagent.core.compiling.sourceway import can_open, open_way
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.core.host import HostFacts
from sgagent.core.kernel.plan import make_plan
from sgagent.ports import Clock, Dataplane, Source

LOST_SECONDS = 60.0
"""For which a source is away before the host's name servers are let through to find it: it may have moved."""


class SourceWays:
    """Tell where the source is reached, and who may know where it is."""

    def __init__(
        self,
        source: Source,
        definitions: Definitions,
        name_servers: Callable[[], tuple[Endpoint, ...]],
        clock: Clock,
    ) -> None:
        """Start with a source that was not asked.

        Args:
            source: tells where it was found last.
            definitions: tell what came of asking it.
            name_servers: tells whom the host asks where the source is; nobody if that has no name.
            clock: for how long it is away.
        """
        self._source = source
        self._definitions = definitions
        self._name_servers = name_servers
        self._clock = clock
        self._away_since: float | None = None

    def follow_fetch(self) -> None:
        """Take in that the source was asked."""
        if self._definitions.source_error is None:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = self._clock.monotonic()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what no group can block."""
        return (*self._source.endpoints(), *(self._name_servers() if self._is_lost() else ()))

    def _is_lost(self) -> bool:
        """Tell whether the source may have another address, as it has been away for a while.

        Without any definitions to go on with there is nothing to wait for.
        """
        if self._away_since is None:
            return False
        known = self._definitions
        if known.good is None and known.newest is None and known.kept() is None:
            return True
        return self._clock.monotonic() - self._away_since >= LOST_SECONDS

    def open_in_standing(self, dataplane: Dataplane, facts: HostFacts) -> Step:
        """Leave a table that an earlier agent left as it is, but open the way to the source in it."""
        observed, ways = dataplane.observe(), self.endpoints()
        table = observed.ruleset
        step = Step(outcome=Outcome.WAITING, is_standing=table is not None, facts=facts)
        if table is None or not can_open(observed.foreign):
            return step
        plan = make_plan(open_way(table, ways), table)
        if not plan:
            return step
        try:
            dataplane.apply(plan)
        except (KernelRefusedError, NotPermittedError) as error:
            return replace(step, kernel_error=str(error))
        return replace(step, opened_to=ways)
