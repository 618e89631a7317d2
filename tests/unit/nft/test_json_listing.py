"""Listings of libnftables, in all the notations that it has, and what is foreign in them."""

from __future__ import annotations

from typing import Any

import pytest

from sgagent.nft import ruleset as r
from sgagent.nft.json_listing import decode_ruleset
from sgagent.nft.ruleset import (
    Chain,
    Counter,
    Drop,
    Element,
    Hook,
    Interval,
    KeyType,
    Limit,
    Log,
    Match,
    NamePrefix,
    Rule,
    Ruleset,
    SetMark,
    Statement,
    Symbol,
    VerdictMap,
)

Json = Any
HERE = {"family": "inet", "table": "sgagent", "handle": 7}


def decode(*entries: Json) -> tuple[Ruleset, tuple[str, ...]]:
    """Decode a listing of these objects."""
    metainfo = {"metainfo": {"version": "1.1.3", "release_name": "x", "json_schema_version": 1}}
    table = {"table": {"family": "inet", "name": "sgagent", "handle": 1, "flags": "persist"}}
    return decode_ruleset({"nftables": [metainfo, table, *entries]})


def payload(protocol: str, field: str) -> Json:
    """Return the expression that reads a header's field."""
    return {"payload": {"protocol": protocol, "field": field}}


def match(left: Json, right: Json, operator: str = "==") -> Json:
    """Return a match expression."""
    return {"match": {"op": operator, "left": left, "right": right}}


MARK = {"ct": {"key": "mark"}}

STATEMENTS: tuple[tuple[Json, Statement], ...] = (
    (match({"meta": {"key": "l4proto"}}, "tcp"), Match(r.META_L4PROTO, (Interval.single(6),))),
    (match({"meta": {"key": "l4proto"}}, "igmp"), Match(r.META_L4PROTO, (Interval.single(2),))),
    (match({"meta": {"key": "l4proto"}}, 6), Match(r.META_L4PROTO, (Interval.single(6),))),
    (match({"ct": {"key": "state"}}, "invalid", "in"), Match(r.CT_STATE, (Symbol("invalid"),))),
    (
        match({"ct": {"key": "state"}}, [4, 2], "in"),
        Match(r.CT_STATE, (Symbol("established"), Symbol("related"))),
    ),
    (
        match({"ct": {"key": "state"}}, {"set": [64, 1]}),
        Match(r.CT_STATE, (Symbol("invalid"), Symbol("untracked"))),
    ),
    (match({"meta": {"key": "iifname"}}, "br-*"), Match(r.META_IIFNAME, (NamePrefix("br-"),))),
    (
        match({"meta": {"key": "oifname"}}, {"set": ["wg*", "lo", "br-*"]}),
        Match(r.META_OIFNAME, (NamePrefix("br-"), Symbol("lo"), NamePrefix("wg"))),
    ),
    (match({"ct": {"key": "direction"}}, 1), Match(r.CT_DIRECTION, (Symbol("reply"),))),
    (match({"meta": {"key": "nfproto"}}, 10), Match(r.META_NFPROTO, (Symbol("ipv6"),))),
    (
        match({"&": [MARK, 0xFFFF0000]}, 0x10000),
        Match(r.CT_MARK, (Interval.single(0x10000),), mask=0xFFFF0000),
    ),
    (
        match(MARK, {"prefix": {"addr": 0x10000, "len": 16}}),
        Match(r.CT_MARK, (Interval(0x10000, 0x1FFFF),)),
    ),
    (
        match(payload("ip6", "saddr"), {"set": [{"prefix": {"addr": "fe80::", "len": 10}}, "::"]}),
        Match(r.IP6_SADDR, (Interval.single(0), Interval(0xFE80 << 112, (0xFEC0 << 112) - 1))),
    ),
    ({"limit": {"rate": 10, "burst": 20, "per": "second"}}, Limit(10, 20)),
    ({"log": {"prefix": "default/eth0/ingress", "group": 9469}}, Log("default/eth0/ingress", 9469)),
    ({"mangle": {"key": MARK, "value": 5}}, SetMark(keep=5, put=5)),
    ({"mangle": {"key": MARK, "value": {"|": [MARK, 5]}}}, SetMark(keep=0xFFFFFFFF, put=5)),
    ({"mangle": {"key": MARK, "value": {"&": [MARK, 0xF0]}}}, SetMark(keep=0xF0, put=0)),
    ({"mangle": {"key": MARK, "value": {"|": [{"&": [MARK, 0xF0]}, 1]}}}, SetMark(keep=0xF1, put=1)),
)


@pytest.mark.parametrize(("expression", "statement"), STATEMENTS)
def test_every_notation_of_a_statement_is_one_value(expression: Json, statement: Statement) -> None:
    """Words or numbers, prefixes or ranges, sorted or not: the value is the same."""
    chain = {"chain": {**HERE, "name": "a"}}
    rule = {"rule": {**HERE, "chain": "a", "expr": [expression, {"drop": None}]}}
    rules = (Rule((statement, Drop())),)
    assert decode(chain, rule) == (Ruleset(chains=(Chain(name="a", rules=rules),)), ())


