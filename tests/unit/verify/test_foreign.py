"""Filters that somebody wrote by hand are compared with a policy."""

from __future__ import annotations

from dataclasses import replace

from sgagent.analysis.flow_text import port_text
from sgagent.core.link_patterns import LinkPattern
from sgagent.core.model import ICMP, TCP, UDP, Direction, Family, Mode, Policy
from sgagent.core.policy import ResolvedPattern, ResolvedPolicy
from sgagent.nft import ruleset as nft
from sgagent.nft.fields import ICMP_TYPE
from sgagent.nft.ruleset import Accept, Drop, Interval, Match, Operator, Symbol
from sgagent.verify import Outcome
from sgagent.verify.foreign import FilterChange, FilterComparison, compare_filters
from sgagent.verify.verified_table import BaseHook, Unread, VerifiedChain, VerifiedStatement, VerifiedTable
from tests.words import ACCEPT, DROP, group, policy_of, rule

POLICY = policy_of(
    group(
        "sg-1",
        rule("web", ACCEPT, TCP, "80", "0.0.0.0/0"),
        rule("ssh", ACCEPT, TCP, "22", "192.0.2.0/24"),
        rule("web6", ACCEPT, TCP, "80", "::/0"),
        inner=DROP,
    )
)
Line = tuple[VerifiedStatement, ...]


def match(selector: nft.Selector, *values: int | str | tuple[int, int]) -> Match:
    """Return a comparison with numbers, words or intervals."""
    made: list[Interval | Symbol] = []
    for value in values:
        match value:
            case int():
                made.append(Interval.single(value))
            case str():
                made.append(Symbol(value))
            case (first, last):
                made.append(Interval(first, last))
    return Match(selector, tuple(made))


def dport(*values: int | tuple[int, int]) -> Match:
    """Return a comparison of TCP's destination port."""
    return match(nft.destination_port(TCP), *values)


def dhcp(family: str, source: int, destination: int) -> Line:
    """Return what accepts DHCP."""
    ports = match(nft.source_port(UDP), source), match(nft.destination_port(UDP), destination)
    return (match(nft.META_NFPROTO, family), *ports, Accept())


LINK_LOCAL = (0xFE80 << 112, (0xFEC0 << 112) - 1)
HEAD: tuple[Line, ...] = (
    (match(nft.CT_STATE, "established", "related"), Accept()),
    (match(nft.CT_STATE, "invalid"), Drop()),
    (match(nft.META_IIFNAME, "lo"), Accept()),
    dhcp("ipv4", 67, 68),
    dhcp("ipv6", 547, 546),
    (match(nft.ICMPV6_TYPE, (133, 136)), match(nft.IP6_HOPLIMIT, 255), Accept()),
    *(
        (match(nft.ICMPV6_TYPE, types), match(nft.IP6_HOPLIMIT, 1), match(nft.IP6_SADDR, source), Accept())
        for types in ((130, 132), (143, 143))
        for source in ((0, 0), LINK_LOCAL)
    ),
)
WEB: Line = (dport(80), Accept())
SSH: Line = (match(nft.IP_SADDR, (0xC0000200, 0xC00002FF)), dport(22), Accept())


def filters(*lines: Line, hook: str = "input") -> VerifiedTable:
    """Return a table that drops what comes in unless a line accepts it."""
    return table_with(f"inet filter {hook}", BaseHook(name=hook, priority=0, drops=True), *HEAD, *lines)


def table_with(name: str, hook: BaseHook, *lines: Line) -> VerifiedTable:
    """Return a table with one chain."""
    return VerifiedTable(chains={name: VerifiedChain(name=name, rules=lines, hook=hook)}, verdict_maps={})


def compared(*tables: VerifiedTable) -> FilterComparison:
    """Compare what several tables have with the policy."""
    first, *others = tables
    for other in others:
        first = replace(
            first,
            chains=first.chains | other.chains,
            unread=(*first.unread, *other.unread),
            translating=(*first.translating, *other.translating),
        )
    return compare_filters(first, POLICY)


