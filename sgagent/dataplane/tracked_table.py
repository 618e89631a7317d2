"""The kernel's table as the applier keeps it: it listens to who else changes the ruleset."""

from __future__ import annotations

from collections.abc import Callable

from sgagent.dataplane.generation import (
    MISSED,
    GenerationTracker,
    RulesetChange,
    RulesetEvents,
    RulesetNumber,
)
from sgagent.dataplane.table import Applied, PrivilegedTable, TableListing
from sgagent.nft.transactions import Plan

_MOST_HEARD_OPERATIONS = 1_000
"""Of a plan: for a listener the kernel makes a message of each object, of 10,000 rules for seconds."""


class TrackedTable:
    """The kernel's table, with a number for its state which changes of other tables leave alone."""

    def __init__(self, table: PrivilegedTable, tell: Callable[[RulesetChange], None]) -> None:
        """Open a socket, in the network namespace of the calling thread.

        It listens from the first table on: for each listener the kernel makes a message of each object, also
        of those that the filter drops.

        Args:
            table: the table; it is closed with this.
            tell: called for each change by another process.
        """
        self.table = table
        self._tell = tell
        self._tracker = GenerationTracker()
        self.events = RulesetEvents(table.port)

    def read_changes(self) -> None:
        """Read the pending notifications, and pass each on."""
        for change in self.events.read():
            self._tracker.notify(change)
            self._tell(change)

    def read_generation(self) -> int:
        """Return the number of the ruleset at which the table may have changed last."""
        now = self.table.read_generation()
        self.read_changes()
        return self._tracker.changed_until(now)

    def list_table(self) -> TableListing:
        """Return the table as it is, as :class:`PrivilegedTable` does."""
        listing = self.table.list_table()
        if listing.dump is not None:
            self.events.begin()
        if listing.generation is not None:
            self._tracker.change(listing.generation)
        return listing

    def ruleset_number(self) -> RulesetNumber | None:
        """Return the number of the ruleset; None if another process may have changed the table."""
        followed = self._tracker.followed
        number = self.table.ruleset_number()
        self.read_changes()
        is_followed = number is not None and number.generation == self._tracker.followed
        return number if is_followed and followed is not None else None

    def take_up(self, number: RulesetNumber) -> int | None:
        """Take the table up as :class:`PrivilegedTable` does, and listen from then on."""
        taken = self.table.take_up(number)
        if taken is None:
            return None
        self.events.begin()
        self._tracker.change(taken)
        return taken if self.read_generation() == taken else None

    def apply(self, plan: Plan) -> Applied:
        """Carry out a plan, as :class:`PrivilegedTable` does.

        It listens to nothing during a large one. What others change meanwhile shows in the numbers, and is
        passed on as missed.
        """
        before = self.read_generation()
        followed = self._tracker.followed
        is_heard = len(plan.operations) <= _MOST_HEARD_OPERATIONS
        if not is_heard:
            self.events.pause()
            self._tracker.followed = None
        try:
            applied = self.table.apply(plan)
        finally:
            self.events.begin()
        # Of a transaction that ends as we begin to listen only the last message may come: the number has it.
        is_last = is_heard or self.table.read_generation() == applied.after
        if is_last:
            self._tracker.change(applied.after)
        if not is_last or not (is_heard or followed in (None, applied.before)):
            self._tell(MISSED)
        return Applied(before if applied.before == followed else None, applied.after)

    def close(self) -> None:
        """Listen no more, and release the table unchanged."""
        self.events.close()
        self.table.close()
