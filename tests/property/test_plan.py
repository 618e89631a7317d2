"""A plan leads from any table to any other, in an order that the kernel takes."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sgagent.nft.diff import make_plan
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import describe
from sgagent.nft.transactions import AddTable, Delete, Plan
from tests.contract.dataplane import bring
from tests.fakes.dataplane import FakeDataplane
from tests.fakes.table import carry_out
from tests.rulesets import rulesets
from tests.strategies import examples


@examples(300)  # what the kernel refuses takes two tables that share a name and differ in how it is used
@given(sequence=st.lists(rulesets(), min_size=1, max_size=4))
def test_any_sequence_of_tables_ends_in_the_last(sequence: list[Ruleset]) -> None:
    """Each is one plan that the kernel's rules allow, and the result does not depend on what was before."""
    dataplane = FakeDataplane()
    for desired in sequence:
        bring(dataplane, desired)
        assert dataplane.observe().ruleset == desired
        assert not make_plan(desired, desired)


@given(before=rulesets(), after=rulesets())
def test_a_plan_leads_from_one_table_to_another(before: Ruleset, after: Ruleset) -> None:
    """Carrying a plan out on the value gives the table that it was made for, without the kernel.

    The same tables make the same plan, each operation is one printable line, and where there is no table the
    plan declares it first, even if nothing is in it.
    """
    plan, first = make_plan(after, before), make_plan(after, None)
    assert plan == make_plan(after, before)
    assert carry_out(plan, before) == after
    assert carry_out(first, None) == after
    assert first.operations[0] == AddTable()
    for operation in plan.operations:
        assert describe(operation).isprintable()
    leaves_alone_what_is_equal(plan, before, after)


def leaves_alone_what_is_equal(plan: Plan, before: Ruleset, after: Ruleset) -> None:
    """Check that counters, maps and chains are deleted only if gone or impossible to change in place."""
    for operation in plan.operations:
        match operation:
            case Delete("counter", name):
                assert before.counter_by_name[name] != after.counter_by_name.get(name)
            case Delete("map", name):
                old, new = before.verdict_map_by_name[name], after.verdict_map_by_name.get(name)
                assert new is None or (old.key_types, old.is_interval) != (new.key_types, new.is_interval)
            case Delete("chain", name):
                was, is_now = before.chain_by_name[name], after.chain_by_name.get(name)
                assert is_now is None or (was.hook, was.comment) != (is_now.hook, is_now.comment)
            case _:
                pass
