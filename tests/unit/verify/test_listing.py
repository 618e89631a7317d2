"""Tables are read as libnftables lists them, more than sgagent writes; the rest is named."""

from __future__ import annotations

from typing import Any

import pytest

from sgagent.nft import ruleset as nft
from sgagent.nft.ruleset import Accept, Drop, Element, Interval, Jump, LookUp, Match, Operator, Symbol
from sgagent.verify.listing import ICMP_TYPE, read_filters, read_listing
from sgagent.verify.verified_table import BaseHook, Return, VerifiedTable

OURS = {"family": "inet", "table": "sgagent"}
BASE = {"chain": {**OURS, "name": "base", "type": "filter", "hook": "prerouting", "prio": -150}}


def rule(*expressions: Any, chain: str = "base") -> dict[str, Any]:  # noqa: ANN401 - still JSON
    """Return a rule of a listing."""
    return {"rule": {**OURS, "chain": chain, "expr": list(expressions)}}


def read(*entries: dict[str, Any]) -> VerifiedTable:
    """Return the table of a listing with a base chain."""
    return read_listing(
        {"nftables": [{"metainfo": {}}, {"table": {"family": "inet", "name": "sgagent"}}, BASE, *entries]}
    )


def match(left: Any, right: Any, operator: str = "==") -> dict[str, Any]:  # noqa: ANN401 - still JSON
    """Return a comparison of a listing."""
    return {"match": {"op": operator, "left": left, "right": right}}


SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}


def test_what_sgagent_does_not_write_but_everybody_does() -> None:
    """Return, reject, counters and logs without a name, comments."""
    table = read(
        rule({"counter": {"packets": 1, "bytes": 2}}, {"return": None}),
        rule({"log": None}, {"reject": {"type": "tcp reset"}}),
        {"rule": {**OURS, "chain": "base", "comment": "mine", "expr": [{"accept": None}]}},
    )
    assert table.chains["base"].rules == ((Return(),), (Drop(),), (Accept(),))
    assert table.unsupported == ()


@pytest.mark.parametrize(
    ("right", "values"),
    (
        ("echo-request", (Interval.single(8),)),
        (8, (Interval.single(8),)),
        ({"set": ["echo-reply", {"range": [11, 12]}]}, (Interval.single(0), Interval(11, 12))),
    ),
)
def test_types_of_icmp_by_name_and_number(right: Any, values: tuple[Interval, ...]) -> None:  # noqa: ANN401 - JSON
    """As a listing has them that was not asked for numbers, or was."""
    left = {"payload": {"protocol": "icmp", "field": "type"}}
    assert read(rule(match(left, right))).chains["base"].rules == (((Match(ICMP_TYPE, values)),),)


def test_a_type_that_nobody_knows_is_named() -> None:
    """It is not guessed."""
    left = {"payload": {"protocol": "icmpv6", "field": "type"}}
    assert read(rule(match(left, "no-such-type"))).unsupported == ("icmpv6 type in chain base",)


def test_a_map_within_a_rule() -> None:
    """It is looked up like a named one."""
    states = {"set": [["established", {"accept": None}], ["new", {"jump": {"target": "sub"}}]]}
    table = read(
        {"chain": {**OURS, "name": "sub"}}, rule({"vmap": {"key": {"ct": {"key": "state"}}, "data": states}})
    )
    (look_up,) = table.chains["base"].rules[0]
    assert isinstance(look_up, LookUp)
    assert table.verdict_maps[look_up.verdict_map].elements == (
        Element((Symbol("established"),), Accept()),
        Element((Symbol("new"),), Jump("sub")),
    )
    assert table.reached == ("base", "sub")


def test_a_named_set() -> None:
    """A comparison with it is one with its elements, unless these change by themselves."""
    values = [{"prefix": {"addr": "10.0.0.0", "len": 8}}, "192.0.2.1"]
    addresses = {"set": {**OURS, "name": "a", "type": "ipv4_addr", "flags": ["interval"], "elem": values}}
    table = read(rule(match(SADDR, "@a", "!="), {"drop": None}), addresses)
    wanted = (Interval(0x0A000000, 0x0AFFFFFF), Interval.single(0xC0000201))
    assert table.chains["base"].rules[0][0] == Match(nft.IP_SADDR, wanted, Operator.NOT_EQUAL)
    addresses["set"]["flags"] = ["timeout"]
    assert read(rule(match(SADDR, "@a")), addresses).unsupported == ("ip saddr in chain base",)


@pytest.mark.parametrize(
    ("expression", "name"),
    (
        (match({"meta": {"key": "mark"}}, 1), "meta mark in chain base"),
        (match({"payload": {"protocol": "tcp", "field": "flags"}}, "syn"), "tcp flags in chain base"),
        (match({"meta": {"key": "iifname"}}, "eth\\*"), "meta iifname in chain base"),
        (match({"&": [SADDR, 255]}, "0.0.0.1"), "mask in chain base"),
        ({"notrack": None}, "notrack in chain base"),
        ({"vmap": {"key": SADDR, "data": "@none"}}, "map none"),
    ),
)
def test_what_is_not_understood_is_named(expression: dict[str, Any], name: str) -> None:
    """By what it is and where, so that a person finds it."""
    assert read(rule(expression, {"accept": None})).unsupported == (name,)


