"""Filters that somebody wrote by hand are compared with a policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sgagent.analysis.flow_text import port_text
from sgagent.core.link_patterns import LinkPattern
from sgagent.core.model import ICMP, TCP, Direction, Family, Mode, Policy
from sgagent.core.policy import ResolvedPattern, ResolvedPolicy
from sgagent.verify import Outcome
from sgagent.verify.foreign import FilterChange, FilterComparison, compare_filters
from sgagent.verify.listing import read_filters
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
OURS = {"family": "inet", "table": "filter"}


def match(left: Any, right: Any, operator: str = "==") -> dict[str, Any]:  # noqa: ANN401 - still JSON
    """Return a comparison of a listing."""
    return {"match": {"op": operator, "left": left, "right": right}}


def field(protocol: str, name: str) -> dict[str, Any]:
    """Return a field of a header."""
    return {"payload": {"protocol": protocol, "field": name}}


IPV4, IPV6 = (match({"meta": {"key": "nfproto"}}, family) for family in ("ipv4", "ipv6"))
STATE = {"ct": {"key": "state"}}
NETWORK = {"prefix": {"addr": "192.0.2.0", "len": 24}}
HEAD: list[list[Any]] = [
    [match(STATE, ["established", "related"], "in"), {"accept": None}],
    [match(STATE, "invalid", "in"), {"drop": None}],
    [match({"meta": {"key": "iifname"}}, "lo"), {"accept": None}],
    [IPV4, match(field("udp", "sport"), 67), match(field("udp", "dport"), 68), {"accept": None}],
    [IPV6, match(field("udp", "sport"), 547), match(field("udp", "dport"), 546), {"accept": None}],
    [
        match(field("icmpv6", "type"), {"range": [133, 136]}),
        match(field("ip6", "hoplimit"), 255),
        {"accept": None},
    ],
    *(
        [
            match(field("icmpv6", "type"), types),
            match(field("ip6", "hoplimit"), 1),
            match(field("ip6", "saddr"), source),
            {"accept": None},
        ]
        for types in ({"range": [130, 132]}, 143)
        for source in ("::", {"prefix": {"addr": "fe80::", "len": 10}})
    ),
]
WEB = [match(field("tcp", "dport"), 80), {"accept": None}]
SSH = [match(field("ip", "saddr"), NETWORK), match(field("tcp", "dport"), 22), {"accept": None}]


def listing(*lines: list[Any], hook: str = "input") -> dict[str, Any]:
    """Return the listing of a table that drops what comes in unless a line accepts it."""
    chain = {**OURS, "name": hook, "type": "filter", "hook": hook, "prio": 0, "policy": "drop"}
    rules = [{"rule": {**OURS, "chain": hook, "expr": line}} for line in (*HEAD, *lines)]
    return {"nftables": [{"table": {"family": "inet", "name": "filter"}}, {"chain": chain}, *rules]}


def compared(*listings: dict[str, Any]) -> FilterComparison:
    """Compare what several listings have with the policy."""
    together = {"nftables": [entry for one in listings for entry in one["nftables"]]}
    return compare_filters(read_filters(together), POLICY)


def test_a_policy_that_observes_is_compared_as_if_it_were_enforced() -> None:
    """Also one of links that a pattern means: it is what the filters are to be replaced by."""
    judge = replace(POLICY.interfaces[0], name="et*", mode=Mode.OBSERVE)
    pattern = ResolvedPattern(pattern=LinkPattern(text="et*"), judge=judge)
    filters = read_filters(listing(WEB, SSH))
    assert compare_filters(filters, ResolvedPolicy(patterns=(pattern,))).proof.outcome is Outcome.PROVED
    without = read_filters(listing(WEB))
    assert {one.verdict for one in compare_filters(without, ResolvedPolicy(patterns=(pattern,))).changes} == {
        ACCEPT
    }


def test_a_filter_that_does_what_the_policy_says() -> None:
    """Its policy drops the rest, its sessions live on."""
    comparison = compared(listing(WEB, SSH))
    assert comparison.proof.outcome is Outcome.PROVED
    assert (comparison.changes, comparison.is_whole, comparison.not_compared) == ((), True, ())


def test_a_filter_that_is_almost_right() -> None:
    """The packet shows what a migration would change."""
    comparison = compared(listing(WEB, [match(field("tcp", "dport"), 22), {"accept": None}]))
    proof = comparison.proof
    assert proof.counterexample is not None
    packet = proof.counterexample.packet
    assert (packet.protocol, packet.destination_port) == (6, 22)
    assert packet.source >> 8 != 0xC00002
    assert proof.counterexample.expected.verdict is Policy.DROP
    assert proof.counterexample.found.path == ("inet filter input",)


def test_what_is_forwarded() -> None:
    """As soon as a filter looks at it, that filter is compared as well."""
    proof = compared(listing(WEB, SSH), listing(WEB, hook="forward")).proof
    assert proof.counterexample is not None
    assert proof.counterexample.found.path == ("inet filter forward",)


def test_the_packets_that_would_change() -> None:
    """All of them, with what is alike put together: by who decides, whom it concerns, and ports."""
    comparison = compared(listing(WEB, [match(field("tcp", "dport"), {"range": [22, 25]}), {"accept": None}]))
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
    ours, bits = match({"ct": {"key": "mark"}}, 1), match({"&": [{"ct": {"key": "mark"}}, 0xF0]}, 0x10)
    for chosen, marks in (
        (ours, "0x1"),
        (bits, "0x10/0xf0"),
        (match({"ct": {"key": "mark"}}, 1, "!="), "all but 0x1"),
    ):
        changes = compared(listing(WEB, SSH, [chosen, {"accept": None}])).changes
        assert {one.marks for one in changes if one.kinds != ("untracked",)} == {marks}
    kept = compared(listing([match({"ct": {"key": "mark"}}, 1), {"drop": None}], WEB, SSH)).changes
    assert {(one.verdict, one.marks) for one in kept} == {(ACCEPT, "0x1")}


def test_the_other_link_of_what_is_forwarded() -> None:
    """Whatever is forwarded elsewhere is dropped, and the policy knows no other link."""
    to_bridge = [match({"meta": {"key": "oifname"}}, "br0"), {"accept": None}]
    comparison = compared(listing(WEB, SSH), listing(WEB, to_bridge, hook="forward"))
    opened = [one for one in comparison.changes if is_web_from_anywhere(one)]
    assert opened == []
    closed = [one for one in comparison.changes if one.verdict is Policy.DROP and one.family is Family.IPV4]
    assert {(one.ways, one.other_links) for one in closed} == {(("forwarded",), ("br0",))}


def is_web_from_anywhere(change: FilterChange) -> bool:
    """Return whether a change is about what both the filter and the policy accept."""
    return change.ports == ((80, 80),) and change.direction is Direction.INGRESS


def test_nat_is_not_looked_at() -> None:
    """And that is said; a base chain of another kind is not understood."""
    chain = {**OURS, "name": "nat", "type": "nat", "hook": "prerouting", "prio": -100}
    rule_of_it = {**OURS, "chain": "nat", "expr": [{"redirect": {"port": 80}}]}
    nat = {"nftables": [{"chain": chain}, {"rule": rule_of_it}]}
    comparison = compared(listing(WEB, SSH), nat)
    assert comparison.proof.outcome is Outcome.PROVED
    assert comparison.not_compared == ("chain inet filter nat",)
    chain["type"] = "route"
    assert compared(listing(WEB, SSH), nat).proof.unsupported == ("chain inet filter nat",)


def test_a_ping_is_the_request_that_opens_a_session() -> None:
    """Conntrack opens one for four types of ICMP, so that no packet of another type is new."""
    policy = policy_of(group("sg-1", rule("ping", ACCEPT, ICMP, "", "0.0.0.0/0"), inner=DROP))
    for types, left in ((8, "13, 15, 17"), ({"range": [0, 255]}, ""), ({"set": [8, 13, 15, 17]}, "")):
        filters = read_filters(listing([match(field("icmp", "type"), types), {"accept": None}]))
        changes = compare_filters(filters, policy).changes
        opened = [one for one in changes if one.verdict is ACCEPT and "new" in one.kinds]
        assert [port_text(one.others["icmp type"]) for one in opened] == [left][: bool(left)]


def test_before_conntrack_no_packet_has_a_session() -> None:
    """There each is invalid to a filter that asks."""
    drop = [match(STATE, "invalid", "in"), {"drop": None}]
    for hook in ("prerouting", "output"):
        chain = {**OURS, "name": "raw", "type": "filter", "hook": hook, "prio": -300}
        raw = {"nftables": [{"chain": chain}, {"rule": {**OURS, "chain": "raw", "expr": drop}}]}
        named = ("ct before conntrack in chain inet filter raw",)
        assert compared(listing(WEB, SSH), raw).proof.unsupported == named
        chain["prio"] = -150
        assert compared(listing(WEB, SSH), raw).proof.outcome is Outcome.PROVED


def test_a_filter_that_is_not_understood() -> None:
    """What it reads is named, and nothing is guessed."""
    proof = compared(listing(WEB, SSH, [match(field("icmp", "code"), 3), {"accept": None}])).proof
    assert proof.outcome is Outcome.UNKNOWN
    assert proof.unsupported == ("icmp code in chain inet filter input",)
    out = [match({"meta": {"key": "oifname"}}, "eth9"), {"accept": None}]
    comparison = compared(listing(WEB, SSH), listing(WEB, SSH, out, hook="prerouting"))
    assert comparison.proof.unsupported == ("meta oifname at prerouting",)
