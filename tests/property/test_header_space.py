"""Boxes hold each packet once and say what the specification says of it, at every border of a policy."""

from __future__ import annotations

from hypothesis import given

from sgagent.analysis.compare import Effect, compare, compare_judges
from sgagent.analysis.header_space import cut_into_boxes
from sgagent.core.binding import HostFacts, bind
from sgagent.core.clauses import dhcp_clause, list_clauses
from sgagent.core.evaluate import evaluate, is_always_allowed
from sgagent.core.memo import Memo
from sgagent.core.model import Direction, Family, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import resolve
from tests.draws import Draws
from tests.edits import edited
from tests.generators import Case, described
from tests.points import boxes_with, every_point
from tests.strategies import cases, draws, examples

FEW_RULES = 8
"""In a group: every combination of all borders is looked at."""

FEWER = cases(interfaces=("eth0",), most_rules=FEW_RULES - 1)


@examples(30)
@given(cases(interfaces=("eth0",), most_rules=FEW_RULES))
def test_boxes_say_what_the_specification_says(case: Case) -> None:
    """Every packet is in one box, whose first clause is the step and the rule that decide."""
    policy = case.policy
    for direction in Direction:
        for family in Family:
            clauses = (dhcp_clause(direction, family), *list_clauses(policy.judge("eth0"), direction, family))
            boxes = cut_into_boxes([clauses], family, lambda columns: columns[0][0])
            for packet in every_point([policy], "eth0", direction, family):
                (box,) = boxes_with(boxes, packet)
                decision = evaluate(policy, packet)
                assert box.label.policy is decision.verdict, described(packet)
                assert box.label.decided_by is decision.decided_by, described(packet)
                assert box.label.rule is decision.rule, described(packet)


@examples(30)
@given(cases(interfaces=("eth0",), most_rules=FEW_RULES))
def test_the_next_clause_is_what_would_decide(case: Case) -> None:
    """The second clause of a box is the first of the rules that match behind the one that decides."""
    policy = case.policy
    clauses = list_clauses(policy.judge("eth0"), Direction.INGRESS, Family.IPV4)
    boxes = cut_into_boxes([clauses], Family.IPV4, lambda columns: columns[0], depth=2)
    for packet in every_point([policy], "eth0", Direction.INGRESS, Family.IPV4):
        (box,) = boxes_with(boxes, packet)
        decision = evaluate(policy, packet)
        if decision.rule and decision.shadowed and not is_always_allowed(packet):
            assert box.label[1].rule is decision.shadowed[0], described(packet)


@examples(20)
@given(FEWER, FEWER)
def test_what_opens_and_closes_is_what_brute_force_finds(old: Case, new: Case) -> None:
    """Of every packet a comparison says what judging it twice says; all others agree (but for §7.1's)."""
    differs_as_brute_force_finds(old.policy, new.policy)


@examples(30)
@given(FEWER, draws())
def test_what_an_edit_opens_and_closes_is_what_brute_force_finds(case: Case, draws: Draws) -> None:
    """So it is where most rules are the very same on both sides, as those are left out that don't matter."""
    found = edited(draws, case)
    memory = Memo()
    after, before = (
        resolve(
            one.snapshot,
            bind(one.snapshot, one.bindings, HostFacts(), automatically=False),
            one.exemptions,
            memo=memory,
        ).policy
        for one in (found[0] if found else case, case)
    )
    differs_as_brute_force_finds(before, after)


def differs_as_brute_force_finds(old: ResolvedPolicy, new: ResolvedPolicy) -> None:
    """Check a comparison with what both policies say of each packet."""
    for direction in Direction:
        boxes = compare_judges(old.judge("eth0"), new.judge("eth0"), direction)
        for family in Family:
            for packet in every_point([old, new], "eth0", direction, family):
                if is_always_allowed(packet):
                    continue
                before, after = evaluate(old, packet), evaluate(new, packet)
                found = boxes_with(boxes, packet)
                assert len(found) == (before.verdict is not after.verdict), described(packet)
                for box in found:
                    change = box.label
                    opens = after.verdict is Policy.ACCEPT
                    assert change.effect is (Effect.OPENS if opens else Effect.CLOSES)
                    assert change.before.rule is before.rule, described(packet)
                    assert change.after.rule is after.rule, described(packet)


@examples(50)
@given(cases())
def test_a_policy_does_not_differ_from_itself(case: Case) -> None:
    """Comparing a policy with itself finds nothing."""
    policy = case.policy
    assert compare(policy, policy).is_nothing