@pytest.mark.parametrize(
    ("operator", "number", "values"),
    (
        ("<", 80, (Interval(0, 79),)),
        ("<=", 80, (Interval(0, 80),)),
        (">", 80, (Interval(81, 65535),)),
        (">=", 80, (Interval(80, 65535),)),
        ("<", 0, None),
        (">", 65535, None),
    ),
)
def test_comparisons_by_order(operator: str, number: int, values: tuple[Interval, ...] | None) -> None:
    """They are intervals; one that nothing meets is no rule that people write, and named."""
    left = {"payload": {"protocol": "tcp", "field": "dport"}}
    table = read(rule(match(left, number, operator), {"drop": None}))
    if values is None:
        assert table.unsupported == ("tcp dport in chain base",)
    else:
        (found, _) = table.chains["base"].rules[0]
        assert isinstance(found, Match)
        assert (found.values, found.operator) == (values, Operator.EQUAL)


def test_counters_and_limits() -> None:
    """A counter without a name is nothing; one that a map chooses is not understood; any limit is."""
    port = {"payload": {"protocol": "tcp", "field": "dport"}}
    chosen = {"counter": {"map": {"key": port, "data": {"set": [[80, "c"]]}}}}
    assert read(rule(chosen)).unsupported == ("counter in chain base",)
    limit = {"limit": {"rate": 5, "burst": 0, "per": "minute", "inv": True, "rate_unit": "kbytes"}}
    table = read(
        rule(limit, {"counter": {"packets": 0, "bytes": 0}}, {"drop": None}), rule({"counter": None})
    )
    first, second = table.chains["base"].rules
    assert [type(one) for one in first] == [nft.Limit, Drop]
    assert second == ()


def test_base_chains_of_one_priority() -> None:
    """The kernel calls the newest first, which is listed last."""
    newer = {"chain": {**BASE["chain"], "name": "a"}}
    assert [chain.name for chain in read(newer).base_chains["prerouting"]] == ["a", "base"]


def test_what_nothing_reaches_is_not_named() -> None:
    """Sets, maps and chains that no packet gets to have no effect."""
    table = read(
        {"set": {**OURS, "name": "s", "type": "mark", "flags": ["dynamic"]}},
        {"map": {**OURS, "name": "m", "type": "mark", "map": "mark"}},
        {"chain": {**OURS, "name": "unused"}},
        rule({"queue": None}, chain="unused"),
        {"chain": {**OURS, "name": "nat", "type": "nat", "hook": "prerouting", "prio": -100}},
    )
    assert table.unsupported == ()


def test_a_base_chain_of_another_kind() -> None:
    """As soon as it has rules, it is named."""
    nat = {"chain": {**OURS, "name": "nat", "type": "nat", "hook": "prerouting", "prio": -100}}
    assert read(nat, rule({"accept": None}, chain="nat")).unsupported == ("chain nat",)


def test_the_policy_and_priority_of_a_base_chain() -> None:
    """Both are read."""
    drops = {"chain": {**BASE["chain"], "name": "drops", "policy": "drop", "prio": 7}}
    table = read(drops)
    assert table.chains["drops"].hook == BaseHook(name="prerouting", priority=7, drops=True)
    assert table.chains["base"].hook == BaseHook(name="prerouting", priority=-150)


def test_a_dormant_table() -> None:
    """It has no base chains that the kernel calls."""
    table = {"table": {"family": "inet", "name": "sgagent", "flags": ["dormant"]}}
    assert read_listing({"nftables": [table, BASE]}).is_dormant


def test_other_tables() -> None:
    """They are left out, or read together with names that tell them apart."""
    foreign = {"family": "ip", "table": "t"}
    listing = {
        "nftables": [
            {"table": {"family": "inet", "name": "sgagent"}},
            BASE,
            {"table": {"family": "ip", "name": "t"}},
            {"chain": {**foreign, "name": "base", "type": "filter", "hook": "input", "prio": 0}},
            {"chain": {**foreign, "name": "sub"}},
            {"rule": {**foreign, "chain": "base", "expr": [{"jump": {"target": "sub"}}]}},
            {"table": {"family": "bridge", "name": "b"}},
        ]
    }
    assert set(read_listing(listing).chains) == {"base"}
    everything = read_filters(listing)
    assert set(everything.chains) == {"inet sgagent base", "ip t base", "ip t sub"}
    of_others = Match(nft.META_NFPROTO, (Symbol("ipv4"),), Operator.NOT_EQUAL)
    assert everything.chains["ip t base"].rules == ((of_others, Accept()), (Jump("ip t sub"),))
    assert everything.unsupported == ("table bridge b",)


@pytest.mark.parametrize("policy", ("accept", "drop"))
def test_a_base_chain_of_another_kind_matters_by_its_policy(policy: str) -> None:
    """Without a rule, too, it may drop all that a link receives."""
    chain = {**OURS, "name": "early", "type": "filter", "hook": "ingress", "prio": 0, "dev": "eth0"}
    table = read({"chain": {**chain, "policy": policy}})
    assert table.unsupported == (("chain early",) if policy == "drop" else ())


@pytest.mark.parametrize("kept", (0, 16))
def test_a_change_that_reads_the_mark_is_no_constant(kept: int) -> None:
    """Without a session, its rule ends there, and that of a constant goes on."""
    mark = {"ct": {"key": "mark"}}
    changed = {"|": [{"&": [mark, kept | 16]}, 16]} if kept else {"&": [mark, 0]}
    table = read(rule({"mangle": {"key": mark, "value": changed}}, {"drop": None}))
    assert table.unsupported
    assert not read(rule({"mangle": {"key": mark, "value": kept}}, {"drop": None})).unsupported


GOTO = {"goto": {"target": "sub"}}


def test_what_no_kernel_takes_is_named() -> None:
    """A text may lead to a chain that is not there, or round in a circle."""
    assert read(rule(GOTO)).unsupported == ("chain sub",)
    circle = read({"chain": {**OURS, "name": "sub"}}, rule(GOTO), rule(GOTO, chain="sub"))
    assert circle.unsupported == ("chains more than 17 deep",)
