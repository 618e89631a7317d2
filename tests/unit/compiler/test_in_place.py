"""Lines of a rule that accepts do what its leaf would, so that it needs none."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from sgagent.compiler.compilation import compile_
from sgagent.compiler.port_chains import FEW
from sgagent.core.memo import Memo
from sgagent.core.model import TCP, Mode, Policy
from sgagent.core.policy import FlowLogging, ResolvedPolicy
from sgagent.nft import names
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import UNCACHED, MarkLayout
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import rule_text
from sgagent.nft.transactions import AddRule
from tests.words import ACCEPT, DROP, group, policy_of, rule

LAYOUT = MarkLayout(0xFFFF0000)
LEAF = "rule/eth0/r"


def ruled(policy: Policy = ACCEPT, ports: str = "80", peer: str = "192.0.2.7") -> ResolvedPolicy:
    """Return a policy of one rule."""
    return policy_of(group("sg-1", rule("r", policy, TCP, ports, peer)), on={"eth0": "sg-1"})


def table(policy: ResolvedPolicy, memo: Memo | None = None, most_lines: int = 12) -> Ruleset:
    """Return what is compiled; with no lines at most, classes."""
    return compile_(policy, LAYOUT, UNCACHED, memo=memo, most_lines=most_lines).ruleset


@pytest.mark.parametrize("most_lines", (0, 12))
def test_a_rule_that_accepts_has_no_leaf(most_lines: int) -> None:
    """Its line counts and accepts, in a list and in a class."""
    found = table(ruled(), most_lines=most_lines)
    lines = [rule_text(one) for chain in found.chains for one in chain.rules]
    far_end = " ip saddr 192.0.2.7" if most_lines else ""
    assert f'tcp dport 80{far_end} counter name "{LEAF}" goto accept/eth0/ingress' in lines
    assert LEAF not in found.chain_by_name
    assert LEAF in found.counter_by_name


@pytest.mark.parametrize(
    "policy",
    (
        ruled(DROP),
        ruled(peer="192.0.2.0/30,198.51.100.0/24"),
        ruled(ports=",".join(map(str, range(1, 99, 2)))),
    ),
)
def test_others_have_one(policy: ResolvedPolicy) -> None:
    """What drops, and what maps of addresses or of ports lead to."""
    assert LEAF in table(policy).chain_by_name


def test_a_rule_that_is_logged_has_one() -> None:
    """The log statement stands in it."""
    logging = FlowLogging(verdicts=frozenset({ACCEPT}))
    assert len(compile_(ruled(), LAYOUT, UNCACHED, logging).ruleset.chain_by_name[LEAF].rules) == 2


@pytest.mark.parametrize("count", (1, FEW + 1))
def test_a_change_of_mode_rewrites_leaves_only(count: int) -> None:
    """However many classes drops are in."""
    rules = (
        rule(f"r{place}", DROP if place % 2 else ACCEPT, TCP, str(place + 1), "192.0.2.7")
        for place in range(count + 1)
    )
    enforcing = policy_of(group("sg-1", *rules), on={"eth0": "sg-1"})
    observing = enforcing.with_judges(partial(replace, mode=Mode.OBSERVE))
    plan = make_plan(table(observing), table(enforcing))
    changed = {one.chain for one in plan.operations if isinstance(one, AddRule)}
    assert changed
    assert {name.partition("/")[0] for name in changed} <= {"rule", "default", "invalid"}


@pytest.mark.parametrize("most_lines", (0, 12))
@pytest.mark.parametrize("policies", ((ACCEPT, DROP), (DROP, ACCEPT)))
def test_another_verdict_is_one_flip(policies: tuple[Policy, Policy], most_lines: int) -> None:
    """With a memo it comes to the same table, and what is new or gone is not reached."""
    memo = Memo()
    before, after = (table(ruled(one), memo, most_lines) for one in policies)
    assert after == table(ruled(policies[1]), most_lines=most_lines)
    plan = make_plan(after, before)
    decided = {one.chain for one in plan.flip if isinstance(one, AddRule)}
    assert len(decided) == 2  # for headers and for sessions
    assert not any(one.chain in decided for one in (*plan.fill, *plan.removal) if isinstance(one, AddRule))
    assert not decided & {LEAF, names.STATE_CHAIN}
