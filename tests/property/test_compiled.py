"""The compiled table decides as the specification does, packet by packet and session by session."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from sgagent.compiler.compilation import compile_, without_logging
from sgagent.compiler.linear import MOST_LINES
from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Packet, Tracking, evaluate, is_always_allowed
from sgagent.core.model import ALL_PROTOCOLS, TCP, Family, Mode, Policy
from sgagent.core.openers import ANSWERING
from sgagent.core.policy import FlowLogging, ResolvedPolicy
from sgagent.core.resolve import Exemptions, closed_interface
from sgagent.nft import names
from sgagent.nft.marks import (
    UNCACHED,
    EnforcementState,
    MarkLayout,
    elsewhere_bits,
    first_state,
    is_remembered,
)
from sgagent.nft.ruleset import Ruleset
from tests.crowded_groups import crowded_groups
from tests.draws import Draws
from tests.generators import Case, described, random_packets
from tests.strategies import cases, draws, examples, noted_groups
from tests.tracer import Walk
from tests.tracing import session_elsewhere, session_of, walk, walk_other, walk_own, walk_reply
from tests.words import ACCEPT, DROP, IN, OUT, group, packet, policy_of, rule

LAYOUT = MarkLayout(0xFFFF0000)
FOREIGN_MARKS = (0, 0x1, 0xBEEF)
"""Bits that other programs set in the mark."""

PACKETS = 40
MOST_STEPS = 80


def state_of(policy: ResolvedPolicy) -> EnforcementState:
    """Return the state of a host that starts anew."""
    return first_state([interface.name for interface in policy.interfaces], LAYOUT)


SHAPES = (0, MOST_LINES, 100)
"""Most lines of a list: look-ups alone, as an agent chooses, and lists of what otherwise is looked up."""


def compiled(
    policy: ResolvedPolicy, state: EnforcementState | None = None, *, most_lines: int = MOST_LINES
) -> Ruleset:
    """Return the table that enforces the policy, from a fresh start unless said."""
    return compile_(policy, LAYOUT, state or state_of(policy), most_lines=most_lines).ruleset


def expected_counters(policy: ResolvedPolicy, judged: Packet) -> list[str]:
    """Return the counters that the specification's decision is counted under."""
    decision = evaluate(policy, judged)
    judge = policy.judge(judged.interface)
    link = judge.name if judge else ""
    match decision.decided_by:
        case DecidedBy.RULE:
            assert decision.rule is not None
            return [names.rule_chain(link, decision.rule.rule_id)]
        case DecidedBy.OVER_LIMIT:
            assert decision.rule is not None
            return [names.over_limit_chain(link, decision.rule.rule_id)]
        case DecidedBy.DEFAULT:
            return [names.default_chain(judged.direction, link)]
        case DecidedBy.INNER:
            return [names.inner_chain(link)]
        case DecidedBy.FAILSAFE:
            return [names.step_chain("failsafe", judged.direction, link)]
        case DecidedBy.ALWAYS:
            platform = names.step_chain("platform", judged.direction, link)
            return [] if is_always_allowed(judged) else [platform]
        case DecidedBy.INVALID:
            return [names.invalid_chain(judged.direction, link)]
        case DecidedBy.SPOOFED:
            return [names.step_chain("spoofed", judged.direction, link)]
        case DecidedBy.UNBOUND | DecidedBy.SESSION:
            return []


def is_spoofed(policy: ResolvedPolicy, judged: Packet) -> bool:
    """Return what the text says of a packet's source, address by address (§12.6)."""
    judge = policy.judge(judged.interface)
    if judge is None or judge.own_addresses is None or is_always_allowed(judged):
        return False
    own = [range(first, last + 1) for first, last in judge.own_addresses.ranges(judged.family)]
    is_own = any(judged.source in addresses for addresses in own)
    return is_own if judged.direction is IN else not is_own


def untracked(judged: Packet, draws: Draws) -> Packet:
    """Return a packet as conntrack leaves it alone; now and then too short to hold ports, or a fragment."""
    if judged.source_port is not None and draws.chance(20):
        judged = replace(judged, source_port=None, destination_port=None)
    is_fragment = judged.family is Family.IPV6 and draws.chance(20)
    return replace(judged, tracking=Tracking.UNTRACKED, is_fragment=is_fragment)


def judges_as_specified(seen: Walk, policy: ResolvedPolicy, judged: Packet) -> None:
    """Check what a table made of a packet: its verdict, and what it was counted under."""
    assert seen.accepted is (evaluate(policy, judged).verdict is ACCEPT), described(judged)
    assert seen.counted == expected_counters(policy, judged), described(judged)


