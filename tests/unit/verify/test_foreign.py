"""Filters that somebody wrote by hand are compared with a policy."""

from __future__ import annotations

from typing import Any

from sgagent.core.model import TCP, Policy
from sgagent.verify.foreign import compare_filters
from sgagent.verify.listing import read_filters
from sgagent.verify.proof import Outcome, Proof
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


def compared(*listings: dict[str, Any]) -> Proof:
    """Compare what several listings have with the policy."""
    together = {"nftables": [entry for one in listings for entry in one["nftables"]]}
    return compare_filters(read_filters(together), POLICY)


def test_a_filter_that_does_what_the_policy_says() -> None:
    """Its policy drops the rest, its sessions live on."""
    assert compared(listing(WEB, SSH)).outcome is Outcome.PROVED


def test_a_filter_that_is_almost_right() -> None:
    """The packet shows what a migration would change."""
    proof = compared(listing(WEB, [match(field("tcp", "dport"), 22), {"accept": None}]))
    assert proof.counterexample is not None
    packet = proof.counterexample.packet
    assert (packet.protocol, packet.destination_port) == (6, 22)
    assert packet.source >> 8 != 0xC00002
    assert proof.counterexample.expected.verdict is Policy.DROP
    assert proof.counterexample.found.path == ("inet filter input",)


def test_what_is_forwarded() -> None:
    """As soon as a filter looks at it, that filter is compared as well."""
    proof = compared(listing(WEB, SSH), listing(WEB, hook="forward"))
    assert proof.counterexample is not None
    assert proof.counterexample.found.path == ("inet filter forward",)


def test_a_filter_that_is_not_understood() -> None:
    """What it reads is named, and nothing is guessed."""
    proof = compared(listing(WEB, SSH, [match(field("icmp", "code"), 3), {"accept": None}]))
    assert proof.outcome is Outcome.UNKNOWN
    assert proof.unsupported == ("icmp code in chain inet filter input",)
    out = [match({"meta": {"key": "oifname"}}, "eth9"), {"accept": None}]
    proof = compared(listing(WEB, SSH), listing(WEB, SSH, out, hook="forward"))
    assert proof.unsupported == ("meta oifname of what is forwarded",)
