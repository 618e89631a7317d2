"""A table is proved, or a packet shows what it does wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sgagent.compiler.compilation import compile_
from sgagent.core.addresses import AddressSet
from sgagent.core.clauses import DecidedBy
from sgagent.core.model import (
    ALL_PROTOCOLS,
    ICMP,
    TCP,
    UDP,
    CidrBlock,
    Direction,
    Family,
    Mode,
    Policy,
    PortSet,
)
from sgagent.core.policy import Exemption, ResolvedPolicy
from sgagent.core.resolve import Exemptions, closed_interface
from sgagent.nft.marks import UNCACHED, EnforcementState, MarkLayout, first_state
from sgagent.nft.ruleset import (
    CT_STATE,
    META_IIFNAME,
    META_L4PROTO,
    META_OIFNAME,
    TH_DPORT,
    Accept,
    Chain,
    Count,
    Drop,
    Element,
    Goto,
    Hook,
    Interval,
    KeyType,
    Limit,
    Log,
    LookUp,
    Match,
    Operator,
    Rule,
    Ruleset,
    Selector,
    SetMark,
    Statement,
    Symbol,
    VerdictMap,
)
from sgagent.verify import Outcome
from sgagent.verify.expectation import SessionMemory, list_box_clauses
from sgagent.verify.fate_comparison import EVERYTHING, ComparisonScope, Counterexample
from sgagent.verify.interpreter import OVER_LIMIT
from sgagent.verify.packets import NO_PROTOCOL, CtDirection, CtState, reads_other_link
from sgagent.verify.proof import Proof, prove
from sgagent.verify.verified_table import table_of
from tests.words import ACCEPT, DROP, OUT, blocks, group, policy_of, rule

LAYOUT = MarkLayout(0xFFFF0000)
APPLICATION = group("sg-app", members=["10.0.1.21", "10.0.1.22", "2001:db8::21"])
WEB = group(
    "sg-web",
    rule("web", ACCEPT, TCP, "80,443", "0.0.0.0/0"),
    rule("app", ACCEPT, TCP, "5000-5999", "sg-app", priority=10),
    rule("lab", DROP, ALL_PROTOCOLS, "", "10.0.1.0/24", priority=20),
    rule("ping", ACCEPT, ICMP, "", "0.0.0.0/0", priority=30),
    rule("dns", ACCEPT, UDP, "53", "10.0.0.53", direction=OUT, local="10.0.0.1", source_ports="1024-65535"),
    rule("out", DROP, ALL_PROTOCOLS, "", "0.0.0.0/0", direction=OUT, priority=2),
    members=["10.0.0.11"],
)
POLICY = policy_of(WEB, APPLICATION, on={"eth0": "sg-web", "eth1": "sg-app"})


def compiled(policy: ResolvedPolicy, state: EnforcementState | None = None, most_lines: int = 12) -> Ruleset:
    """Return the table of a policy."""
    names = [interface.name for interface in policy.interfaces]
    return compile_(policy, LAYOUT, state or first_state(names, LAYOUT), most_lines=most_lines).ruleset


def proof_of(
    ruleset: Ruleset,
    policy: ResolvedPolicy = POLICY,
    foreign: tuple[str, ...] = (),
    scope: ComparisonScope = EVERYTHING,
) -> Proof:
    """Compare a table with a policy."""
    return prove(table_of(ruleset, foreign), policy, scope=scope)


def refuted(
    ruleset: Ruleset, policy: ResolvedPolicy = POLICY, foreign: tuple[str, ...] = ()
) -> Counterexample:
    """Return the packet that shows a fault."""
    proof = proof_of(ruleset, policy, foreign)
    assert proof.outcome is Outcome.REFUTED
    assert proof.counterexample is not None
    return proof.counterexample


def with_chain(
    ruleset: Ruleset, name: str, change: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]
) -> Ruleset:
    """Return the table with other rules in a chain."""
    chains = (
        replace(chain, rules=change(chain.rules)) if chain.name == name else chain for chain in ruleset.chains
    )
    return replace(ruleset, chains=tuple(chains))


CLOSED = replace(POLICY, unbound=closed_interface("*", Exemptions(), Mode.ENFORCE))
KEPT = EnforcementState(generation=7, slots=("eth0", "eth1", None), reused=True, keeps=True)
OBSERVED = replace(POLICY, interfaces=tuple(replace(one, mode=Mode.OBSERVE) for one in POLICY.interfaces))


@pytest.mark.parametrize("most_lines", (0, 12))
@pytest.mark.parametrize("policy", (POLICY, CLOSED, OBSERVED), ids=("open", "closed", "observed"))
@pytest.mark.parametrize("state", (None, UNCACHED, KEPT), ids=("cached", "uncached", "kept"))
def test_tables_are_proved(policy: ResolvedPolicy, most_lines: int, state: EnforcementState | None) -> None:
    """As lists and as look-ups, with and without remembered sessions."""
    proof = proof_of(compiled(policy, state, most_lines), policy)
    assert proof.outcome is Outcome.PROVED
    assert proof.cells > 100


def test_another_policy_is_refuted() -> None:
    """The packet is one about which the policies differ."""
    other = policy_of(
        replace(WEB, rules=tuple(one for one in WEB.rules if one.rule_id != "lab")),
        APPLICATION,
        on={"eth0": "sg-web", "eth1": "sg-app"},
    )
    found = refuted(compiled(other))
    assert found.expected.decision.rule is not None
    assert found.expected.decision.rule.rule_id == "lab"
    assert found.packet.source >> 8 == 0x0A0001


_APP = Count("rule/eth0/app")


def _of_app(*counting: Statement) -> Callable[[tuple[Rule, ...]], tuple[Rule, ...]]:
    """Return what puts other statements where a rule counts."""

    def altered(rule: Rule) -> Rule:
        return Rule(tuple(new for one in rule.statements for new in (counting if one == _APP else (one,))))

    return lambda rules: tuple(map(altered, rules))


def test_a_counter_of_another_rule() -> None:
    """The verdict is right, the count is not."""
    table = with_chain(compiled(POLICY), "peers/eth0/ingress/ipv4", _of_app(Count("rule/eth0/web")))
    found = refuted(table)
    assert (found.expected.counters, found.found.counters) == (("rule/eth0/app",), ("rule/eth0/web",))
    assert found.expected.verdict is found.found.verdict
    assert proof_of(table, scope=ComparisonScope(counters=False, marks=False)).outcome is Outcome.PROVED


@pytest.mark.parametrize(
    "statement", (SetMark(0xFFFFFFFF, 1), SetMark(0xFFFFFFFE, 0), SetMark(0xFF00FFFF, 0))
)
def test_a_change_of_the_mark(statement: SetMark) -> None:
    """Neither bits of others nor our own are to be changed on the way."""
    altered = _of_app(_APP, statement)
    table = with_chain(compiled(POLICY), "peers/eth0/ingress/ipv4", altered)
    found = refuted(table)
    assert found.expected.mark != found.found.mark
    assert found.expected.verdict is found.found.verdict


@pytest.mark.parametrize("bit", (16, 17, 22, 28, 31))
def test_a_session_is_believed_by_all_bits_of_its_mark(bit: int) -> None:
    """A comparison that leaves one out accepts sessions that nobody judged."""

    def loosened(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        first = rules[0].statements[0]
        assert isinstance(first, Match)
        assert first.mask is not None
        mask = first.mask & ~(1 << bit)
        value = (
            Interval.single(first.values[0].first & mask) if isinstance(first.values[0], Interval) else None
        )
        assert value is not None
        return (Rule((replace(first, mask=mask, values=(value,)), *rules[0].statements[1:])), *rules[1:])

    policy = policy_of(WEB, APPLICATION, on={"eth0": "sg-web", "eth1": "sg-app"})
    table = with_chain(compiled(policy), "ingress/eth0", loosened)
    if bit in {17, 22}:
        assert table == compiled(policy), "the bit is not compared"
        return
    found = refuted(table, policy)
    assert found.packet.session is not None
    assert found.found.mark == found.packet.session.mark != found.expected.mark
    assert found.found.path == ("prerouting", "ingress/eth0")


def test_the_mark_of_an_expected_session_is_not_its_own() -> None:
    """A session that a helper expects is evaluated, whatever its mark; errors have their session's (§6.5)."""
    table = compiled(POLICY)

    def believing(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(Rule(tuple(s for s in rule.statements if s != is_no_first)) for rule in rules)

    def without_errors(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(rule for rule in rules if META_L4PROTO not in map(selector_of, rule.statements))

    is_no_first = Match(CT_STATE, (Symbol("related"),), Operator.NOT_EQUAL)
    for way, link in (("ingress", "eth0"), ("egress", "eth1")):
        expected = refuted(with_chain(table, f"{way}/{link}", believing)).packet
        error = refuted(with_chain(table, f"tracked/{link}/{way}", without_errors)).packet
        assert (expected.is_expected, expected.is_error) == (True, False)
        assert (error.is_expected, error.is_error) == (False, True)


def selector_of(statement: object) -> Selector | None:
    """Return what a statement compares, if it compares something."""
    return statement.selector if isinstance(statement, Match) else None


def test_packets_that_a_map_lacks_meet_the_next_rule() -> None:
    """Ports that a look-up does not find are followed on."""
    rules = (Rule((LookUp((TH_DPORT,), "ports"),)), Rule((Match(TH_DPORT, (Interval.single(81),)), Drop())))
    base = Chain(name="base", hook=Hook(name="prerouting", hook_priority=-150), rules=rules)
    elements = (Element((Interval.single(80),), Accept()),)
    ports = VerdictMap(name="ports", key_types=(KeyType.INET_SERVICE,), elements=elements)
    found = refuted(Ruleset(chains=(base,), verdict_maps=(ports,)), ResolvedPolicy())
    assert found.packet.destination_port == 81


@pytest.mark.parametrize(
    ("name", "priority", "is_fault"),
    (
        ("prerouting", -300, True),
        ("prerouting", -120, False),
        ("prerouting", 0, True),
        ("postrouting", 0, True),
    ),
)
def test_a_priority(name: str, priority: int, is_fault: bool) -> None:  # noqa: FBT001 - a parameter of the table
    """Before conntrack no session is known, on the inner side of NAT the header has other ends."""
    table = compiled(POLICY)
    chains = tuple(
        replace(chain, hook=Hook(name=name, hook_priority=priority)) if chain.name == name else chain
        for chain in table.chains
    )
    assert (proof_of(replace(table, chains=chains)).outcome is Outcome.REFUTED) is is_fault


def test_the_policy_of_a_base_chain() -> None:
    """It decides about links that are not bound, unless their entries are marked."""
    found = refuted(compiled(POLICY, UNCACHED), foreign=("policy prerouting",))
    assert found.expected.decision.decided_by is DecidedBy.UNBOUND
    assert found.found.verdict is Policy.DROP


def test_a_base_chain_too_many() -> None:
    """One that accepts everything is harmless; one that drops is not, whatever its hook."""
    table = compiled(POLICY)
    for hook in ("input", "prerouting"):
        for verdict, outcome in ((Accept(), Outcome.PROVED), (Drop(), Outcome.REFUTED)):
            extra = Chain(name="x", hook=Hook(name=hook, hook_priority=10), rules=(Rule((verdict,)),))
            chains = tuple(sorted((*table.chains, extra), key=lambda chain: chain.name))
            assert proof_of(replace(table, chains=chains)).outcome is outcome


def test_loopback_is_named() -> None:
    """A table that drops what goes over it is refuted, though no policy speaks of it."""
    line = Rule((Match(META_IIFNAME, (Symbol("lo"),)), Drop()))
    found = refuted(with_chain(compiled(POLICY), "prerouting", lambda rules: (line, *rules)))
    assert found.packet.interface == "lo"


def test_invalid_packets() -> None:
    """They are dropped and counted."""
    found = refuted(with_chain(compiled(POLICY, UNCACHED), "invalid/eth0/egress", lambda _: ()))
    assert found.packet.state is CtState.INVALID


@pytest.mark.parametrize("chain", ("tracked/eth0/ingress", "tracked/eth0/egress", "tracked/eth1/egress"))
@pytest.mark.parametrize("place", (4, 5))
def test_entries_that_were_opened_elsewhere(chain: str, place: int) -> None:
    """Their answers are evaluated by their own header, and errors about them are about nothing (§6.4)."""

    def without(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return (*rules[:place], *rules[place + 1 :])

    found = refuted(with_chain(compiled(POLICY), chain, without))
    assert found.packet.session is not None
    assert found.packet.session.direction is CtDirection.REPLY
    assert found.packet.is_error is (place == 5)


def test_an_entry_that_is_opened_elsewhere_is_marked() -> None:
    """One over a link that is not bound says so afterwards, whatever the link (§6.4)."""
    table = compiled(POLICY)
    found = refuted(with_chain(table, "elsewhere", lambda rules: rules[1:]))
    assert (found.expected.mark, found.found.mark) == (0x03C00000, 0)
    found = refuted(with_chain(table, "elsewhere", lambda rules: (Rule(rules[0].statements[1:]), *rules[1:])))
    assert found.packet.state is not CtState.NEW


def without_rule(number: int) -> Counterexample:
    """Return how a table is refuted that lacks a rule of what remembers sessions that go out by eth1."""
    table = with_chain(
        compiled(POLICY), "accept/eth1/egress", lambda rules: (*rules[:number], *rules[number + 1 :])
    )
    return refuted(table)


def test_an_accepted_answer_lets_what_answers_it_pass_and_nothing_else() -> None:
    """The bit of what comes in and its answers is set, and the one that says elsewhere stays (§6.4)."""
    found = without_rule(5)
    assert found.expected.mark is not None
    assert found.expected.mark & 0x01040000 == 0x01040000


def test_no_answer_opens_the_other_direction() -> None:
    """A reply that is accepted outwards opens nothing outwards: a guest would choose what (§6.4)."""
    both = SetMark(keep=0xFFFFFFFF, put=0x000C0000)

    def with_both(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        *before, _, verdict = rules[5].statements
        return (*rules[:5], Rule((*before, both, verdict)), *rules[6:])

    found = refuted(with_chain(compiled(POLICY), "accept/eth1/egress", with_both))
    assert found.expected.mark is not None
    assert found.found.mark == found.expected.mark | 0x00080000


@pytest.mark.parametrize("number", (5, 6))
def test_what_passes_the_other_way_is_no_answer_evaluated_by_its_header(number: int) -> None:
    """A reply of a session that was opened outwards here comes in: it opens nothing inwards (§6.4)."""

    def both_ways(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        kept = (one for one in rules[number].statements if selector_of(one) is not META_OIFNAME)
        return (*rules[:number], Rule(tuple(kept)), *rules[number + 1 :])

    found = refuted(with_chain(compiled(POLICY), "accept/eth1/egress", both_ways))
    assert (found.packet.hook, found.expected.verdict) == ("prerouting", Policy.ACCEPT)


def test_an_error_opens_no_entry() -> None:
    """Sent in the original direction, it would say that the entry was opened here (§6.4)."""
    found = without_rule(2)
    assert found.packet.is_error
    assert found.expected.mark == (found.packet.session.mark if found.packet.session else None)


@pytest.mark.parametrize(("number", "protocols"), ((3, {1, 33, 58, 132}), (4, {6})))
def test_an_answer_that_can_open_nothing_passes_alone(number: int, protocols: set[int]) -> None:
    """SYN-ACK, echo reply, INIT ACK: they would open the way for what the far end sends (§6.4)."""
    found = without_rule(number)
    assert found.expected.mark == found.packet.session.mark if found.packet.session else False
    assert found.packet.protocol in protocols
    assert found.packet.tcp_flags not in (0x02, 0xC2)


def test_the_agent_knows_the_generation() -> None:
    """A table that states another one is refuted by a session that is remembered under it."""
    table = table_of(compiled(POLICY))
    known = SessionMemory(mask=0xFFFF0000, generation=2, slots=("eth0", "eth1", None))
    assert prove(table, POLICY).outcome is Outcome.PROVED
    proof = prove(table, POLICY, memory=known)
    assert proof.outcome is Outcome.REFUTED


def test_what_is_not_understood_is_no_proof() -> None:
    """Nor is it a refutation."""
    proof = proof_of(compiled(POLICY), foreign=("rule accept/eth0/ingress",))
    assert (proof.outcome, proof.unsupported) == (Outcome.UNKNOWN, ("rule accept/eth0/ingress",))


def test_a_map_of_links_that_cannot_be_read_is_no_proof() -> None:
    """One with an element for any link leaves open what becomes of each."""
    on = {"eth0": "sg-web", "eth1": "sg-app", "eth2": "sg-web"}
    policy = policy_of(WEB, APPLICATION, on=on)
    table = compiled(policy)
    links = next(one for one in table.verdict_maps if one.name.startswith("links/ingress"))
    others = tuple(one for one in table.verdict_maps if one is not links)
    proof = proof_of(replace(table, verdict_maps=others), policy, foreign=(f"element in map {links.name}",))
    assert proof.outcome is Outcome.UNKNOWN


def test_a_dormant_table_is_refuted() -> None:
    """It enforces nothing."""
    assert refuted(compiled(POLICY), foreign=("table sgagent",)).found.path == ()


def test_families_are_apart() -> None:
    """What is missing for IPv6 alone is found."""
    policy = policy_of(group("sg-1", rule("r1", DROP, TCP, "22", "::/0", direction=Direction.EGRESS)))
    table = compiled(policy)
    name = "peers/eth0/egress/ipv6"
    found = refuted(with_chain(table, name, lambda rules: rules[:1] + rules[2:]), policy)
    assert found.packet.family is Family.IPV6


def with_source_check(*addresses: str) -> ResolvedPolicy:
    """Return the policy with the source check on the first link."""
    first, *others = POLICY.interfaces
    checked = replace(first, own_addresses=AddressSet.of(blocks(*addresses)))
    return replace(POLICY, interfaces=(checked, *others))


@pytest.mark.parametrize(
    "own",
    (
        ("10.0.0.11",),
        ("10.0.0.11", "10.0.8.0/28", "2001:db8::11"),
        ("198.51.100.0/24", "2001:db8::/64"),  # with the addresses that stand for everybody else
        (),
    ),
)
def test_the_source_check_is_proved(own: tuple[str, ...]) -> None:
    """For single addresses, delegated networks, and a link without an address (§12.6)."""
    policy = with_source_check(*own)
    assert proof_of(compiled(policy), policy).outcome is Outcome.PROVED


@pytest.mark.parametrize("own", (("10.0.0.11",), ("10.0.0.11", "10.0.0.12", "10.0.8.0/28")))
def test_a_table_that_checks_other_sources_is_refuted(own: tuple[str, ...]) -> None:
    """An address too few, or none checked at all."""
    policy = with_source_check("10.0.0.11", "10.0.0.12")
    for other in (with_source_check(*own), POLICY):
        assert proof_of(compiled(other), policy).outcome is Outcome.REFUTED
        assert proof_of(compiled(policy), other).outcome is Outcome.REFUTED
    counterexample = refuted(compiled(POLICY), policy)
    assert counterexample.expected.decision.decided_by is DecidedBy.SPOOFED


def test_a_proof_ends_after_so_many_parts() -> None:
    """What somebody else wrote can't keep a host busy: the outcome is unknown then."""
    table = table_of(compiled(POLICY))
    cells = prove(table, POLICY).cells
    assert prove(table, POLICY, most_cells=cells).outcome is Outcome.PROVED
    cut_off = prove(table, POLICY, most_cells=cells - 1)
    assert cut_off.outcome is Outcome.UNKNOWN
    assert cut_off.unsupported == (f"more than {cells - 1:,} parts of the packets",)


@pytest.mark.parametrize("hook", ("prerouting", "forward", "postrouting"))
@pytest.mark.parametrize("selector", (META_IIFNAME, META_OIFNAME))
@pytest.mark.parametrize("link", ("eth1", "eth9"))
def test_the_other_link_of_what_is_forwarded(hook: str, selector: Selector, link: str) -> None:
    """What a table drops by the name of either link is refuted, and the packet says both."""
    rules = (Rule((Match(selector, (Symbol(link),)), Drop())),)
    extra = Chain(name="x", hook=Hook(name=hook, hook_priority=400), rules=rules)
    table = compiled(POLICY)
    chains = tuple(sorted((*table.chains, extra), key=lambda chain: chain.name))
    proof = proof_of(replace(table, chains=chains))
    is_equivalent = (hook, selector) == ("prerouting", META_OIFNAME)
    assert proof.outcome is (Outcome.PROVED if is_equivalent else Outcome.REFUTED)
    if proof.counterexample is not None:
        packet = proof.counterexample.packet
        assert link in (packet.interface, packet.other_interface)
        assert packet.other_interface == link or not reads_other_link(selector.key, hook)


@pytest.mark.parametrize("mask", (0xFF00, 0x00FF, 0xFFFE, 0x7FFF, 0x0101, 0))
@pytest.mark.parametrize("operator", Operator)
def test_bits_of_a_port(mask: int, operator: Operator) -> None:
    """A rule that compares some of them is right where it decides as the policy does, and else refuted."""
    some = Match(TH_DPORT, (Interval.single(80 & mask),), operator, mask)
    loose = Rule((some, Count("rule/eth0/web"), Goto("accept/eth0/ingress")))
    name = "peers/eth0/ingress/ipv4"
    proof = proof_of(with_chain(compiled(POLICY), name, lambda rules: (*rules[:2], loose, *rules[2:])))
    chosen = {port for port in range(1 << 16) if (port & mask == 80 & mask) is (operator is Operator.EQUAL)}
    wrong = chosen - {80, 443}
    assert (proof.outcome is Outcome.REFUTED) is bool(wrong)
    assert proof.counterexample is None or proof.counterexample.packet.destination_port in wrong


@pytest.mark.parametrize(
    ("behind", "outcome"),
    (((), "proved"), ((Log("x", 1),), "proved"), ((Drop(),), "over"), ((Accept(),), "refuted")),
)
def test_a_limit(behind: tuple[Drop | Accept | Log, ...], outcome: str) -> None:
    """It may let a packet pass or not; both have to come to what the policy says."""
    name = "rule/eth0/lab"
    table = with_chain(compiled(POLICY), name, lambda rules: (Rule((Limit(10, 5), *behind)), *rules))
    if outcome == "over":  # what drops behind a limit, in the place of the rule that drops all
        table = with_chain(
            compiled(POLICY),
            name,
            lambda rules: (Rule((*rules[0].statements[:-1],)), Rule((Limit(1, 1), Drop()))),
        )
    proof = proof_of(table)
    assert (proof.outcome is Outcome.PROVED) is (outcome == "proved")
    if proof.counterexample is not None:
        assert (OVER_LIMIT in proof.counterexample.found.path) is (outcome == "over")


def test_fail_safes_for_everyone_and_for_one() -> None:
    """Which far ends a clause has is not taken from another clause that was made before it."""
    entries = [
        Exemption(
            direction=Direction.INGRESS, peer=CidrBlock.parse(text), protocol=UDP, ports=PortSet.of((53, 53))
        )
        for text in ("0.0.0.0/0", "192.0.2.1/32", "0.0.0.0/0", "192.0.2.2/32")
    ]
    first, *others = POLICY.interfaces
    judge = replace(first, ingress=replace(first.ingress, failsafe=tuple(entries)))
    clauses = list_box_clauses(judge, Direction.INGRESS, Family.IPV4)
    peers = [one.peers for one in clauses if one.clause.exemption in entries]
    assert peers == [None, ((0xC0000201, 0xC0000201),), None, ((0xC0000202, 0xC0000202),)]
    policy = replace(POLICY, interfaces=(judge, *others))
    assert proof_of(compiled(policy), policy).outcome is Outcome.PROVED


def test_a_rule_without_a_statement() -> None:
    """It does nothing, as one with nothing but a counter that has no name."""
    table = with_chain(compiled(POLICY), "prerouting", lambda rules: (Rule(()), *rules, Rule(())))
    assert proof_of(table).outcome is Outcome.PROVED


def test_headers_that_are_cut_off() -> None:
    """A table that drops what has no protocol is refuted by such a packet, of IPv6 and without a session."""
    loopback = Match(META_IIFNAME, (Symbol("lo"),))
    any_protocol = Match(META_L4PROTO, (Interval(0, 255),))
    lines = (Rule((loopback, any_protocol, Goto("elsewhere"))), Rule((loopback, Drop())))
    packet = refuted(with_chain(compiled(POLICY), "prerouting", lambda rules: (*lines, *rules))).packet
    assert (packet.family, packet.protocol, packet.session) == (Family.IPV6, NO_PROTOCOL, None)
    assert (packet.source_port, packet.icmp_type) == (None, None)


def test_a_rule_of_nothing_changes_nothing() -> None:
    """Netlink takes one without expressions, at the end of any chain."""
    table = compiled(POLICY)
    chains = tuple(replace(one, rules=(*one.rules, Rule(()))) for one in table.chains)
    assert prove(table_of(replace(table, chains=chains)), POLICY).outcome is Outcome.PROVED
