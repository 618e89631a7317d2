"""What holds for every compiled table, whatever the groups are: shape, cost, reproducible bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import pytest
from hypothesis import given

from sgagent.compiler.compilation import Compiled, compile_
from sgagent.core.counter_keys import CounterKey, KernelCounterKey, ObservedDropCounter, RuleCounter
from sgagent.core.model import (
    ALL_PROTOCOLS,
    TCP,
    UDP,
    Direction,
    Family,
    Mode,
    Policy,
    Protocol,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import closed_interface
from sgagent.nft import names, ruleset as nft
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.names import counter_name
from sgagent.nft.text import render, rule_text
from tests.draws import Draws, SeededDraws
from tests.generators import Case, random_packets
from tests.strategies import cases, draws
from tests.tracing import walk, walk_reply
from tests.words import ACCEPT, DROP, IN, OUT, PLATFORM, group, policy_of, resolution, rule, rule_counter

LAYOUT = MarkLayout(0xFFFF0000)
_Thing = TypeVar("_Thing")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9/\\_.-]*")


def compiled(policy: ResolvedPolicy) -> Compiled:
    """Return the table of a host that starts anew."""
    return compile_(policy, LAYOUT, first_state([one.name for one in policy.interfaces], LAYOUT))


def statements(table: nft.Ruleset) -> Iterator[nft.Statement]:
    """Yield every statement of every rule."""
    return (statement for chain in table.chains for rule in chain.rules for statement in rule.statements)


def elements(table: nft.Ruleset) -> Iterator[nft.Element]:
    """Yield every element of every map."""
    for verdict_map in table.verdict_maps:
        yield from verdict_map.elements


def verdict(element: nft.Element) -> nft.Verdict:
    """Return what an element of a map leads to."""
    return element.verdict


def ends_for_sure(chain: nft.Chain) -> bool:
    """Tell whether the last rule of a chain is a verdict without a condition."""
    if not chain.rules:
        return False
    *before, last = chain.rules[-1].statements
    return isinstance(last, (nft.Accept, nft.Drop, nft.Goto)) and all(
        isinstance(one, nft.Count) for one in before
    )


def no_packet_falls_through(_: ResolvedPolicy, found: Compiled) -> None:
    """Every chain that a packet of a bound link can enter ends in a verdict without a condition.

    So nothing depends on the policy of a base chain, which lets pass what is not bound. Packets come back
    only from the chain of neighbours, and from those that begin by sending some back, or do so by the mark.
    """
    table = found.ruleset
    for chain in table.chains:
        if chain.hook is None and chain.name not in (names.STATE_CHAIN, names.NEIGHBOURS_CHAIN):
            assert ends_for_sure(chain), chain
    jumps = {one.chain for one in statements(table) if isinstance(one, nft.Jump)}
    gotos = {
        one.chain for one in (*statements(table), *map(verdict, elements(table))) if isinstance(one, nft.Goto)
    }
    assert names.NEIGHBOURS_CHAIN not in gotos
    returning = {chain.name for chain in table.chains if chain.name in jumps - {names.NEIGHBOURS_CHAIN}}
    assert all(one.startswith(("live/", "tracked/")) for one in returning)
    for chain in table.chains:
        returns = [rule for rule in chain.rules if rule.statements[-1] == nft.Return()]
        if chain.name.startswith("live/"):
            assert bool(returns) is (chain.name in jumps)
            assert returns in ([], [chain.rules[0]])
        else:
            assert not returns or chain.name.startswith("tracked/")


@given(cases(interfaces=("eth0",)))
def test_where_unbound_links_are_closed_nothing_at_all_falls_through(case: Case) -> None:
    """Then base chains end in a verdict too."""
    policy = replace(case.policy, unbound=closed_interface("*", PLATFORM, Mode.ENFORCE))
    for chain in compiled(policy).ruleset.chains:
        assert chain.name in (names.STATE_CHAIN, names.NEIGHBOURS_CHAIN) or ends_for_sure(chain)


@pytest.mark.parametrize(
    ("links", "first"),
    (
        (["eth0"], 'iifname != "eth0" goto elsewhere'),
        (["eth0", "eth1"], 'iifname "eth0" goto ingress/eth0'),
        (["eth0", "eth1", "eth2"], "iifname vmap @links/ingress/"),
    ),
)
def test_a_door_for_each_number_of_links(links: list[str], first: str) -> None:
    """One link alone is judged where its packets enter; of several each has a chain of its own."""
    table = compiled(policy_of(group("sg-1"), on=dict.fromkeys(links, "sg-1"))).ruleset
    outwards = first.replace("iifname", "oifname").replace("ingress", "egress")
    for hook, begins in (("prerouting", first), ("postrouting", outwards)):
        (door,) = (chain for chain in table.chains if chain.hook and chain.hook.name == hook)
        assert rule_text(door.rules[0]).startswith(begins)
    entries = [chain.name for chain in table.chains if chain.name.startswith("ingress/")]
    assert entries == ([f"ingress/{link}" for link in links] if len(links) > 1 else [])


def no_set_of_ranges_is_anonymous(_: ResolvedPolicy, found: Compiled) -> None:
    """Such a set is empty until the end of the commit that brings it."""
    for statement in statements(found.ruleset):
        if isinstance(statement, nft.Match) and len(statement.values) > 1:
            assert all(not isinstance(one, nft.Interval) or one.is_single for one in statement.values)


def every_reference_leads_somewhere(_: ResolvedPolicy, found: Compiled) -> None:
    """Chains, maps and counters that are referred to exist, and each that exists is referred to.

    But for counters of rules that accept, which other rules may leave nothing.
    """
    table = found.ruleset
    referring = (*statements(table), *map(verdict, elements(table)))
    chains = {one.chain for one in referring if isinstance(one, (nft.Goto, nft.Jump))}
    maps = {one.verdict_map for one in statements(table) if isinstance(one, nft.LookUp)}
    counted = {one.counter for one in statements(table) if isinstance(one, nft.Count)}
    assert chains <= set(table.chain_by_name)
    assert maps == set(table.verdict_map_by_name)
    assert counted <= set(table.counter_by_name)
    unused = [found.counters[name] for name in table.counter_by_name.keys() - counted]
    assert all(isinstance(key, RuleCounter) and key.policy is ACCEPT for key in unused)
    assert not any(table.chain_by_name[name].hook for name in chains)


def one_line_leads_to_where_new_sessions_are_judged(policy: ResolvedPolicy, found: Compiled) -> None:
    """At each change the kernel validates all that is behind a line, once for every line that leads there.

    A link without a slot has two such lines.
    """
    table = found.ruleset
    lines = Counter(one.chain for one in statements(table) if isinstance(one, nft.Goto))
    judging = [chain.name for chain in table.chains if chain.name.startswith("peers/")]
    assert judging
    without_source = {
        names.peers_chain(OUT, judge.name, family)
        for judge in policy.judges
        for family in Family
        if judge.own_addresses is not None and not judge.own_addresses.ranges(family)
    }
    expected = {name: int(name not in without_source) for name in judging}
    assert {name: lines[name] for name in judging} == expected


def names_and_order_are_canonical(_: ResolvedPolicy, found: Compiled) -> None:
    """Names are in the kernel's grammar, each thing is sorted by name and there once."""
    table = found.ruleset
    for things in (table.chains, table.verdict_maps, table.counters):
        listed = [one.name for one in things]
        assert listed == sorted(set(listed))
        assert all(_NAME.fullmatch(name) and len(name) <= 255 for name in listed)
    assert set(found.counters) == set(table.counter_by_name)


