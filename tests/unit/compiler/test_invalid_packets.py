"""What conntrack calls invalid, on links that drop it and on links that evaluate it (§6.6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import Enforced, enforce
from sgagent.core.addresses import AddressSet
from sgagent.core.binding import HandBinding
from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Tracking
from sgagent.core.model import ALL_PROTOCOLS, ICMPV6, TCP, UDP, Direction, Mode, Policy
from sgagent.core.policy import InvalidPackets, ResolvedPolicy
from sgagent.nft import names
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import rule_text
from sgagent.verify import Outcome
from sgagent.verify.packets import CtState
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import table_of
from tests.tracing import walk
from tests.unit.core.test_link_patterns import resolution
from tests.words import ACCEPT, ADVANCED, DROP, IN, OUT, blocks, decision, group, packet, policy_of, rule

LAYOUT = MarkLayout(0xFFFF0000)
WEB = rule("web", ACCEPT, TCP, "80", "0.0.0.0/0")
DROPPING = policy_of(group("sg-1", WEB))


def evaluating(policy: ResolvedPolicy = DROPPING, mode: Mode = Mode.ENFORCE) -> ResolvedPolicy:
    """Return the policy of links that evaluate invalid packets."""
    changed = (replace(one, invalid=InvalidPackets.EVALUATE, mode=mode) for one in policy.interfaces)
    return replace(policy, interfaces=tuple(changed))


def compiled(policy: ResolvedPolicy) -> Ruleset:
    """Return the table of a host that starts anew."""
    return compile_(policy, LAYOUT, first_state(["eth0"], LAYOUT)).ruleset


def counters(table: Ruleset) -> set[str]:
    """Return the names of the counters of a table."""
    return {counter.name for counter in table.counters}


def test_the_entry_sends_invalid_packets_where_untracked_ones_go() -> None:
    """At both hooks, fragments apart: what is in those can't be read."""
    table = compiled(evaluating())
    for hook, way in (("prerouting", "ingress"), ("postrouting", "egress")):
        rules = [rule_text(one) for one in table.chain_by_name[hook].rules]
        assert [one for one in rules if "untracked" in one or "invalid" in one] == [
            f"ct state invalid,untracked exthdr frag exists goto invalid/eth0/{way}",
            "ct state invalid,untracked jump neighbours",
        ]
        assert f"ct state established,related jump tracked/eth0/{way}" in rules
    of_invalid = {names.invalid_chain(direction, "eth0") for direction in Direction}
    assert of_invalid <= counters(table) & counters(compiled(DROPPING))


@pytest.mark.parametrize(
    ("direction", "peer", "ports", "verdict", "decided_by"),
    (
        (IN, "192.0.2.9", (40_000, 80), ACCEPT, DecidedBy.RULE),
        (IN, "192.0.2.9", (40_000, 81), DROP, DecidedBy.DEFAULT),
        (IN, "192.0.2.9", (443, 40_000), DROP, DecidedBy.DEFAULT),
        (IN, "2001:db8::9", (40_000, 80), DROP, DecidedBy.DEFAULT),
        (OUT, "192.0.2.9", (80, 40_000), ACCEPT, DecidedBy.DEFAULT),
        (OUT, "2001:db8::9", (80, 40_000), ACCEPT, DecidedBy.DEFAULT),
    ),
)
def test_each_is_evaluated_by_its_own_header(
    direction: Direction, peer: str, ports: tuple[int, int], verdict: Policy, decided_by: DecidedBy
) -> None:
    """Also an answer, as what opens a session of its own direction: the default outwards decides."""
    judged = packet(direction, peer, TCP, ports[1], source_port=ports[0], tracking=Tracking.INVALID)
    policy = evaluating()
    found = decision(policy, judged)
    assert (found.verdict, found.decided_by) == (verdict, decided_by)
    assert walk(compiled(policy), judged).accepted is (verdict is ACCEPT)
    assert decision(DROPPING, judged).decided_by is DecidedBy.INVALID
    assert not walk(compiled(DROPPING), judged).accepted


@pytest.mark.parametrize("tracking", (Tracking.INVALID, Tracking.UNTRACKED))
def test_a_fragment_is_invalid_whatever_accepts_it(tracking: Tracking) -> None:
    """Its first piece may hide the port that a rule before drops (§4.2); IPv4's pieces show theirs."""
    everything = rule("all", ACCEPT, ALL_PROTOCOLS, "", "::/0")
    policy = evaluating(policy_of(group("sg-1", everything)))
    whole = packet(IN, "2001:db8::9", TCP, 22, source_port=40_000, tracking=tracking)
    assert walk(compiled(policy), whole).accepted
    piece = replace(whole, is_fragment=True)
    assert decision(policy, piece).decided_by is DecidedBy.INVALID
    seen = walk(compiled(policy), piece)
    assert (seen.accepted, seen.counted) == (False, ["invalid/eth0/ingress"])


