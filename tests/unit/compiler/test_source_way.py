"""The way to the source is opened in a table of unknown policy, and nothing else of it is changed (§7.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.compiler.enforce import enforce
from sgagent.compiler.source_way import chains_of_others, close_way, open_way
from sgagent.core.endpoints import Endpoint, exempt
from sgagent.core.model import TCP, UDP
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import MarkLayout
from sgagent.nft.ruleset import Accept, Chain, Hook, Log, Rule, Ruleset, SetMark, Statement
from sgagent.nft.text import render
from sgagent.nft.transactions import AddCounter, Delete

NEAR, FAR, DNS = (
    Endpoint.at("192.0.2.10", 443),
    Endpoint.at("2001:db8::10", 2379),
    Endpoint.at("192.0.2.53", 53, UDP),
)

MASK = 0xFFFF0000


def policy(*names: str) -> ResolvedPolicy:
    """Return a policy that binds links."""
    return ResolvedPolicy(interfaces=tuple(ResolvedInterface(name=name) for name in names))


def table(*names: str) -> Ruleset:
    """Return the table that enforces it."""
    return enforce(policy(*names), None, (), MarkLayout(MASK)).compiled.ruleset


@pytest.mark.parametrize("names", (("eth0",), ("eth0", "eth1"), ("a", "b", "c")), ids=len)
def test_nothing_else_is_changed(names: tuple[str, ...]) -> None:
    """What was opened can be closed again, whatever is bound; counters stay as they are."""
    before = table(*names)
    opened = open_way(before, [FAR, NEAR, DNS])
    assert close_way(opened) == before
    assert open_way(opened, [NEAR, DNS, FAR]) == opened
    assert open_way(opened, [NEAR]) == open_way(before, [NEAR])
    assert {one.name for one in opened.chains if one not in before.chains} == {"prerouting", "postrouting"}
    operations = make_plan(opened, before).operations
    assert not any(
        isinstance(one, AddCounter) or (isinstance(one, Delete) and one.kind == "counter")
        for one in operations
    )


def test_packets_of_sessions_that_were_opened_outwards_pass() -> None:
    """Out those that opened one, in the answers; nothing that comes in by itself."""
    text = render(open_way(table("eth0"), [NEAR, DNS]), persist=False)
    session = "ct reply ip saddr 192.0.2.10 accept"
    assert f"ct direction original ct protocol tcp ct reply proto-src 443 {session}" in text
    assert f"ct direction reply ct protocol tcp ct reply proto-src 443 {session}" in text
    assert "ct direction original ct protocol udp ct reply proto-src 53 ct reply ip saddr 192.0.2.53" in text


def test_a_table_without_doors_stays_as_it_is() -> None:
    """Nothing is judged by it, so nothing needs to be opened."""
    assert open_way(Ruleset(), [NEAR]) == Ruleset()


def test_other_chains_stay_as_they_are() -> None:
    """Neither a chain without a hook nor another base chain gets the rules, whatever its name is."""
    called = Chain(name="prerouting", rules=(Rule((Accept(),)),))
    hooked = Chain(name="forward", hook=Hook(name="forward", hook_priority=0))
    assert open_way(Ruleset(chains=(hooked, called)), [NEAR]) == Ruleset(chains=(hooked, called))


def test_base_chains_with_rules_of_others_are_named() -> None:
    """To write ours would remove those that can't be read; elsewhere they do not matter."""
    assert chains_of_others(table("eth0"), ("chain evil", "rule accept/eth0/egress"), MASK) == ()
    assert chains_of_others(table("eth0"), ("rule postrouting",), MASK) == ("postrouting",)


@pytest.mark.parametrize(
    ("statement", "is_of_others"),
    (
        (SetMark(keep=1, put=1), True),
        (SetMark.replacing(0xFF, 1), True),
        (Log(prefix="new", group=5), True),
        (SetMark.replacing(MASK, 0x00010000), False),
        (Accept(), False),
    ),
    ids=str,
)
def test_a_rule_the_applier_does_not_repeat_is_of_others(statement: Statement, *, is_of_others: bool) -> None:
    """It sets the mark beyond our bits, or logs; one that a plan may hold stands for ours."""
    chains = (
        replace(one, rules=(*one.rules, Rule((statement,)))) if one.name == "prerouting" else one
        for one in table("eth0").chains
    )
    named = ("prerouting",) if is_of_others else ()
    assert chains_of_others(Ruleset(chains=tuple(chains)), (), MASK) == named


def test_sessions_are_not_judged_again_for_it() -> None:
    """A policy that the table enforces already is brought back without a new generation."""
    layout = MarkLayout(MASK)
    before = table("eth0")
    found = enforce(policy("eth0"), open_way(before, [NEAR]), (), layout)
    assert found.plan
    assert found.compiled.ruleset == before


def test_an_exemption_has_the_protocol_of_its_end_point() -> None:
    """Name servers are asked over UDP, and over TCP where an answer is long."""
    tcp, udp = Endpoint.at("192.0.2.53", 53), Endpoint.at("192.0.2.53", 53, UDP)
    assert [one.protocol for one in exempt([udp, tcp])] == [TCP, UDP]
