"""Rules for users of this host: tables enforce them, and every proof and comparison knows them (§13.3)."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product

import pytest

from sgagent.analysis.compare import compare_judges
from sgagent.compiler.compilation import compile_
from sgagent.core.addresses import holds
from sgagent.core.conditions import LAST_USER, NO_UNIT, NO_USER, ControlGroup, Local, LocalUnit, LocalUser
from sgagent.core.evaluate import Packet, Tracking, evaluate
from sgagent.core.model import Direction, Policy
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy, ResolvedRule
from sgagent.verify import Outcome
from sgagent.verify.expectation import expect, stated_memory
from sgagent.verify.interpreter import run
from sgagent.verify.packets import CtDirection, CtState, PacketAtHook
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import table_of
from tests.draws import Draws, SeededDraws
from tests.generators import described, random_case, random_packets
from tests.tracing import session_of
from tests.verified_cases import VerifiedCase, tracked, verified_case

SEEDS = range(200 if os.environ.get("SGAGENT_FULL") else 6)
USERS = (0, 1000, LAST_USER)
GROUPS = tuple(ControlGroup(path, 1) for path in ("/a.slice", "/a.slice/b.service", "/c.service"))
UNITS = (*(group.numbers[0] for group in GROUPS), ControlGroup("/a.slice/b.service/below", 2).numbers[0], 7)
"""Of the groups, of one below, and of one that no rule names."""

PACKETS = 40


def with_users(policy: ResolvedPolicy, draws: Draws) -> ResolvedPolicy:
    """Return a policy of which some egress rules are for a user or a unit."""

    def of_user(rule: ResolvedRule) -> ResolvedRule:
        number, group = draws.choice(USERS), draws.choice(GROUPS)
        user, unit = LocalUser(name=str(number), number=number), LocalUnit(name="a unit", group=group)
        kinds: tuple[Local | None, ...] = (user, unit, None, None)
        local = draws.choice(kinds)
        return replace(rule, conditions=replace(rule.conditions, local=local))

    def change(judge: ResolvedInterface) -> ResolvedInterface:
        return replace(judge, egress=replace(judge.egress, rules=tuple(map(of_user, judge.egress.rules))))

    return policy.with_judges(change)


def case_with_users(seed: int, draws: Draws) -> VerifiedCase:
    """Return a random policy with users, and its table."""
    case = verified_case(seed, most_rules=10)
    policy = with_users(case.policy, draws)
    table = compile_(policy, case.layout, case.state, most_lines=draws.choice((0, 12, 100))).ruleset
    return replace(case, policy=policy, table=table)


def at_hook(packet: Packet, hook: str, state: CtState, mark: int) -> PacketAtHook:
    """Return a packet of the session that another one opens: that one, a later one, or its answer."""
    session = session_of(packet, mark=mark)
    is_answer = (hook == "prerouting") is (packet.direction is Direction.EGRESS)
    ends = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
    (source, source_port), (destination, port) = ends[::-1] if is_answer else ends
    direction = CtDirection.REPLY if is_answer else CtDirection.ORIGINAL
    return PacketAtHook(
        hook=hook,
        interface=packet.interface,
        family=packet.family,
        source=source,
        destination=destination,
        protocol=packet.protocol,
        source_port=source_port,
        destination_port=port,
        tcp_flags=0x10 if packet.protocol == 6 else None,
        state=state,
        session=None if session is None else tracked(session, direction.value),
        user=packet.user if hook == "postrouting" else None,
        unit=packet.unit if hook == "postrouting" else None,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_tables_with_users_are_proved(seed: int) -> None:
    """And what each packet meets is what the specification says: with a socket, without, and of answers."""
    draws = SeededDraws(seed)
    case = case_with_users(seed, draws)
    table = table_of(case.table)
    proof = prove(table, case.policy)
    assert proof.outcome is Outcome.PROVED, f"{proof.counterexample} {proof.unsupported}"
    memory = stated_memory(table)
    drawn = random_packets(draws, case.policy, PACKETS) if case.policy.interfaces else ()
    for opener in drawn:
        if opener.tracking is not Tracking.NEW or opener.direction is Direction.INGRESS:
            continue
        user, unit = draws.choice(((None, None), (draws.choice((*USERS, 7)), draws.choice(UNITS))))
        sent = replace(opener, user=user, unit=unit, icmp_type=None)
        mark = draws.choice((0, draws.randint(0, 0xFFFFFFFF)))
        for hook, state in (
            ("postrouting", CtState.NEW),
            ("postrouting", CtState.ESTABLISHED),
            ("prerouting", CtState.ESTABLISHED),
        ):
            packet = at_hook(sent, hook, state, mark)
            found, expected = run(table, packet), expect(case.policy, memory, packet)
            assert (found.verdict, found.mark) == (expected.verdict, expected.mark), packet
            if mark == 0:
                is_answer = hook == "prerouting"
                judged = replace(sent, user=None, unit=None, is_of_unknown_user=True) if is_answer else sent
                wanted = evaluate(case.policy, judged).verdict
                judge = case.policy.judge(sent.interface)
                is_observed = judge is not None and judge.mode.value == "observe"
                assert found.verdict is (Policy.ACCEPT if is_observed else wanted), described(sent)
                assert not (is_answer and judge and judge.egress.has_users and found.mark)


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_pass_if_some_user_may_have_opened_the_session(seed: int) -> None:
    """They pass if the session is accepted for anybody, of all users and packets without a socket."""
    draws = SeededDraws(seed)
    policy = with_users(random_case(draws, most_rules=10).policy, draws)
    for packet in random_packets(draws, policy, PACKETS):
        if packet.direction is Direction.EGRESS and packet.tracking is Tracking.NEW:
            answered = evaluate(policy, replace(packet, is_of_unknown_user=True)).verdict
            makers = [(None, None), *product(USERS, UNITS)]
            sent = (replace(packet, user=user, unit=unit) for user, unit in makers)
            found = {evaluate(policy, one).verdict for one in sent}
            assert (answered is Policy.ACCEPT) or found == {Policy.DROP}, described(packet)


@pytest.mark.parametrize("seed", SEEDS)
def test_comparisons_tell_users_apart(seed: int) -> None:
    """A packet is in a difference of two policies if, and only if, they decide otherwise about it."""
    draws = SeededDraws(seed)
    old = random_case(draws, most_rules=8).policy
    new = with_users(old, draws)
    for before, after in zip(old.bound, new.bound, strict=True):
        boxes = compare_judges(before, after, Direction.EGRESS)
        for drawn in random_packets(draws, old, PACKETS):
            if drawn.interface != before.name or drawn.direction is Direction.INGRESS:
                continue
            user, unit = draws.choice(((None, None), (draws.choice(USERS), draws.choice(UNITS))))
            packet = replace(drawn, user=user, unit=unit, tracking=Tracking.NEW, icmp_type=None)
            changes = evaluate(old, packet).verdict is not evaluate(new, packet).verdict
            assert changes is any(
                box.family is packet.family
                and holds(box.peers, packet.peer)
                and holds(box.protocols, packet.protocol)
                and holds(box.ports, packet.destination_port or 0)
                and holds(box.source_ports, packet.source_port or 0)
                and holds(box.locals, packet.local)
                and holds(box.users, NO_USER if user is None else user)
                and holds(box.units, NO_UNIT if unit is None else unit)
                for box in boxes
            ), described(packet)
