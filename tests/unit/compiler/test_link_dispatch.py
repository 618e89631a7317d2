"""The base chains of hosts with patterns, and what links that come and go do to the table (§12.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import Enforced, Enforcement, enforce, may_cut, narrows
from sgagent.core.binding import HandBinding
from sgagent.core.model import Direction, Mode, Policy, SourceCheck
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft import names
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.ruleset import Chain, Match, NamePrefix, Rule, Ruleset
from sgagent.nft.text import rule_text
from sgagent.verify import Outcome
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import table_of
from tests.unit.core.test_link_patterns import CLOSED, hand, resolution

LAYOUT = MarkLayout(0xFFFF0000)


def policy(hands: list[HandBinding], *links: str, closed: bool = False) -> ResolvedPolicy:
    """Return the policy of a host with these links."""
    return resolution(hands, *links, closed=closed).policy


def compiled(found: ResolvedPolicy) -> Ruleset:
    """Return the table of a host that starts anew."""
    return compile_(found, LAYOUT, first_state([one.name for one in found.bound], LAYOUT)).ruleset


def door(found: ResolvedPolicy) -> list[str]:
    """Return the rules of the base chain for what comes in, chains by the names of their interfaces."""
    texts = [rule_text(rule) for rule in compiled(found).chain_by_name["prerouting"].rules]
    for judge in found.judges:
        chain = names.entry_chain(Direction.INGRESS, judge.name)
        texts = [text.replace(chain, f"ingress/{judge.name}") for text in texts]
    return texts


def following(before: ResolvedPolicy, after: ResolvedPolicy) -> Enforcement:
    """Return what is done for one policy after another."""
    first = enforce(before, None, (), LAYOUT)
    standing = first.compiled.ruleset
    return enforce(after, standing, (), LAYOUT, enforced=Enforced(policy=before, ruleset=standing))


@pytest.mark.parametrize(
    ("hands", "links", "closed", "rules"),
    (
        ([hand("br-*")], [], False, ['iifname "br-*" goto ingress/br-*', "goto elsewhere"]),
        (
            [hand("br-*", "br-lan", "br-x*")],
            ["br-a"],
            False,
            [
                'iifname "br-lan" goto elsewhere',
                'iifname "br-x*" goto elsewhere',
                'iifname "br-*" goto ingress/br-*',
                "goto elsewhere",
            ],
        ),
        (
            [hand("br-*"), hand("eth0")],
            [],
            True,
            [
                'iifname "eth0" goto ingress/eth0',
                'iifname "lo" goto elsewhere',
                'iifname "br-*" goto ingress/br-*',
                "goto ingress/*",
            ],
        ),
        (
            [hand("v*", check=SourceCheck.ON)],
            ["va"],
            False,
            ['iifname "va" goto ingress/va', 'iifname "v*" goto ingress/*?', "goto elsewhere"],
        ),
        (
            [hand("l*")],
            [],
            False,
            ['iifname "lo" goto elsewhere', 'iifname "l*" goto ingress/l*', "goto elsewhere"],
        ),
    ),
)
def test_names_come_first_then_prefixes(
    hands: list[HandBinding],
    links: list[str],
    closed: bool,  # noqa: FBT001 - a parameter of the table above
    rules: list[str],
) -> None:
    """The longest prefix first; what begins with none is judged as a link is to which nothing is bound."""
    assert door(policy(hands, *links, closed=closed)) == rules


def test_links_that_a_prefix_tells_apart_change_nothing() -> None:
    """A hundred of them come and go without a single operation."""
    before, after = policy([hand("br-*")]), policy([hand("br-*")], *(f"br-{n}" for n in range(100)))
    assert not following(before, after).plan
    assert not following(after, before).plan


@pytest.mark.parametrize(
    ("hands", "links", "judges"),
    (
        ([hand("br-*")], [], ["br-*"]),
        ([hand("br-*", check=SourceCheck.ON, mode=Mode.OBSERVE)], ["br-a"], ["br-a"]),
        ([hand("br-*", check=SourceCheck.ON)], [], [CLOSED]),
        ([hand("br-*", check=SourceCheck.ON)], ["br-a"], ["br-a", CLOSED]),
        ([hand("br-*", check=SourceCheck.ON), hand("b*", "br-*")], ["br-a"], ["br-a", "b*", CLOSED]),
        ([hand("br-*", check=SourceCheck.ON), hand("a*", "br-x")], [], ["br-*", "a*", CLOSED]),
    ),
)
def test_no_unreachable_chain_is_made(hands: list[HandBinding], links: list[str], judges: list[str]) -> None:
    """A pattern's judge waits for a link, unless its links have judges of their own."""
    found = policy(hands, *links)
    chains = compiled(found).chain_by_name
    made = [one.name for one in found.judges if names.entry_chain(Direction.INGRESS, one.name) in chains]
    assert sorted(made) == sorted(judges)