def overlaps(verdict_map: nft.VerdictMap) -> bool:
    """Return whether two keys share something; only their last field can be a range."""
    by_first: dict[object, list[nft.Interval]] = {}
    for element in verdict_map.elements:
        *fixed, last = element.key
        if isinstance(last, nft.Interval):
            by_first.setdefault(tuple(fixed), []).append(last)
    keys = {element.key for element in verdict_map.elements}
    return len(keys) < len(verdict_map.elements) or any(
        one.last >= other.first for ranges in by_first.values() for one, other in pairwise(sorted(ranges))
    )


def keys_of_a_map_are_disjoint(_: ResolvedPolicy, found: Compiled) -> None:
    """The kernel refuses overlapping intervals; only maps of intervals hold any."""
    for verdict_map in found.ruleset.verdict_maps:
        assert verdict_map.elements
        assert not overlaps(verdict_map), verdict_map.name
        for element in verdict_map.elements:
            assert len(element.key) == len(verdict_map.key_types)
            if not verdict_map.is_interval:
                assert all(isinstance(one, nft.Symbol) or one.is_single for one in element.key)


def kernel_keys(counters: Mapping[str, CounterKey]) -> Iterator[KernelCounterKey]:
    """Yield the keys; each is of a counter of the kernel."""
    for key in counters.values():
        assert not isinstance(key, ObservedDropCounter)
        yield key


