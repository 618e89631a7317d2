"""What is remembered from step to step spares work, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise

from hypothesis import event, given

from sgagent.agent.flowlog.enrichment import have_same_leaves, leaves_of
from sgagent.compiler.compilation import Compiled, compile_
from sgagent.compiler.enforce import Enforced, enforce
from sgagent.compiler.linear import MOST_LINES
from sgagent.core.binding import Bindings, HandBinding, HostFacts, bind
from sgagent.core.counter_keys import CounterKey
from sgagent.core.memo import Memo
from sgagent.core.model import ALL_PORTS, CidrBlock, Direction, Family, Snapshot
from sgagent.core.policy import ResolvedPolicy, precedence
from sgagent.core.resolve import Exemptions, Resolution, Scope, resolve
from sgagent.nft.diff import references, target
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.names import STATE_CHAIN, peers_chain
from sgagent.nft.ruleset import Chain, Ruleset
from sgagent.nft.transactions import Plan
from tests.changes import changed
from tests.draws import Draws
from tests.fakes.table import carry_out
from tests.generators import ENDS, Case
from tests.property.test_table_limit import overlapping_rules
from tests.strategies import cases, draws, examples, noted_case, noted_groups
from tests.words import policy_of

CHANGES = 6
LAYOUT = MarkLayout(0xFFFF0000)


def bound(snapshot: Snapshot, hands: tuple[HandBinding, ...]) -> Bindings:
    """Return the bindings of a snapshot, made by hand."""
    return bind(snapshot, hands, HostFacts(), automatically=False)


def snapshots(draws: Draws, first: Snapshot) -> list[Snapshot]:
    """Return a snapshot and what becomes of it, change by change; now and then it is as it was once."""
    found = [first]
    for _ in range(CHANGES):
        change = draws.choice((changed, changed, joined, joined, None))
        found.append(change(draws, found[-1]) if change else draws.choice(found))
    return found


def joined(draws: Draws, definitions: Snapshot) -> Snapshot:
    """Return the definitions with an address more in a group, which may be in others already."""
    groups = list(definitions.security_groups)
    place = draws.index(groups)
    address = CidrBlock.around(Family.IPV4, draws.randint(1 << 24, 1 << 24 | 3), 32)
    members = tuple(dict.fromkeys((*groups[place].member_addresses, address)))
    groups[place] = replace(groups[place], member_addresses=members)
    return replace(definitions, security_groups=tuple(groups))


@given(cases(most_rules=10), draws())
def test_resolving_after_any_changes_is_resolving_from_nothing(case: Case, draws: Draws) -> None:
    """Policy, problems and the number of unknown objects are the same, whatever was resolved before."""
    memory = Memo()
    for snapshot in snapshots(draws, case.snapshot):
        scope = draws.choice((Scope.HOST, Scope.HOST, Scope.EVERYTHING))
        bindings = bound(snapshot, case.bindings)
        at = draws.choice((None, *ENDS))
        remembering = resolve(snapshot, bindings, Exemptions(), scope=scope, at=at, memo=memory)
        assert remembering == resolve(snapshot, bindings, Exemptions(), scope=scope, at=at)
        event(f"has problems: {bool(remembering.problems)}")


@examples(50)
@given(cases(most_rules=10), draws())
def test_compiling_after_any_changes_is_compiling_from_nothing(case: Case, draws: Draws) -> None:
    """The table and the meaning of its counters are the same, whatever was compiled before.

    What the flow log says of a leaf is not worked out again only where it would be the same.
    """
    resolving, most_lines = Memo(), draws.choice((0, MOST_LINES))
    policies = [_resolved(one, case.bindings, resolving).policy for one in snapshots(draws, case.snapshot)]
    told = list(zip(policies, compiles_as_from_nothing(policies, most_lines), strict=True))
    for before, after in pairwise(told):
        if before[1].counters == after[1].counters:
            said = have_same_leaves(before[0], after[0])
            event(f"said to have the same leaves: {said}")
            assert not said or leaves_of(*_leaves(before)) == leaves_of(*_leaves(after))


@examples(40)
@given(draws())
def test_a_changed_rule_reaches_all_that_it_meets(draws: Draws) -> None:
    """Compiling is compiling from nothing too where rules change that decide in many classes."""
    if draws.chance(50):
        policies = [
            policy_of(*noted_groups(overlapping_rules(draws, draws.choice((12, 50)))), on={"eth0": "sg-1"})
        ]
    else:
        policies = [noted_case(draws, interfaces=("eth0",), most_rules=40).policy]
    for number in range(2 * CHANGES):
        policies.append(with_a_rule_changed(draws, policies[-1], f"new-{number}"))
    compiles_as_from_nothing(policies, most_lines=0)


def compiles_as_from_nothing(policies: list[ResolvedPolicy], most_lines: int) -> list[Compiled]:
    """Check that policies compile one after the other as each does alone, and return what they come to."""
    tables = list[Compiled]()
    memory, compiling = Memo(), partial(compile_, layout=LAYOUT, most_lines=most_lines)
    for number, policy in enumerate(policies):
        state = first_state([interface.name for interface in policy.interfaces], LAYOUT)
        maps = (peers_chain(way, link.name, f) for link in policy.judges for way in Direction for f in Family)
        renamed = frozenset(maps) if number // 2 % 2 else frozenset()
        tables.append(compiling(policy, state=state, memo=memory, renamed=renamed))
        assert tables[-1] == compiling(policy, state=state, renamed=renamed)
        memory.turn()
    return tables


def with_a_rule_changed(draws: Draws, policy: ResolvedPolicy, new_id: str) -> ResolvedPolicy:
    """Return the policy of one interface with a rule less, more or other among those inwards.

    Args:
        draws: what changes.
        policy: of one interface.
        new_id: of a rule that comes.
    """
    (interface,) = policy.interfaces
    rules = list(interface.ingress.rules)
    if rules:
        other = draws.choice(rules)
        one = rules.pop(draws.index(rules))
        moved = replace(one, protocols=other.protocols, ports=other.ports, source_ports=other.source_ports)
        elsewhere = replace(one, peer=other.peer, local_address=other.local_address)
        plain = replace(elsewhere, source_ports=ALL_PORTS, local_address=None)
        urgent = replace(one, priority=draws.randint(1, 100))
        another = replace(moved, rule_id=new_id)
        rules += draws.choice(((), (moved,), (elsewhere,), (plain,), (urgent,), (one, another)))
    ingress = replace(interface.ingress, rules=tuple(sorted(rules, key=precedence)))
    return ResolvedPolicy(interfaces=(replace(interface, ingress=ingress),))


@examples(50)
@given(cases(most_rules=10), draws())
def test_steps_that_remember_are_steps_that_do_not(case: Case, draws: Draws) -> None:
    """Each plan, its result, and the state of marks are the same as for an agent without memory."""
    memory, resolving = Memo(), Memo()
    table: Ruleset | None = None
    enforced: Enforced | None = None
    for snapshot in snapshots(draws, case.snapshot):
        policy = _resolved(snapshot, case.bindings, resolving).policy
        afresh = _resolved(snapshot, case.bindings, Memo()).policy
        found = enforce(policy, table, (), LAYOUT, enforced=enforced, memo=memory)
        assert found == enforce(afresh, table, (), LAYOUT, enforced=enforced)
        after = found.plan.after
        assert not leading_to(STATE_CHAIN, found.compiled.ruleset)
        assert after == carry_out(Plan(found.plan.operations), table) == found.compiled.ruleset
        table, enforced = after, Enforced(policy=policy, ruleset=found.compiled.ruleset)


@given(cases(most_rules=10))
def test_what_has_not_changed_is_the_very_same(case: Case) -> None:
    """Resolving and compiling the same once more gives values that are compared by identity."""
    memory, resolving = Memo(), Memo()
    first, second = (_resolved(case.snapshot, case.bindings, resolving).policy for _ in range(2))
    state = first_state([interface.name for interface in first.interfaces], LAYOUT)
    before = compile_(first, LAYOUT, state, memo=memory).ruleset
    memory.turn()
    after = compile_(second, LAYOUT, state, memo=memory).ruleset
    assert before == after
    for old, new in zip(before.verdict_maps, after.verdict_maps, strict=True):
        assert old is new or not old.name.startswith(("peers/", "networks/"))
    for one, other in zip(before.counters, after.counters, strict=True):
        assert one is other or not one.name.startswith("rule/")


def _leaves(table: tuple[ResolvedPolicy, Compiled]) -> tuple[ResolvedPolicy, Mapping[str, CounterKey]]:
    policy, compiled = table
    return policy, compiled.counters


def leading_to(chain: str, ruleset: Ruleset) -> list[str]:
    """Return the names of what leads to a chain."""
    rules = ((one.name, to) for one in ruleset.chains for rule in one.rules for to in references(rule))
    elements = ((one.name, target(e.verdict)) for one in ruleset.verdict_maps for e in one.elements)
    return [name for name, to in (*rules, *elements) if to in (chain, (Chain, chain))]


def _resolved(snapshot: Snapshot, hands: tuple[HandBinding, ...], memory: Memo) -> Resolution:
    return resolve(snapshot, bound(snapshot, hands), Exemptions(), memo=memory)
