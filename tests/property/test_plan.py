"""A plan leads from any table to any other, in an order that the kernel takes."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sgagent.nft.diff import make_plan
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import describe
from sgagent.nft.transactions import AddTable, Delete
from tests.contract.dataplane import bring
from tests.fakes.dataplane import FakeDataplane
from tests.fakes.table import carry_out
from tests.rulesets import rulesets


@given(sequence=st.lists(rulesets(), min_size=1, max_size=4))
def test_any_sequence_of_tables_ends_in_the_last(sequence: list[Ruleset]) -> None:
    """Each is one plan that the kernel's rules allow, and the result does not depend on what was before."""
    dataplane = FakeDataplane()
    for desired in sequence:
        bring(dataplane, desired)
        assert dataplane.observe().ruleset == desired
        assert not make_plan(desired, desired)


@given(before=rulesets(), after=rulesets())
def test_the_outcome_is_known_without_the_kernel(before: Ruleset, after: Ruleset) -> None:
    """Carrying a plan out on the value gives the table that it was made for."""
    assert carry_out(make_plan(after, before), before) == after
    assert carry_out(make_plan(after, None), None) == after


@given(before=rulesets(), after=rulesets())
def test_what_is_equal_is_left_alone(before: Ruleset, after: Ruleset) -> None:
    """Counters, maps and chains are deleted only where they are gone or can't be changed in place."""
    for operation in make_plan(after, before).operations:
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


@given(before=rulesets(), after=rulesets())
def test_plans_are_reproducible_and_can_be_read(before: Ruleset, after: Ruleset) -> None:
    """The same tables make the same plan, and each operation is one printable line."""
    plan = make_plan(after, before)
    assert plan == make_plan(after, before)
    for operation in plan.operations:
        assert describe(operation).isprintable()


@given(desired=rulesets())
def test_a_missing_table_is_declared_first(desired: Ruleset) -> None:
    """Where there is no table the plan makes it, even if nothing is in it."""
    assert make_plan(desired, None).operations[0] == AddTable()