def test_an_advanced_group_needs_a_rule_for_answers() -> None:
    """Its default outwards drops."""
    answer = packet(OUT, "192.0.2.9", TCP, 40_000, source_port=80, tracking=Tracking.INVALID)
    out = rule("answers", ACCEPT, TCP, "1-65535", "0.0.0.0/0", direction=OUT, source_ports="80")
    for rules, verdict in (((WEB,), DROP), ((WEB, out), ACCEPT)):
        policy = evaluating(policy_of(group("sg-1", *rules, group_type=ADVANCED)))
        assert decision(policy, answer).verdict is verdict
        assert walk(compiled(policy), answer).accepted is (verdict is ACCEPT)


def test_what_is_always_allowed_is_so_for_invalid_packets_too() -> None:
    """A solicitation with a bad checksum is the stack's to refuse (§7.1)."""
    advanced = evaluating(policy_of(group("sg-1", group_type=ADVANCED)))
    needed = (
        packet(OUT, "255.255.255.255", UDP, 67, source_port=68, tracking=Tracking.INVALID),
        packet(OUT, "ff02::1", ICMPV6, icmp_type=135, hop_limit=255, tracking=Tracking.INVALID),
    )
    for one in needed:
        assert decision(advanced, one).decided_by is DecidedBy.ALWAYS
        assert walk(compiled(advanced), one).accepted


def test_the_source_check_and_observe_mode_apply() -> None:
    """A spoofed packet counts as spoofed; a link that is observed drops nothing (§9.1, §12.6)."""
    (judge,) = evaluating().interfaces
    checked = replace(judge, own_addresses=AddressSet.of(blocks("10.0.0.1")))
    spoofed = packet(
        OUT, "192.0.2.9", TCP, 443, near_end="10.0.0.2", source_port=80, tracking=Tracking.INVALID
    )
    policy = ResolvedPolicy(interfaces=(checked,))
    assert decision(policy, spoofed).decided_by is DecidedBy.SPOOFED
    assert not walk(compiled(policy), spoofed).accepted
    denied = packet(IN, "192.0.2.9", TCP, 22, source_port=40_000, tracking=Tracking.INVALID)
    seen = walk(compiled(evaluating(mode=Mode.OBSERVE)), denied)
    assert (seen.accepted, seen.counted) == (True, ["default/eth0/ingress"])


def test_the_links_of_a_pattern_do_as_it_says() -> None:
    """Each of them, from its first packet on."""
    hand = HandBinding(
        interface="br-*", exclude=("br-x*",), security_group_ids=("sg-1",), invalid=InvalidPackets.EVALUATE
    )
    policy = resolution([hand], "br-a").policy
    for name in ("br-a", "br-new"):
        assert policy.judge(name) is policy.patterns[0].judge
    assert policy.patterns[0].judge.invalid is InvalidPackets.EVALUATE
    entry = compiled(policy).chain_by_name[names.entry_chain(IN, "br-*")]
    assert any("invalid,untracked" in rule_text(one) for one in entry.rules)


@pytest.mark.parametrize("policy", (DROPPING, evaluating(), evaluating(mode=Mode.OBSERVE)))
def test_it_is_proved(policy: ResolvedPolicy) -> None:
    """For every packet, those without an upper layer included."""
    assert prove(table_of(compiled(policy), ()), policy).outcome is Outcome.PROVED


@pytest.mark.parametrize(("made", "meant"), ((DROPPING, evaluating()), (evaluating(), DROPPING)))
def test_the_other_setting_is_refuted(made: ResolvedPolicy, meant: ResolvedPolicy) -> None:
    """By an invalid packet, or an error about another link's session."""
    proof = prove(table_of(compiled(made), ()), meant)
    assert proof.counterexample is not None
    shown = proof.counterexample.packet
    assert shown.state is CtState.INVALID or shown.is_error


def test_a_change_of_the_setting_ends_no_session() -> None:
    """The agent knows both policies, and neither takes anything from a session: the generation stays."""
    for old, new in ((DROPPING, evaluating()), (evaluating(), DROPPING)):
        first = enforce(old, None, (), LAYOUT)
        standing = first.compiled.ruleset
        known = Enforced(policy=old, ruleset=standing)
        following = enforce(new, standing, (), LAYOUT, enforced=known)
        assert following.state == first.state
        assert following.compiled.ruleset == compiled(new)


@pytest.mark.parametrize("policy", (DROPPING, evaluating()))
def test_the_end_of_observing_is_seen_in_the_table(policy: ResolvedPolicy) -> None:
    """Whoever takes the table up sees it in the default inwards, which drops wherever it enforces (§9.1)."""
    observing = replace(policy, interfaces=tuple(replace(i, mode=Mode.OBSERVE) for i in policy.interfaces))
    first = enforce(observing, None, (), LAYOUT)
    bumped = enforce(policy, first.compiled.ruleset, (), LAYOUT)
    assert first.state.generation is not None
    assert bumped.state.generation == first.state.generation + 1
    again = enforce(policy, bumped.compiled.ruleset, (), LAYOUT)
    assert again.state == bumped.state