def test_a_policy_that_observes_is_compared_as_if_it_were_enforced() -> None:
    """Also one of links that a pattern means: it is what the filters are to be replaced by."""
    judge = replace(POLICY.interfaces[0], name="et*", mode=Mode.OBSERVE)
    pattern = ResolvedPattern(pattern=LinkPattern(text="et*"), judge=judge)
    policy = ResolvedPolicy(patterns=(pattern,))
    assert compare_filters(filters(WEB, SSH), policy).proof.outcome is Outcome.PROVED
    assert {one.verdict for one in compare_filters(filters(WEB), policy).changes} == {ACCEPT}


def test_a_filter_that_does_what_the_policy_says() -> None:
    """Its policy drops the rest, its sessions live on."""
    comparison = compared(filters(WEB, SSH))
    assert comparison.proof.outcome is Outcome.PROVED
    assert (comparison.changes, comparison.is_whole, comparison.not_compared) == ((), True, ())


def test_a_filter_that_is_almost_right() -> None:
    """The packet shows what a migration would change."""
    proof = compared(filters(WEB, (dport(22), Accept()))).proof
    assert proof.counterexample is not None
    packet = proof.counterexample.packet
    assert (packet.protocol, packet.destination_port) == (6, 22)
    assert packet.source >> 8 != 0xC00002
    assert proof.counterexample.expected.verdict is Policy.DROP
    assert proof.counterexample.found.path == ("inet filter input",)


def test_what_is_forwarded() -> None:
    """As soon as a filter looks at it, that filter is compared as well."""
    assert not compared(filters(WEB, SSH)).with_forwarded
    comparison = compared(filters(WEB, SSH), filters(WEB, hook="forward"))
    proof = comparison.proof
    assert comparison.with_forwarded
    assert proof.counterexample is not None
    assert proof.counterexample.found.path == ("inet filter forward",)


def test_the_packets_that_would_change() -> None:
    """All of them, with what is alike put together: by who decides, whom it concerns, and ports."""
    comparison = compared(filters(WEB, (dport((22, 25)), Accept())))
    network = (0xC0000200, 0xC00002FF)
    others = (0, network[0] - 1), (network[1] + 1, Family.IPV4.last_address)
    assert [(one.far_ends, one.ports) for one in comparison.changes] == [
        (others, ((22, 25),)),
        ((network,), ((23, 25),)),
        (((0, Family.IPV6.last_address),), ((22, 25),)),
    ]
    for change in comparison.changes:
        assert (change.protocols, change.others, change.ways) == (((6, 6),), {}, ())
        assert (change.kinds, change.verdict) == (("new", "untracked"), Policy.DROP)


def test_a_difference_says_which_marks_it_is_for() -> None:
    """A filter may accept some marks alone, which no packet of a session that opens need have."""
    ours = match(nft.CT_MARK, 1)
    bits = replace(match(nft.CT_MARK, 0x10), mask=0xF0)
    for chosen, marks in (
        (ours, "0x1"),
        (bits, "0x10/0xf0"),
        (replace(ours, operator=Operator.NOT_EQUAL), "all but 0x1"),
    ):
        changes = compared(filters(WEB, SSH, (chosen, Accept()))).changes
        assert {one.marks for one in changes if one.kinds != ("untracked",)} == {marks}
    kept = compared(filters((ours, Drop()), WEB, SSH)).changes
    assert {(one.verdict, one.marks) for one in kept} == {(ACCEPT, "0x1")}


def test_the_other_link_of_what_is_forwarded() -> None:
    """Whatever is forwarded elsewhere is dropped, and the policy knows no other link."""
    to_bridge = match(nft.META_OIFNAME, "br0"), Accept()
    comparison = compared(filters(WEB, SSH), filters(WEB, to_bridge, hook="forward"))
    opened = [one for one in comparison.changes if is_web_from_anywhere(one)]
    assert opened == []
    closed = [one for one in comparison.changes if one.verdict is Policy.DROP and one.family is Family.IPV4]
    assert {(one.ways, one.other_links) for one in closed} == {(("forwarded",), ("br0",))}


