"""The applier hears who else changes the ruleset, but not while it loads a large plan itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from integration.namespaces import Namespace
from sgagent.core.errors import KernelRefusedError
from sgagent.dataplane.generation import MISSED, RulesetChange, RulesetEvents
from sgagent.dataplane.table import Applied, PrivilegedTable
from sgagent.dataplane.tracked_table import TrackedTable
from sgagent.nft.diff import make_plan
from sgagent.nft.ruleset import Chain, Ruleset
from sgagent.nft.transactions import Plan


class IntrudedTable(PrivilegedTable):
    """A table beside which another process adds one, right after each plan."""

    namespace: Namespace
    is_late = False
    """Whether it is added only once the applier listens again, before it reads the number."""

    _is_due = False

    def read_generation(self) -> int:
        """Return the number of the ruleset."""
        if self._is_due:
            self._is_due = False
            self.namespace.nft("add", "chain", "inet", "sgagent", "evil")
        return super().read_generation()

    def apply(self, plan: Plan) -> Applied:
        """Carry out a plan."""
        applied = super().apply(plan)
        self._is_due = self.is_late
        if self.is_late:
            return applied
        self.namespace.nft("add", "table", "ip", f"other-{applied.after}")
        return applied


class LastMessages(RulesetEvents):
    """Of each transaction the last message alone, as where the kernel made the others for nobody."""

    def read(self) -> Iterator[RulesetChange]:
        """Yield the changes, which then say nothing of tables."""
        return (replace(change, is_of_table=False) for change in super().read())


def apply_with(namespace: Namespace, chains: int) -> tuple[TrackedTable, Applied, list[RulesetChange]]:
    """Apply a table of one chain, then one of so many more with an intruder; return what was heard since."""
    heard = list[RulesetChange]()
    kept = IntrudedTable(owned=True)
    kept.namespace = namespace
    table = TrackedTable(kept, heard.append)
    first = Ruleset(chains=(Chain(name="first"),))
    table.apply(make_plan(first, None))
    table.read_changes()
    heard.clear()
    larger = Ruleset(chains=(*first.chains, *(Chain(name=f"more-{number:04}") for number in range(chains))))
    return table, table.apply(make_plan(larger, first)), heard


@pytest.mark.parametrize("chains", (10, 2_000))
def test_a_change_by_others_right_after_a_plan_shows_in_the_number(namespace: Namespace, chains: int) -> None:
    """Be it heard, as after a small plan, or passed on as missed, as after a large one."""
    table, applied, heard = apply_with(namespace, chains)
    is_heard = chains == 10
    if not is_heard:
        assert table.read_generation() > applied.after
    table.read_changes()
    assert [change.is_of_table for change in heard] == [not is_heard]
    table.close()


def test_others_are_heard_again_after_a_large_plan(namespace: Namespace) -> None:
    """The next change by somebody else is passed on, and is not taken for one of our table."""
    table, _, heard = apply_with(namespace, 2_000)
    before = table.read_generation()
    heard.clear()
    namespace.nft("add", "table", "ip", "later")
    assert table.read_generation() == before
    assert [change.is_of_table for change in heard] == [False]
    table.close()


def test_a_large_plan_that_fails_leaves_the_table_listened_to(namespace: Namespace) -> None:
    """What the kernel refuses changes nothing, also not who is heard."""
    table, _, heard = apply_with(namespace, 2_000)
    table.read_generation()
    heard.clear()
    missing = Ruleset(chains=tuple(Chain(name=f"never-{number:04}") for number in range(2_000)))
    with pytest.raises(KernelRefusedError, match="never-0000"):
        table.apply(make_plan(Ruleset(), missing))
    namespace.nft("add", "table", "ip", "later")
    table.read_changes()
    assert len(heard) == 1
    table.close()


def test_a_change_of_our_table_as_listening_begins_again_is_seen(namespace: Namespace) -> None:
    """Between the end of a large plan and the look at the number, where nobody owns the table."""
    heard = list[RulesetChange]()
    kept = IntrudedTable(owned=False)
    kept.namespace, kept.is_late = namespace, True
    table = TrackedTable(kept, heard.append)
    table.events.close()
    table.events = LastMessages(kept.port)
    larger = Ruleset(chains=tuple(Chain(name=f"more-{number:04}") for number in range(2_000)))
    with closing(table):
        applied = table.apply(make_plan(larger, None))
        assert table.read_generation() > applied.after
        assert MISSED in heard
