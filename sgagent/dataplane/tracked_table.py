"""The generation of our own table, derived from the kernel's notifications about all tables.

The kernel numbers generations of its whole ruleset. On a host where other programs change their tables often,
the agent would have to list our table after each change. The notifications show which changes touch our
table.
"""

from __future__ import annotations

from collections.abc import Callable

from sgagent.dataplane.generation import following
from sgagent.dataplane.monitor import RulesetChange, RulesetEvents
from sgagent.dataplane.table import Applied, KernelTable, TableListing
from sgagent.nft.plan import Plan


class Freshness:
    """Follow the ruleset from one number to the next; what was not heard of may have been our table."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self.followed: int | None = None
        """The newest number of the ruleset up to which every change was heard of."""

        self._changed = 0

    def hear(self, change: RulesetChange) -> None:
        """Record a change by another process, or that some were missed."""
        if not change.generation:
            self.followed = None
            return
        if change.is_of_table or self.followed is None or change.generation != following(self.followed):
            self._changed = change.generation
        self.followed = change.generation

    def changed_until(self, now: int) -> int:
        """Return the number of the ruleset at which our table may have changed last.

        Args:
            now: the ruleset's number, read before the changes that were heard last.
        """
        if self.followed != now:
            self.change(now)
        return self._changed

    def change(self, now: int) -> None:
        """Record a change of our own, or of a look at the table, with the ruleset's number then."""
        self._changed = self.followed = now


class TrackedTable:
    """The kernel's table, with a number for its state which changes of other tables leave alone."""

    def __init__(self, table: KernelTable, tell: Callable[[RulesetChange], None]) -> None:
        """Listen, in the network namespace of the calling thread.

        Args:
            table: the table.
            tell: called for each change by another process.

        Raises:
            OSError: it needs CAP_NET_ADMIN.
        """
        self._table = table
        self._tell = tell
        self._freshness = Freshness()
        self.events = RulesetEvents(table.port)

    def hear(self) -> None:
        """Read the pending notifications, and pass each on."""
        for change in self.events.read():
            self._freshness.hear(change)
            self._tell(change)

    def read_generation(self) -> int:
        """Return the number of the ruleset at which the table may have changed last."""
        now = self._table.read_generation()
        self.hear()
        return self._freshness.changed_until(now)

    def list_table(self) -> TableListing:
        """Return the table as it is, as :class:`KernelTable` does."""
        listing = self._table.list_table()
        if listing.generation is not None:
            self._freshness.change(listing.generation)
        return listing

    def apply(self, plan: Plan) -> Applied:
        """Carry out a plan, as :class:`KernelTable` does."""
        before = self.read_generation()
        followed = self._freshness.followed
        applied = self._table.apply(plan)
        self._freshness.change(applied.after)
        return Applied(before if applied.before == followed else None, applied.after)

    def close(self) -> None:
        """Listen no more."""
        self.events.close()