def each_rule_has_one_counter_and_one_verdict_on_each_interface(
    policy: ResolvedPolicy, found: Compiled
) -> None:
    """Whatever counts carries the verdict out: a leaf, or lines of a rule that accepts (design)."""
    wanted = {
        names.rule_chain(one.name, rule.rule_id): rule_counter(
            rule.rule_id, rule.policy, group_id=rule.security_group_id, link=one.name, direction=direction
        )
        for one in policy.interfaces
        for direction in Direction
        for rule in one.toward(direction).rules
    }
    assert {name: key for name, key in found.counters.items() if isinstance(key, RuleCounter)} == wanted
    assert {counter_name(key): key for key in kernel_keys(found.counters)} == found.counters
    counting = [rule for chain in found.ruleset.chains for rule in chain.rules if counters_of(rule)]
    ends: dict[str, set[tuple[nft.Statement, ...]]] = {name: set() for name in found.counters}
    for one in counting:
        (counter,) = counters_of(one)
        ends[counter].add(one.statements[-2:])
    times = Counter(counter for one in counting for counter in counters_of(one))
    leads = [*statements(found.ruleset), *map(verdict, elements(found.ruleset))]
    led_to = {one.chain for one in leads if isinstance(one, (nft.Goto, nft.Jump))}
    for name, key in found.counters.items():
        if not isinstance(key, RuleCounter):
            assert times[name] == 1
            continue
        end = nft.Drop() if key.policy is DROP else nft.Goto(names.accept_chain(key.direction, key.interface))
        assert ends[name] <= {(nft.Count(name), end)}
        assert times[name] == 1 or key.policy is not DROP
        leaf = found.ruleset.chain_by_name.get(name)
        if leaf is not None and key.policy is not DROP and len(leaf.rules) == 1:  # it has no limit
            assert name in led_to


def counters_of(rule: nft.Rule) -> tuple[str, ...]:
    """Return what a rule counts."""
    return tuple(one.counter for one in rule.statements if isinstance(one, nft.Count))


CHECKS = (
    no_packet_falls_through,
    no_set_of_ranges_is_anonymous,
    every_reference_leads_somewhere,
    names_and_order_are_canonical,
    keys_of_a_map_are_disjoint,
    each_rule_has_one_counter_and_one_verdict_on_each_interface,
)


@given(cases(), cases(interfaces=("eth0", "eth1", "eth2", "eth3")))
def test_the_shape_of_a_table(one: Case, other: Case) -> None:
    """Every check holds of every table, and in all tables maps of one name have the same elements.

    But for the maps of addresses, which are hash maps.
    """
    found = [compiled(case.policy) for case in (one, other)]
    for check in CHECKS:
        for case, table in zip((one, other), found, strict=True):
            check(case.policy, table)
    one_line_leads_to_where_new_sessions_are_judged(one.policy, found[0])
    first, second = (table.ruleset.verdict_map_by_name for table in found)
    for name in first.keys() & second.keys():
        if name.startswith(names.PEERS):
            assert not first[name].is_interval
            assert not second[name].is_interval
        else:
            assert first[name] == second[name]


