"""A proof that builds on an earlier one finds what a whole one finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given

from sgagent.compiler.compilation import compile_
from sgagent.core.binding import bind
from sgagent.core.memo import Memo
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import resolve
from sgagent.nft.marks import EnforcementState, MarkLayout, first_state
from sgagent.nft.ruleset import Accept, Drop, Match, Rule, Ruleset
from sgagent.verify import Outcome
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import table_of
from tests.changes import changed
from tests.draws import Draws
from tests.generators import Case
from tests.strategies import draws, examples, noted_case

LAYOUT = MarkLayout(0xFFFF0000)
STEPS = 4


def policies(draws: Draws, case: Case) -> list[ResolvedPolicy]:
    """Return the policies of definitions that change, resolved as an agent does."""
    memo, definitions, found = Memo(), case.snapshot, list[ResolvedPolicy]()
    for _ in range(STEPS):
        bound = bind(definitions, case.bindings, case.facts, automatically=False)
        resolution = resolve(definitions, bound, case.exemptions, memo=memo)
        if not resolution.errors:
            found.append(resolution.policy)
        definitions = changed(draws, definitions)
    return found


def tables(draws: Draws, case: Case) -> list[tuple[ResolvedPolicy, Ruleset]]:
    """Return the policies with their tables; now and then sessions are judged again."""
    state: EnforcementState = first_state([one.interface for one in case.bindings], LAYOUT)
    most_lines, found, memo = draws.choice((0, 12)), list[tuple[ResolvedPolicy, Ruleset]](), Memo()
    for policy in policies(draws, case):
        memo.turn()
        ruleset = compile_(policy, LAYOUT, state, memo=memo, most_lines=most_lines).ruleset
        found.append((policy, ruleset))
        if draws.chance(50) and state.generation is not None:
            state = replace(state, generation=state.generation + 1)
    return found


def without_rule(draws: Draws, rules: list[Rule]) -> list[Rule]:
    """Take a rule away."""
    del rules[draws.index(rules)]
    return rules


def with_verdict(draws: Draws, rules: list[Rule]) -> list[Rule]:
    """Put a verdict before a rule."""
    rules.insert(draws.index(rules), Rule((Accept(),) if draws.chance(50) else (Drop(),)))
    return rules


def without_condition(draws: Draws, rules: list[Rule]) -> list[Rule]:
    """Take the first condition of a rule away."""
    place = draws.index(rules)
    statements = rules[place].statements
    if isinstance(statements[0], Match) and len(statements) > 1:
        rules[place] = Rule(statements[1:])
    return rules


FAULTS: tuple[Callable[[Draws, list[Rule]], list[Rule]], ...] = (
    without_rule,
    with_verdict,
    without_condition,
)


def with_fault(draws: Draws, ruleset: Ruleset) -> Ruleset:
    """Return a table in which a rule, or an element of a map, is not what it was."""
    looked_up = [one for one in ruleset.verdict_maps if one.elements]
    if looked_up and draws.chance(40):
        chosen = draws.choice(looked_up)
        elements = list(chosen.elements)
        place = draws.index(elements)
        if draws.chance(50):
            elements[place] = replace(elements[place], verdict=draws.choice(elements).verdict)
        else:
            del elements[place]
        now = replace(chosen, elements=tuple(elements))
        maps = tuple(now if one is chosen else one for one in ruleset.verdict_maps)
        return replace(ruleset, verdict_maps=maps)
    chain = draws.choice([one for one in ruleset.chains if one.rules])
    changed_chain = replace(chain, rules=tuple(draws.choice(FAULTS)(draws, list(chain.rules))))
    return replace(ruleset, chains=tuple(changed_chain if one is chain else one for one in ruleset.chains))


@examples(15)
@given(draws())
def test_a_proof_after_a_change(draws: Draws) -> None:
    """What the compiler makes of each change is proved, of the changed far ends or of all.

    A fault that a whole proof finds is found after an earlier proof, too, and no other.
    """
    case = noted_case(draws, interfaces=("eth0", "eth1")[: draws.choice((1, 1, 1, 2))], most_rules=4)
    previous = None
    for policy, ruleset in tables(draws, case):
        faulty = table_of(with_fault(draws, ruleset))
        whole = prove(faulty, policy)
        assert prove(faulty, policy, previous=previous).outcome is whole.outcome
        previous = prove(table_of(ruleset), policy, previous=previous)
        assert previous.outcome is Outcome.PROVED
