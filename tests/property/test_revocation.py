"""Where a policy is said to take nothing away, it takes nothing away."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import event, given

from sgagent.compiler.enforce import narrows
from sgagent.core.evaluate import Tracking, evaluate
from sgagent.core.policy import ResolvedPolicy
from tests.changes import changed
from tests.draws import Draws, SeededDraws
from tests.generators import Case, random_case, random_packets
from tests.strategies import cases, draws
from tests.words import ACCEPT, resolution

PACKETS = 80


def policies(draws: Draws, case: Case) -> tuple[ResolvedPolicy, ResolvedPolicy] | None:
    """Return the policy before and after a change; None where the change made an error."""
    on = {hand.interface: ",".join(hand.security_group_ids) for hand in case.bindings}
    before = resolution(case.snapshot, on=on)
    after = resolution(changed(draws, case.snapshot), on=on)
    return None if before.errors or after.errors else (before.policy, after.policy)


def lost(draws: Draws, before: ResolvedPolicy, after: ResolvedPolicy) -> list[object]:
    """Return packets at the edges of either policy that only the one before accepts."""
    drawn = random_packets(draws, before, PACKETS) + random_packets(draws, after, PACKETS)
    drawn = [
        one if one.tracking is not Tracking.INVALID else replace(one, tracking=Tracking.NEW) for one in drawn
    ]
    return [
        one
        for one in drawn
        if evaluate(before, one).verdict is ACCEPT and evaluate(after, one).verdict is not ACCEPT
    ]


@given(cases(most_rules=10), draws())
def test_it_never_says_no_wrongly(case: Case, draws: Draws) -> None:
    """If a change is said to take nothing away, every packet that was accepted still is."""
    pair = policies(draws, case)
    if pair is None:
        return
    says_no = not narrows(*pair)
    event(f"takes nothing away: {says_no}")
    if says_no:
        assert lost(draws, *pair) == []


def test_it_says_no_often_enough() -> None:
    """Among widening changes it is no more often than not."""
    answers = []
    for seed in range(150):
        draws = SeededDraws(seed)
        pair = policies(draws, random_case(draws, most_rules=10))
        if pair is not None:
            answers.append(narrows(*pair))
    assert answers.count(False) > len(answers) // 2
    assert answers.count(True) > 5


def test_a_policy_takes_nothing_from_itself() -> None:
    """Nor does an empty one take from anything: what is no longer bound is no longer judged."""
    for seed in range(20):
        policy = random_case(SeededDraws(seed)).policy
        assert not narrows(policy, policy)
        assert not narrows(policy, ResolvedPolicy())