@given(cases(), draws())
def test_packets_of_new_sessions(case: Case, draws: Draws) -> None:
    """What opens a session is decided, and counted under, what the specification says.

    So are a reply whose session is not known, by the packet that opened it (§6.4), and an untracked packet,
    be it too short for ports, by its own header (§6.6), and an invalid one, as its link says. What is
    spoofed is dropped and counted as that, whatever the rest of the policy says (§12.6).
    """
    table = compiled(case.policy, most_lines=draws.choice(SHAPES))
    for judged in random_packets(draws, case.policy, PACKETS):
        seen = walk(table, judged)
        judges_as_specified(seen, case.policy, judged)
        exceeding = replace(judged, is_over_limit=True)  # §13.1
        judges_as_specified(walk(table, judged, is_over=True), case.policy, exceeding)
        if judged.tracking is not Tracking.INVALID:
            judge = case.policy.judge(judged.interface)
            assert judge is not None
            spoofed = names.step_chain("spoofed", judged.direction, judge.name)
            assert (seen.counted == [spoofed]) is is_spoofed(case.policy, judged), described(judged)
            assert not (seen.accepted and is_spoofed(case.policy, judged))
        if judged.tracking is Tracking.NEW:
            judges_as_specified(walk_reply(table, judged), case.policy, judged)
            assert walk_reply(table, judged, is_over=True) == walk_reply(table, judged)  # it uses nothing up
        alone = untracked(judged, draws)
        judges_as_specified(walk(table, alone), case.policy, alone)
        invalid = replace(alone, tracking=Tracking.INVALID)
        judges_as_specified(walk(table, invalid), case.policy, invalid)


