"""While a plan is carried out, each packet is judged wholly by the policy before, or wholly by that after.

The kernel commits a transaction in steps, and a packet may come at each of them. The tables that it meets are
built here from the tables before and after the transaction:

- *late intervals*: rules and hash maps of after; interval maps of before, and new ones empty;
- *in flight*: rules of before, by which the packet was being evaluated, and elements of after; chains that
  the transaction makes are still empty, and behind an empty chain a base chain accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace

from hypothesis import given

from sgagent.compiler.enforce import Enforced, Enforcement, enforce
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.marks import MarkLayout
from sgagent.nft.ruleset import Chain, Ruleset, VerdictMap
from sgagent.nft.transactions import Plan
from tests.changes import changed
from tests.draws import Draws
from tests.fakes.table import carry_out
from tests.generators import Case, random_packets
from tests.strategies import cases, draws, examples
from tests.tracer import Session
from tests.tracing import session_of, walk, walk_reply
from tests.words import ACCEPT, resolution

LAYOUT = MarkLayout(0xFFFF0000)
LINKS = ("eth0", "eth1", "eth2", "eth3")


def transactions(plan: Plan) -> Iterator[Plan]:
    """Yield the transactions of a plan, each as a plan of its own."""
    yield from (Plan(operations) for operations in (plan.fill, plan.flip, plan.removal) if operations)


def moments(before: Ruleset, after: Ruleset) -> Iterator[Ruleset]:
    """Yield the tables that packets meet while a transaction is committed."""
    empty = tuple(Chain(name=chain.name) for chain in after.chains if chain.name not in before.chain_by_name)
    at_once, late = (_maps(before, after, late_intervals=is_late) for is_late in (False, True))
    in_flight = replace(before, chains=(*before.chains, *empty))
    yield before
    yield replace(in_flight, verdict_maps=at_once)
    yield replace(in_flight, verdict_maps=late)
    yield replace(after, verdict_maps=late)
    yield after


def _maps(before: Ruleset, after: Ruleset, *, late_intervals: bool) -> tuple[VerdictMap, ...]:
    """Return the maps of both tables, those of both with the elements that are visible."""
    found = {**before.verdict_map_by_name, **after.verdict_map_by_name}
    for name, made in after.verdict_map_by_name.items():
        if late_intervals and made.is_interval:
            standing = before.verdict_map_by_name.get(name)
            found[name] = standing or replace(made, elements=())
    return tuple(found.values())


def follow(policies: list[ResolvedPolicy], draws: Draws) -> None:
    """Enforce policies one after the other, and let packets come at each moment of each commit."""
    ruleset: Ruleset | None = None
    enforced: Enforced | None = None
    sessions: list[tuple[Packet, Session]] = []
    for before, policy in zip([None, *policies], policies, strict=False):
        found = enforce(policy, ruleset, (), LAYOUT, enforced=draws.choice((enforced, None)))
        clear_marks(found, sessions)
        if ruleset is not None and before is not None:
            watch(found, ruleset, (before, policy), sessions, draws)
        ruleset = carry_out(found.plan, ruleset)
        assert ruleset == found.compiled.ruleset
        enforced = Enforced(policy=policy, ruleset=ruleset)
        for packet in random_packets(draws, policy, 10):
            session = session_of(packet)
            if session is not None:
                walk(ruleset, packet, session)
                sessions.append((packet, session))


def clear_marks(found: Enforcement, sessions: list[tuple[Packet, Session]]) -> None:
    """Clear the bits of live sessions that the agent clears before the first transaction."""
    clearance = found.clearance
    if clearance is None:
        return
    for _, session in sessions:
        if not clearance.tests or any(test.is_met_by(session.mark) for test in clearance.tests):
            session.mark &= ~clearance.mask


def watch(
    found: Enforcement,
    ruleset: Ruleset,
    policies: tuple[ResolvedPolicy, ResolvedPolicy],
    sessions: list[tuple[Packet, Session]],
    draws: Draws,
) -> None:
    """Let new packets, and packets of live sessions, come at each moment of each commit."""
    final = found.compiled.ruleset
    chosen = [
        *((packet, None) for one in policies for packet in random_packets(draws, one, 8)),
        *draws.sample(sessions, min(8, len(sessions))),
    ]
    at = ruleset
    for transaction in transactions(found.plan):
        then = carry_out(transaction, at)
        assert then is not None
        for table in moments(at, then):
            for packet, live in chosen:
                session = copy(live) if live else session_of(packet)
                look = walk if live is None else draws.choice((walk, walk_reply))
                accepted = look(table, packet, session).accepted
                allowed = {evaluate(policy, packet).verdict is ACCEPT for policy in policies}
                assert accepted in allowed, (packet, live)
                if session is not None:
                    finally_allowed = evaluate(policies[1], packet).verdict is ACCEPT
                    assert walk(final, packet, session).accepted is finally_allowed, (packet, live)
        at = then


@examples(40)
@given(cases(interfaces=LINKS, most_rules=8), draws())
def test_at_each_moment_a_packet_meets_one_policy(case: Case, draws: Draws) -> None:
    """Over changes of rules, members, groups and bindings, with and without a known policy before."""
    on = {hand.interface: ",".join(hand.security_group_ids) for hand in case.bindings}
    definitions, policies = case.snapshot, [case.policy]
    while len(policies) < 4:
        definitions = changed(draws, definitions)
        bound = {link: on[link] for link in sorted(draws.sample(list(on), draws.randint(1, len(on))))}
        found = resolution(definitions, on=bound if draws.chance(30) else on)
        if not found.errors:
            policies.append(found.policy)
    follow(policies, draws)