def is_web_from_anywhere(change: FilterChange) -> bool:
    """Return whether a change is about what both the filter and the policy accept."""
    return change.ports == ((80, 80),) and change.direction is Direction.INGRESS


def test_nat_is_not_looked_at() -> None:
    """And that is said; a base chain of another kind is not understood."""
    name = "chain inet filter nat"
    nat = VerifiedTable(chains={}, verdict_maps={}, unread=(name,), translating=(name,))
    comparison = compared(filters(WEB, SSH), nat)
    assert comparison.proof.outcome is Outcome.PROVED
    assert comparison.not_compared == (name,)
    assert compared(filters(WEB, SSH), replace(nat, translating=())).proof.unsupported == (name,)


def test_a_ping_is_the_request_that_opens_a_session() -> None:
    """Conntrack opens one for four types of ICMP, so that no packet of another type is new."""
    policy = policy_of(group("sg-1", rule("ping", ACCEPT, ICMP, "", "0.0.0.0/0"), inner=DROP))
    for types, left in (((8,), "13, 15, 17"), (((0, 255),), ""), ((8, 13, 15, 17), "")):
        changes = compare_filters(filters((match(ICMP_TYPE, *types), Accept())), policy).changes
        opened = [one for one in changes if one.verdict is ACCEPT and "new" in one.kinds]
        assert [port_text(one.others["icmp type"]) for one in opened] == [left][: bool(left)]


def test_before_conntrack_no_packet_has_a_session() -> None:
    """There each is invalid to a filter that asks."""
    for hook in ("prerouting", "output"):
        for priority, named in ((-300, ("ct before conntrack in chain inet filter raw",)), (-150, ())):
            base = BaseHook(name=hook, priority=priority)
            raw = table_with("inet filter raw", base, (match(nft.CT_STATE, "invalid"), Drop()))
            assert compared(filters(WEB, SSH), raw).proof.unsupported == named


def test_before_conntrack_there_is_no_mark_to_set() -> None:
    """So what a chain there sets, or one that it leads to, is not taken for the mark of the session."""
    setter = VerifiedChain(name="inet filter setter", rules=((nft.SetMark(keep=0, put=1), Accept()),))
    for hook in ("prerouting", "output"):
        raw = table_with("inet filter raw", BaseHook(name=hook, priority=-300), (nft.Goto(setter.name),))
        raw = replace(raw, chains=raw.chains | {setter.name: setter})
        unsupported = compared(filters(WEB, SSH), raw).proof.unsupported
        assert unsupported == ("ct before conntrack in chain inet filter raw",)


def test_a_filter_that_is_not_understood() -> None:
    """What it reads is named, and nothing is guessed."""
    name = "@th,8,8 in chain inet filter input"
    proof = compared(filters(WEB, SSH, (Unread(name),))).proof
    assert proof.outcome is Outcome.UNKNOWN
    assert proof.unsupported == (name,)


def test_changes_are_whole_only_where_all_is_understood() -> None:
    """Where a filter is unknown, there may be more than those that were found; nothing else is left out."""
    unknown = compared(filters(WEB, SSH, (Unread("@th,8,8"),)))
    assert (unknown.is_whole, unknown.with_forwarded) == (False, True)
    assert compared(filters(WEB)).is_whole


def test_prerouting_knows_no_link_outwards() -> None:
    """So nothing there has a name of one; of what is forwarded, the chains behind it know it."""
    out = match(nft.META_OIFNAME, "eth9"), Accept()
    local = filters(WEB, SSH), filters(WEB, SSH, out, hook="prerouting")
    assert compared(*local).proof.unsupported == ()
    comparison = compared(*local, filters(WEB, SSH, out, hook="forward"))
    assert comparison.proof.unsupported == ("meta oifname at prerouting",)