def test_slots_are_for_those_that_judge() -> None:
    """Where sources are checked these are the links of a pattern, and never the pattern (§12.6)."""
    checked = hand("v-*", check=SourceCheck.ON)
    found = policy([checked, hand("br-*")], "v-a", "v-b", "br-a")
    assert enforce(found, None, (), LAYOUT).state == first_state(["br-*", "v-a", "v-b"], LAYOUT)


def test_a_pattern_that_loses_a_rule_has_sessions_judged_again() -> None:
    """As for an interface; and a pattern that is new may cut sessions that were not judged."""
    before = policy([hand("br-*")])
    (pattern,) = before.patterns
    ingress = replace(pattern.judge.ingress, default=Policy.ACCEPT)
    opened = replace(before, patterns=(replace(pattern, judge=replace(pattern.judge, ingress=ingress)),))
    assert narrows(opened, before)
    assert not narrows(before, opened)
    assert may_cut(ResolvedPolicy(), before)
    assert following(opened, before).state.generation == 2


def test_a_proof_costs_the_same_for_many_links() -> None:
    """Those that neither policy nor table tells apart are compared once; one that the table lacks is seen."""
    names_of = {number: [f"v{n:02}" for n in range(number)] for number in (1, 100)}
    few, many = (policy([hand("v*", *found)], *found, closed=True) for found in names_of.values())
    proofs = [prove(table_of(compiled(found)), found) for found in (few, many)]
    assert [one.outcome for one in proofs] == [Outcome.PROVED] * 2
    assert proofs[0].cells == proofs[1].cells
    table = compiled(many)
    for verdict_map in table.verdict_maps:
        if verdict_map.name.startswith("links/"):
            elements = tuple(one for at, one in enumerate(verdict_map.elements) if at != 50)
            less = replace(verdict_map, elements=elements)
            others = tuple(less if one is verdict_map else one for one in table.verdict_maps)
            assert prove(table_of(replace(table, verdict_maps=others)), many).outcome is Outcome.REFUTED


@pytest.mark.parametrize("prefix", ("br", "br-x", "b", None))
@pytest.mark.parametrize("hook", ("prerouting", "postrouting"))
def test_the_verifier_refutes_another_prefix(hook: str, prefix: str | None) -> None:
    """A guard that is narrower, wider, or not there lets through what it must not, or closes too much."""
    found = policy([hand("br-*"), hand("v*", check=SourceCheck.ON)], "va")
    table = compiled(found)
    assert prove(table_of(table), found).outcome is Outcome.PROVED
    rules = tuple(_altered(rule, prefix) for rule in table.chain_by_name[hook].rules)
    chains = tuple(
        Chain(name=hook, hook=one.hook, rules=tuple(filter(None, rules))) if one.name == hook else one
        for one in table.chains
    )
    assert prove(table_of(replace(table, chains=chains)), found).outcome is Outcome.REFUTED


def _altered(rule: Rule, prefix: str | None) -> Rule | None:
    match rule.statements:
        case (Match(values=(NamePrefix("br-"),)) as match, verdict):
            return Rule((replace(match, values=(NamePrefix(prefix),)), verdict)) if prefix else None
        case _:
            return rule
