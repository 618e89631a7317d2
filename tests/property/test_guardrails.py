"""The check of guardrails finds what brute force finds, packet by packet, and nothing else (§13.4)."""

from __future__ import annotations

import os

from hypothesis import given

from sgagent.analysis.guardrails import find_violations
from sgagent.compiler.compilation import compile_
from sgagent.core.binding import HostFacts, bind
from sgagent.core.guardrails import resolve_guardrails
from sgagent.core.memo import Memo
from sgagent.core.policy import SILENT
from sgagent.core.resolve import resolve
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.verify.guardrails import evaluate_guardrails
from sgagent.verify.verified_table import table_of
from tests.draws import Draws
from tests.edits import edited
from tests.generators import Case
from tests.guardrail_trials import checked, difference, random_guardrails, trial
from tests.strategies import cases, draws, examples

SEEDS = range(1, 2_001) if os.environ.get("SGAGENT_FULL") else range(1, 13)
"""Each a policy with 20 statements; ``python -m tests.guardrail_trials SEED 1`` tries one again."""


def test_the_check_finds_what_brute_force_finds() -> None:
    """Of the policy of each seed, it finds just the statements that a packet at some border breaks."""
    for seed in SEEDS:
        assert difference(*trial(seed)) == "", f"seed {seed}"


@examples(10)
@given(cases(most_rules=3), draws())
def test_it_is_so_on_each_of_several_interfaces(case: Case, draws: Draws) -> None:
    """Interfaces that are attached to other groups break other statements."""
    assert difference(case, random_guardrails(draws, case.snapshot, 4)) == ""


@examples(30)
@given(cases(interfaces=("eth0",), most_rules=8), draws())
def test_what_was_checked_before_changes_nothing(case: Case, draws: Draws) -> None:
    """After any edit, a check that remembers the one before finds what a first one finds."""
    rails, memo = random_guardrails(draws, case.snapshot, 5), Memo()
    changed = edited(draws, case)
    for one in (case, changed[0] if changed else case, case):
        bound = bind(one.snapshot, one.bindings, HostFacts(), automatically=False)
        policy = resolve(one.snapshot, bound, one.exemptions, memo=memo).policy
        resolved, problems = resolve_guardrails(rails, one.snapshot, memo=memo)
        first, problems_first = resolve_guardrails(rails, one.snapshot)
        assert (resolved, problems) == (first, problems_first)
        assert find_violations(resolved, policy, memo) == find_violations(first, policy)


def test_a_compiled_table_breaks_what_its_policy_breaks() -> None:
    """Evaluated on the table, each statement comes to what it came to on the policy."""
    layout = MarkLayout(0xFFFF0000)
    for seed in SEEDS[:6]:
        case, rails = trial(seed)
        resolved, _ = resolve_guardrails(rails, case.snapshot)
        state = first_state(case.policy.remembering, layout)
        table = table_of(compile_(case.policy, layout, state, SILENT).ruleset)
        found = evaluate_guardrails(table, case.policy, resolved)
        assert found.unsupported == ()
        on_table = {one.resolved.guardrail.guardrail_id for one in found.violations}
        assert on_table == {one.guardrail.guardrail_id for one in checked(case, rails)}, f"seed {seed}"