@given(cases(), draws())
def test_what_is_told_of_judgements(case: Case, draws: Draws) -> None:
    """A leaf tells of the verdicts that it is asked to, by its name, and decides as it does otherwise.

    So it does where the limit is used up, and nothing is told. Rules that accept have leaves then.
    """
    silent, verdict = compiled(case.policy), draws.choice(tuple(Policy))
    logging = FlowLogging(verdicts=frozenset({verdict}))
    telling = compile_(case.policy, LAYOUT, state_of(case.policy), logging).ruleset
    assert verdict is Policy.ACCEPT or without_logging(telling) == silent
    for judged in random_packets(draws, case.policy, PACKETS // 2):
        seen, told = walk(silent, judged), walk(telling, judged)
        limited = walk(telling, judged, is_limited=True)
        assert told.accepted is limited.accepted is seen.accepted
        assert told.counted == limited.counted == seen.counted
        is_meant = evaluate(case.policy, judged).verdict is verdict
        assert told.logged == (list(map(names.log_prefix, seen.counted)) if is_meant else [])
        assert limited.logged == []


@examples(60)
@given(draws())
def test_rules_that_only_source_ports_and_near_ends_tell_apart(draws: Draws) -> None:
    """However many there are, the first that matches decides; tracked, untracked, and without ports."""
    groups = noted_groups(*crowded_groups(draws))
    policy = policy_of(*groups, on={"eth0": "sg-1"})
    table = compiled(policy, most_lines=draws.choice(SHAPES[:2]))
    for drawn_packet in random_packets(draws, policy, PACKETS):
        for judged in (drawn_packet, untracked(drawn_packet, draws)):
            seen = walk(table, judged)
            judges_as_specified(seen, policy, judged)
            assert seen.steps <= MOST_STEPS


@given(cases(), draws())
def test_the_mark_of_a_session(case: Case, draws: Draws) -> None:
    """A mark says which interface accepted the session, under which generation, and which way it was opened.

    An accepted session's later packets cost a comparison each way, and are not counted again. A mark of any
    other generation, or of the other way, opens nothing, and accepting clears it in every slot (§6.3, §6.4).
    An entry that is opened says over which links it was not, and that stays. Bits of others stay whatever
    becomes of a packet; a refusal leaves all.
    """
    state = state_of(case.policy)
    table = compiled(case.policy, state)
    ours = LAYOUT.generation_bits(state.generation or 0)
    for judged in random_packets(draws, case.policy, PACKETS):
        slot = state.slot(judged.interface)
        assert slot is not None
        this_way = ours | LAYOUT.direction_bit(slot, judged.direction)
        other_way = ours | LAYOUT.direction_bit(slot, OUT if judged.direction is IN else IN)
        older = LAYOUT.generation_bits(7) | 0x3F << 16 | 0xBEEF
        noted = elsewhere_bits(LAYOUT, state, but=(judged.interface, judged.direction))
        for before in (draws.choice(FOREIGN_MARKS), draws.number(4), older, other_way):
            session = session_of(judged, mark=before)
            if session is None:
                break
            seen = walk(table, judged, session)
            if is_remembered(before, judged.interface, judged.direction, LAYOUT, state):
                assert (seen.accepted, session.mark) == (True, before)
                continue
            judges_as_specified(seen, case.policy, judged)
            is_current = LAYOUT.of_generation(state.generation or 0).is_met_by(before)
            forgotten = 0 if is_current else LAYOUT.generation_mask | LAYOUT.acceptance_mask
            kept = before & ~(forgotten | LAYOUT.elsewhere_bit(slot, judged.direction))
            kept |= 0 if before & LAYOUT.mask else noted
            assert session.mark == (this_way | kept if seen.accepted else before)
            for later in (walk, walk_reply) if seen.accepted else ():
                again = later(table, judged, session)
                assert again.accepted
                assert again.counted == []
                assert again.steps <= 5, "the dispatch, limits, and one comparison for each way of opening"


@given(cases(interfaces=("eth0", "eth1", "eth2", "eth3")), draws())
def test_acceptance_on_one_interface_says_nothing_of_another(case: Case, draws: Draws) -> None:
    """A session that was accepted on one interface is judged on the next one, marks or not (§6.4).

    The fourth interface has no bits: its sessions are judged each time, and marks say that they were opened
    over none of the others, unless they are of somebody else.
    """
    table = compiled(case.policy)
    noted = elsewhere_bits(LAYOUT, state_of(case.policy))
    for judged in random_packets(draws, case.policy, PACKETS):
        session = session_of(judged)
        for link in draws.sample(("eth0", "eth1", "eth2", "eth3"), 3) if session else ():
            here = replace(judged, interface=link)
            judges_as_specified(walk(table, here, session), case.policy, here)
        here = replace(judged, interface="eth3")
        before = draws.choice((0, 0xBEEF))
        session = session_of(here, mark=before)
        is_accepted = walk(table, here, session).accepted
        judges_as_specified(walk(table, here, session), case.policy, here)
        assert session is None or session.mark == before | (noted if is_accepted and not before else 0)


@examples(30)
@given(cases(interfaces=("eth0",)), draws())
def test_a_lower_device_is_judged_as_its_master(case: Case, draws: Draws) -> None:
    """New sessions, answers of live ones, and entries that were opened elsewhere (§9.5)."""
    policy = replace(case.policy, lower_devices={"port": "eth0"})
    table = compiled(policy, most_lines=draws.choice(SHAPES))
    elsewhere = LAYOUT.elsewhere_bit(0, IN) | LAYOUT.elsewhere_bit(0, OUT)
    for drawn_packet in random_packets(draws, policy, PACKETS // 2):
        judged = replace(drawn_packet, interface="port")
        judges_as_specified(walk(table, judged), policy, judged)
        if judged.tracking is Tracking.NEW:
            judges_as_specified(walk_reply(table, judged), policy, judged)
        session = session_elsewhere(judged, mark=elsewhere)
        if session is not None:
            judges_as_specified(walk_own(table, judged, session), policy, judged)


@given(cases(interfaces=("eth0", "eth1")), draws())
def test_entries_that_were_opened_elsewhere(case: Case, draws: Draws) -> None:
    """A packet that is the answer of an entry which was opened over another link is as one of its own (§6.4).

    It is judged and counted, whatever the entry's other tuple is. If it is accepted the mark allows it and
    what answers it until the generation changes, and still says that the entry was opened elsewhere. One that
    can open nothing (a segment of TCP that is no SYN, an echo reply) says nothing in the mark.
    """
    state = state_of(case.policy)
    table = compiled(case.policy, state, most_lines=draws.choice(SHAPES))
    generation = LAYOUT.generation_bits(state.generation or 0)
    for judged in random_packets(draws, case.policy, PACKETS):
        slot = state.slot(judged.interface)
        assert slot is not None
        backward = OUT if judged.direction is IN else IN
        here, others = LAYOUT.elsewhere_bit(slot, backward), draws.choice((0, LAYOUT.elsewhere_bit(2, OUT)))
        others |= draws.choice((0, LAYOUT.elsewhere_bit(slot, judged.direction)))
        turned = LAYOUT.direction_bit(slot, backward)
        old = draws.choice((0, LAYOUT.generation_bits(7) | 0x3F << 16, generation))
        session = session_elsewhere(judged, mark=old | here | others | 0xBEEF)
        if session is None:
            continue
        seen = walk_own(table, judged, session)
        judges_as_specified(seen, case.policy, judged)
        if not seen.accepted:
            assert session.mark == old | here | others | 0xBEEF
            continue
        if judged.protocol in {*ANSWERING, TCP.wire_number}:
            assert session.mark == old | here | others | 0xBEEF
            judges_as_specified(walk_own(table, judged, session), case.policy, judged)
            continue
        kept = old & LAYOUT.acceptance_mask if old == generation else 0
        assert session.mark == generation | kept | turned | here | others | 0xBEEF
        for later in (walk_own, walk_other):
            again = later(table, judged, session)
            assert (again.accepted, again.counted) == (True, [])
        session.mark ^= generation ^ LAYOUT.generation_bits(9)
        judges_as_specified(walk_own(table, judged, session), case.policy, judged)


@given(cases(), draws())
def test_without_a_generation_nothing_is_remembered(case: Case, draws: Draws) -> None:
    """Uncached, marks are neither believed nor set, whatever they say."""
    table = compiled(case.policy, UNCACHED)
    for judged in random_packets(draws, case.policy, PACKETS):
        mark = draws.number(4)
        session = session_of(judged, mark=mark)
        seen = walk(table, judged, session)
        assert seen.accepted is (evaluate(case.policy, judged).verdict is ACCEPT)
        assert session is None or session.mark == mark


@given(cases(), cases(), draws())
def test_a_new_generation_judges_again(case: Case, other: Case, draws: Draws) -> None:
    """What one policy accepted lives under the next generation only if that policy accepts it (§6.3).

    Both ways, and also where the session was opened the other way round.
    """
    after = other.policy
    state = state_of(case.policy)
    assert state.generation is not None
    old = compiled(case.policy, state)
    new = compiled(after, replace(state, generation=state.generation + 1))
    for judged in random_packets(draws, case.policy, PACKETS):
        session = session_of(judged)
        if session is None or not walk(old, judged, session).accepted:
            continue
        look = draws.choice((walk, walk_reply))
        allowed = evaluate(after, judged).verdict is ACCEPT
        assert look(new, judged, session).accepted is allowed, described(judged)
        assert walk(new, judged, session).accepted is allowed
        assert walk_reply(new, judged, session).accepted is allowed


@given(cases(), draws())
def test_observing_counts_the_same_and_drops_nothing(case: Case, draws: Draws) -> None:
    """In observe mode everything passes, under the counter that enforcing would have used (§9.1)."""
    observing = replace(
        case.policy, interfaces=tuple(replace(one, mode=Mode.OBSERVE) for one in case.policy.interfaces)
    )
    table = compiled(observing)
    for judged in random_packets(draws, case.policy, PACKETS):
        session = session_of(judged)
        seen = walk(table, judged, session)
        assert seen.accepted
        assert seen.counted == expected_counters(case.policy, judged)
        if session is not None:
            again = walk(table, judged, session)
            assert again.accepted
            assert again.counted == [], "what would have been dropped counts once per session"


@examples(30)
@given(cases(interfaces=("eth0",)), draws())
def test_other_links_are_open_unless_they_are_closed(case: Case, draws: Draws) -> None:
    """A link that is not bound is judged by nobody, or let through only what no group can block (§9.3)."""
    exemptions = Exemptions(platform=case.policy.interfaces[0].egress.platform)
    closed = replace(case.policy, unbound=closed_interface("*", exemptions, Mode.ENFORCE))
    for policy in (case.policy, closed):
        table = compiled(policy)
        for judged in random_packets(draws, policy, PACKETS):
            for link in ("eth9", "lo"):
                here = replace(judged, interface=link)
                judges_as_specified(walk(table, here), policy, here)


def test_loopback_is_never_closed() -> None:
    """With ``unbound_interfaces = "closed"`` the loopback link still passes everything (§2.3)."""
    policy = ResolvedPolicy(unbound=closed_interface("*", Exemptions(), Mode.ENFORCE))
    here = packet(IN, "127.0.0.1", 47, link="lo")
    assert evaluate(policy, here).decided_by is DecidedBy.UNBOUND
    assert walk(compiled(policy), here).accepted
    assert not walk(compiled(policy), replace(here, interface="eth0")).accepted


def test_a_part_of_ipv6_does_not_open_the_rest() -> None:
    """A rule for ``::/96``, whose numbers are those of all of IPv4, lets nobody else of IPv6 in."""
    table = compiled(policy_of(group("sg-1", rule("r1", ACCEPT, ALL_PROTOCOLS, "", "::/96"))))
    assert walk(table, packet(IN, "::7", 47)).accepted
    assert not walk(table, packet(IN, "2001:db8::7", 47)).accepted


@pytest.mark.parametrize("policy", (ACCEPT, DROP))
def test_two_interfaces_of_one_group_count_apart(policy: Policy) -> None:
    """A rule has a leaf and a counter for each interface that its group is on."""
    resolved = policy_of(
        group("sg-1", rule("r1", policy, ALL_PROTOCOLS, "", "10.0.0.2")), on={"eth0": "sg-1", "eth1": "sg-1"}
    )
    table = compiled(resolved)
    assert walk(table, packet(IN, "10.0.0.2", 47, link="eth0")).counted == ["rule/eth0/r1"]
    assert walk(table, packet(IN, "10.0.0.2", 47, link="eth1")).counted == ["rule/eth1/r1"]
