"""What a data plane owes to the reconciler."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.errors import KernelRefusedError
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import MarkTest
from sgagent.nft.ruleset import (
    Accept,
    Chain,
    Counter,
    Drop,
    Element,
    Goto,
    Interval,
    KeyType,
    Rule,
    Ruleset,
    VerdictMap,
)
from sgagent.nft.transactions import (
    RESET_WATCH,
    AddChain,
    AddCounter,
    AddElements,
    AddRule,
    AddTable,
    AddVerdictMap,
    Delete,
    DeleteElements,
    DestroyTable,
    Flush,
    Operation,
    Plan,
)
from sgagent.ports import CounterValue, Dataplane, Observed
from tests.contract import tables

IPV4 = (KeyType.IPV4_ADDR,)
_NOWHERE = Rule((Goto("nowhere"),))

REFUSED: tuple[tuple[str, tuple[Operation, ...]], ...] = (
    ("rule in chain extra", (AddChain(Chain(name="extra")), AddRule("extra", _NOWHERE))),
    ("chain nowhere", (Flush("chain", "ingress/eth0"), Delete("chain", "nowhere"))),
    ("chain rule/eth0/ssh", (Flush("chain", "generation"), Delete("chain", "rule/eth0/ssh"))),
    ("map peers/eth0", (AddChain(Chain(name="extra")), Delete("map", "peers/eth0"))),
    ("counter rule/eth0/ssh", (AddChain(Chain(name="extra")), Delete("counter", "rule/eth0/ssh"))),
    (
        "element 192.0.2.2 of map peers/eth0",
        (
            AddElements("peers/eth0", IPV4, (tables.member(7, "rule/eth0/ssh"),)),
            AddElements(
                "peers/eth0",
                IPV4,
                (tables.member(8, "rule/eth0/ssh"), Element((Interval.single(0xC0000202),), Drop())),
            ),
        ),
    ),
    (
        "element 10.1.0.0/16 of map networks/eth0",
        (AddElements("networks/eth0", IPV4, (Element((Interval(0x0A010000, 0x0A01FFFF),), Accept()),)),),
    ),
    (
        "element 192.0.2.9 of map peers/eth0",
        (DeleteElements("peers/eth0", IPV4, (tables.member(0xC0000209, "rule/eth0/ssh"),)),),
    ),
)
"""What the kernel refuses while the whole table stands, and what it is about."""


def bring(dataplane: Dataplane, desired: Ruleset) -> Plan:
    """Observe, plan and apply; return the plan."""
    observed = dataplane.observe()
    plan = make_plan(desired, observed.ruleset, observed.foreign)
    dataplane.apply(plan)
    dataplane.remove(plan)
    return plan


class DataplaneContract:
    """Inherited by the tests of each data plane, which give a fixture ``dataplane`` without a table."""

    def test_starts_without_a_table(self, dataplane: Dataplane) -> None:
        """Where nothing was applied, nothing is observed and nothing counted."""
        assert dataplane.observe() == Observed(ruleset=None)
        assert dataplane.read_counters() == {}

    @pytest.mark.parametrize("desired", tables.ALL)
    def test_holds_what_was_applied(self, dataplane: Dataplane, desired: Ruleset) -> None:
        """What is observed after an apply is what was desired, and a second plan is empty."""
        bring(dataplane, desired)
        observed = dataplane.observe()
        assert observed == Observed(ruleset=desired)
        assert not make_plan(desired, observed.ruleset, observed.foreign)

    @pytest.mark.parametrize("first", tables.ALL)
    def test_what_stood_before_does_not_matter(self, dataplane: Dataplane, first: Ruleset) -> None:
        """From any table to any other it is one plan, and nothing of the first is left."""
        for second in tables.ALL:
            bring(dataplane, first)
            bring(dataplane, second)
            assert dataplane.observe() == Observed(ruleset=second)

    def test_an_equal_value_is_shared(self, dataplane: Dataplane) -> None:
        """What the caller holds is held once; another value changes nothing."""
        bring(dataplane, tables.WHOLE)
        equal = replace(tables.WHOLE)
        dataplane.share(equal)
        dataplane.share(tables.WITHOUT_SSH)
        assert dataplane.observe().ruleset is equal

    def test_an_empty_plan_changes_nothing(self, dataplane: Dataplane) -> None:
        """Nothing to do makes no table."""
        dataplane.apply(Plan())
        assert dataplane.observe() == Observed(ruleset=None)

    def test_a_destroyed_table_is_gone(self, dataplane: Dataplane) -> None:
        """The table goes with all that is in it, and may go twice."""
        bring(dataplane, tables.WHOLE)
        for _ in range(2):
            dataplane.apply(Plan((DestroyTable(),)))
            assert dataplane.observe() == Observed(ruleset=None)

    def test_a_table_can_be_replaced_in_one_plan(self, dataplane: Dataplane) -> None:
        """Destroying and making it again is one transaction too."""
        bring(dataplane, tables.WHOLE)
        dataplane.apply(Plan((DestroyTable(), *make_plan(tables.WITHOUT_SSH, None).operations)))
        assert dataplane.observe() == Observed(ruleset=tables.WITHOUT_SSH)

    @pytest.mark.parametrize(("subject", "operations"), REFUSED)
    def test_a_refused_plan_leaves_the_old_rules(
        self, dataplane: Dataplane, subject: str, operations: tuple[Operation, ...]
    ) -> None:
        """All or nothing, and the refusal names the object."""
        bring(dataplane, tables.WHOLE)
        with pytest.raises(KernelRefusedError) as refusal:
            dataplane.apply(Plan(operations))
        assert refusal.value.subject == subject
        assert dataplane.observe() == Observed(ruleset=tables.WHOLE)

    @pytest.mark.parametrize("before", (tables.WHOLE, None))
    def test_a_refused_flip_takes_its_fill_back(self, dataplane: Dataplane, before: Ruleset | None) -> None:
        """What the fill made is gone, whether or not there was a table before."""
        if before is not None:
            bring(dataplane, before)
        fill = (AddTable(), AddChain(Chain(name="filled")))
        for flip in ((Flush("chain", "nowhere"),), (AddRule("filled", _NOWHERE),)):
            with pytest.raises(KernelRefusedError):
                dataplane.apply(Plan(flip, fill, before=before))
            assert dataplane.observe() == Observed(ruleset=before)

    @pytest.mark.parametrize(
        "operation",
        (
            AddChain(Chain(name="rule/eth0/ssh")),
            AddCounter(Counter(name="rule/eth0/ssh")),
            AddVerdictMap(VerdictMap(name="peers/eth0", key_types=IPV4)),
        ),
        ids=("chain", "counter", "map"),
    )
    def test_a_fill_adds_to_nothing_that_stands(self, dataplane: Dataplane, operation: Operation) -> None:
        """A plan that is older than what another process made is refused, and changes nothing."""
        bring(dataplane, tables.WHOLE)
        fill = (operation, AddRule("rule/eth0/ssh", Rule((Drop(),))))
        with pytest.raises(KernelRefusedError, match="exists"):
            dataplane.apply(Plan(fill=fill))
        assert dataplane.observe() == Observed(ruleset=tables.WHOLE)

    def test_what_leaves_is_there_until_it_is_removed(self, dataplane: Dataplane) -> None:
        """Between flip and removal nothing refers to it, and its counters can still be read."""
        bring(dataplane, tables.WHOLE)
        plan = make_plan(tables.WITHOUT_SSH, tables.WHOLE)
        dataplane.apply(plan)
        assert "rule/eth0/ssh" in dataplane.read_counters()
        assert not make_plan(tables.WITHOUT_SSH, dataplane.observe().ruleset).flip
        dataplane.remove(plan)
        assert "rule/eth0/ssh" not in dataplane.read_counters()
        assert dataplane.observe() == Observed(ruleset=tables.WITHOUT_SSH)

    def test_a_new_agent_removes_what_a_dead_one_left(self, dataplane: Dataplane) -> None:
        """After a death between two transactions the next plan leads to the same table."""
        bring(dataplane, tables.WHOLE)
        plan = make_plan(tables.WITHOUT_SSH, tables.WHOLE)
        for transactions in (Plan(plan.fill), Plan((*plan.fill, *plan.flip))):
            dataplane.apply(transactions)
            bring(dataplane, tables.WHOLE)
            assert dataplane.observe() == Observed(ruleset=tables.WHOLE)

    def test_every_counter_is_read(self, dataplane: Dataplane) -> None:
        """Named counters are read by name, from the first moment."""
        bring(dataplane, tables.WHOLE)
        nothing = CounterValue(0, 0)
        assert dataplane.read_counters() == {"rule/eth0/ssh": nothing, "rule/eth0/web": nothing}

    def test_a_watch_on_resets_is_no_part_of_the_table(self, dataplane: Dataplane) -> None:
        """It stands at one whatever was before, among the counters alone, and the table stays known."""
        bring(dataplane, tables.WHOLE)
        for _ in range(2):
            dataplane.watch_resets()
            assert dataplane.read_counters()[RESET_WATCH] == CounterValue(1, 1)
            assert dataplane.observe() == Observed(ruleset=tables.WHOLE)
        bring(dataplane, tables.WITHOUT_SSH)
        assert dataplane.read_counters()[RESET_WATCH] == CounterValue(1, 1)

    def test_without_a_table_there_is_no_watch_on_resets(self, dataplane: Dataplane) -> None:
        """And none is made for it."""
        with pytest.raises(KernelRefusedError):
            dataplane.watch_resets()
        assert dataplane.observe().ruleset is None

    def test_no_sessions_have_no_marks(self, dataplane: Dataplane) -> None:
        """Clearing marks where there are no sessions changes none."""
        assert dataplane.clear_marks(0xFFFF0000) == 0
        assert dataplane.clear_marks(0xFFFF0000, (MarkTest(0xFFFF0000, 0x10000),)) == 0