@pytest.mark.parametrize(
    "declared",
    (
        ["inet_proto", "inet_service"],
        {"typeof": {"concat": [{"meta": {"key": "l4proto"}}, payload("th", "dport")]}},
    ),
)
def test_a_map_is_read_by_type_and_by_expression(declared: Json) -> None:
    """What a key is may be declared in either way."""
    pairs = [[{"concat": [6, 80]}, {"drop": None}]]
    listed = {**HERE, "name": "m", "type": declared, "map": "verdict", "flags": "interval", "elem": pairs}
    expected = VerdictMap(
        name="m",
        key_types=(KeyType.INET_PROTO, KeyType.INET_SERVICE),
        is_interval=True,
        elements=(Element((Interval.single(6), Interval.single(80)), Drop()),),
    )
    assert decode({"map": listed}) == (Ruleset(verdict_maps=(expected,)), ())


def test_values_of_counters_are_not_part_of_the_ruleset() -> None:
    """A counter is its name and comment."""
    counter = {**HERE, "name": "c", "comment": "mine", "packets": 7, "bytes": 420}
    assert decode({"counter": counter}) == (Ruleset(counters=(Counter(name="c", comment="mine"),)), ())


UNREADABLE_EXPRESSIONS: tuple[Json, ...] = (
    {"reject": None},
    {"jump": {"target": 5}},
    {"mangle": {"key": MARK, "value": {"^": [MARK, 5]}}},
    {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 5}},
    {"limit": {"rate": 10, "burst": 20, "per": "minute"}},
    {"limit": {"rate": 10, "burst": 20, "per": "second", "inv": True}},
    {"limit": {"rate": 10, "burst": 0, "per": "second", "rate_unit": "mbytes", "burst_unit": "bytes"}},
    {"log": None},
    {"log": {"prefix": "evil", "group": 9469, "snaplen": 65535}},
    match(payload("tcp", "flags"), 2),
    match({"meta": {"key": "iifname"}}, "eth\\*"),
    match({"meta": {"key": "iifname"}}, "*"),
    match({"meta": {"key": "iifname"}}, 7),
    match({"rt": {"key": "mtu"}}, 5),
    match({"ct": {"key": "state"}}, 3),
    match({"meta": {"key": "l4proto"}}, "nonsense"),
    match(payload("ip", "saddr"), "host.example"),
    match(payload("ip", "saddr"), {"set": "@list"}),
    match(payload("tcp", "dport"), "ssh"),
    match(payload("tcp", "dport"), right=True),
    match(payload("ip6", "saddr"), right=True),
    match(payload("ip6", "saddr"), 1),
    match(payload("tcp", "dport"), {"elem": {"val": 22, "comment": "mine"}}),
    match(payload("tcp", "dport"), 22, "<"),
    match({"concat": [payload("ip", "saddr"), payload("tcp", "dport")]}, {"set": []}, "!="),
)


@pytest.mark.parametrize("expression", UNREADABLE_EXPRESSIONS)
def test_a_rule_that_is_not_ours_is_named_by_its_chain(expression: Json) -> None:
    """The chain is read without it."""
    chain = {"chain": {**HERE, "name": "a"}}
    rule = {"rule": {**HERE, "chain": "a", "expr": [expression]}}
    assert decode(chain, rule) == (Ruleset(chains=(Chain(name="a"),)), ("rule a",))


HOOKED = {**HERE, "name": "x", "type": "filter", "hook": "prerouting", "prio": -150, "policy": "accept"}
MAP = {**HERE, "name": "x", "type": "ipv4_addr", "map": "verdict"}


@pytest.mark.parametrize(
    ("entry", "name"),
    (
        ({"chain": {**HOOKED, "type": "nat"}}, "chain x"),
        ({"chain": {**HOOKED, "dev": "eth0"}}, "chain x"),
        ({"chain": {**HOOKED, "prio": "raw"}}, "chain x"),
        ({"map": {**MAP, "map": "mark"}}, "map x"),
        ({"map": {**MAP, "type": "ether_addr"}}, "map x"),
        ({"map": {**MAP, "flags": ["timeout"]}}, "map x"),
        ({"map": {**MAP, "size": 5}}, "map x"),
        ({"map": {**MAP, "elem": [["192.0.2.1", {"continue": None}]]}}, "map x"),
        ({"set": {**HERE, "name": "x", "type": "ipv4_addr"}}, "set x"),
        ({"ct helper": {**HERE, "name": "x", "type": "ftp"}}, "ct helper x"),
    ),
)
def test_an_object_that_is_not_ours_is_named_and_left_out(entry: Json, name: str) -> None:
    """What sgagent would never make is for the plan to remove."""
    assert decode(entry) == (Ruleset(), (name,))


def test_a_policy_of_drop_is_foreign_and_its_chain_is_not() -> None:
    """The chain stands, so that it need not be made anew for its policy."""
    ruleset, foreign = decode({"chain": {**HOOKED, "policy": "drop"}})
    assert ruleset.chains == (Chain(name="x", hook=Hook(name="prerouting", hook_priority=-150)),)
    assert foreign == ("policy x",)


def test_a_table_that_sleeps_is_foreign() -> None:
    """A dormant table holds everything and enforces nothing."""
    table = {"table": {"family": "inet", "name": "sgagent", "handle": 1, "flags": ["dormant", "persist"]}}
    assert decode_ruleset({"nftables": [table]}) == (Ruleset(), ("table sgagent",))