def shuffled(draws: Draws, definitions: Snapshot) -> Snapshot:
    """Return the same definitions with every list in another order."""

    def mixed(things: Iterable[_Thing]) -> tuple[_Thing, ...]:
        return tuple(draws.sample(listed := list(things), len(listed)))

    return Snapshot(
        version="shuffled",
        security_groups=mixed(
            replace(one, rules=mixed(one.rules), member_addresses=mixed(one.member_addresses))
            for one in definitions.security_groups
        ),
        network_interfaces=mixed(
            replace(one, addresses=mixed(one.addresses), security_group_ids=mixed(one.security_group_ids))
            for one in definitions.network_interfaces
        ),
        prefix_lists=mixed(replace(one, entries=mixed(one.entries)) for one in definitions.prefix_lists),
        port_lists=mixed(definitions.port_lists),
    )


@given(cases(), draws())
def test_the_order_of_the_input_does_not_matter(case: Case, draws: Draws) -> None:
    """Definitions in any order, bindings in any order: the same table, byte by byte."""
    on = {hand.interface: ",".join(hand.security_group_ids) for hand in case.bindings}
    backwards = dict(reversed([(link, ",".join(reversed(ids.split(",")))) for link, ids in on.items()]))
    first = compiled(resolution(case.snapshot, on=on).policy)
    again = compiled(resolution(shuffled(draws, case.snapshot), on=backwards).policy)
    assert again == first
    assert render(again.ruleset, persist=True) == render(first.ruleset, persist=True)


def policy_of_size(size: int) -> ResolvedPolicy:
    """Return a policy of so many rules, on overlapping networks, members, ports and protocols."""
    draws = SeededDraws(size)
    protocols = (TCP, TCP, UDP, ALL_PROTOCOLS, *(Protocol(number) for number in range(40, 60)))
    peers = ("0.0.0.0/0", "sg-2", "sg-3", "10.0.0.0/8", "10.1.0.0/16", "::/0", "2001:db8::/32")

    def drawn(number: int) -> SecurityGroupRule:
        protocol = draws.choice(protocols)
        first = draws.randint(1, 59999)
        last = first + draws.choice((0, 0, 1, 900))
        return rule(
            f"r{number}",
            draws.choice(tuple(Policy)),
            protocol,
            f"{first}-{last}" if protocol.has_ports else "",
            draws.choice((*peers, f"10.{number % 250}.0.0/16", f"10.1.{number % 250}.7")),
            direction=draws.choice((IN, OUT)),
            priority=draws.randint(1, 100),
        )

    rules = [drawn(number) for number in range(size)]
    members = [f"10.{number % 250}.{number // 250}.9" for number in range(size * 5)]
    return policy_of(
        group("sg-1", *(one for one in rules if 58 not in {protocol.number for protocol in one.protocols})),
        group("sg-2", members=members),
        group("sg-3", members=[*members[::2], "2001:db8::9"]),
        on={"eth0": "sg-1"},
    )


MOST_STEPS = 60
"""Rules that a packet of a new session may meet, with all look-ups, whatever the policy."""


@pytest.mark.parametrize("size", (10, 100, 500, 2000))
def test_a_new_session_costs_a_fixed_number_of_look_ups(size: int) -> None:
    """However many rules and members there are, no packet meets more rules than a fixed number (design)."""
    policy = policy_of_size(size)
    table = compiled(policy).ruleset
    packets = random_packets(SeededDraws(size), policy, 400)
    walks = [walk(table, one) for one in packets] + [walk_reply(table, one) for one in packets]
    assert max(one.steps for one in walks) <= MOST_STEPS
    assert max(len(one.chains) for one in walks[: len(packets)]) <= 9
    assert max(len(one.chains) for one in walks) <= 13, "a live session is sent on from each chain once"
