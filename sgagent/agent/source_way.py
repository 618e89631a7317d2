"""The addresses that must stay open for the agent to reach its source (§7.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sgagent.agent.definitions import Definitions
from sgagent.agent.step import Step, StepEnd
from sgagent.compiler.source_way import can_open, open_way
from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.core.host_facts import HostFacts
from sgagent.core.policy import Endpoint
from sgagent.nft.plan import make_plan
from sgagent.ports import Dataplane, Source


class SourceWays:
    """Return where the source is reached, and which servers know where it is."""

    def __init__(
        self, source: Source, definitions: Definitions, name_servers: Callable[[], tuple[Endpoint, ...]]
    ) -> None:
        """Start with a source that was not asked.

        Args:
            source: knows where it was found last.
            definitions: what the source delivered.
            name_servers: returns the servers that resolve the source's name; none if it has no name.
        """
        self._source = source
        self._definitions = definitions
        self._name_servers = name_servers

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what no group can block.

        The name servers are among it only as long as there are no definitions at all: without them an agent
        whose source has another address by now would never get any.
        """
        known = self._definitions
        has_definitions = known.good is not None or known.newest is not None or known.kept() is not None
        is_away = known.source_error is not None
        return (*self._source.endpoints(), *(self._name_servers() if is_away and not has_definitions else ()))

    def open_in_standing(self, dataplane: Dataplane, facts: HostFacts) -> Step:
        """Leave a table that an earlier agent left as it is, but open the way to the source in it."""
        observed, ways = dataplane.observe(), self.endpoints()
        table = observed.ruleset
        step = Step(outcome=StepEnd.WAITING, is_standing=table is not None, facts=facts)
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
