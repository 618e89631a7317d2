"""The chains of the source check, and what a change of the link's addresses does to the table (§12.6)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import Enforced, enforce, narrows
from sgagent.core.addresses import AddressSet
from sgagent.core.model import TCP, Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import render
from sgagent.nft.transactions import AddElements, AddRule, DeleteElements, Flush
from tests.words import ACCEPT, blocks, group, policy_of, rule

LAYOUT = MarkLayout(0xFFFF0000)
UNCHECKED = policy_of(group("sg-1", rule("web", ACCEPT, TCP, "80", "0.0.0.0/0")))


def checked(*addresses: str, mode: Mode = Mode.ENFORCE) -> ResolvedPolicy:
    """Return the policy with the source check on a link that carries some addresses."""
    (judge,) = UNCHECKED.interfaces
    return ResolvedPolicy(
        interfaces=(replace(judge, own_addresses=AddressSet.of(blocks(*addresses)), mode=mode),)
    )


def compiled(policy: ResolvedPolicy) -> Ruleset:
    """Return the table of a host that starts anew."""
    return compile_(policy, LAYOUT, first_state(["eth0"], LAYOUT)).ruleset


def rules_of(policy: ResolvedPolicy, chain: str) -> list[str]:
    """Return the rules of a chain as text."""
    text = render(compiled(policy), persist=False)
    block = text.partition(f"\tchain {chain} {{\n")[2].partition("\t}\n")[0]
    return [line.strip() for line in block.splitlines()]


def test_the_documented_chain_is_compiled() -> None:
    """``docs/ruleset.md`` shows the chain for what leaves."""
    shown = "".join(
        f"\t\t{line}\n" for line in rules_of(checked("10.0.0.11", "10.0.0.12"), "sources/eth0/egress/ipv4")
    )
    page = (Path(__file__).parents[3] / "docs/ruleset.md").read_text(encoding="utf-8")
    assert f"\tchain sources/eth0/egress/ipv4 {{\n{shown}\t}}\n" in page


def test_without_an_address_of_the_family_nothing_leaves() -> None:
    """But DHCP; and nothing that enters can be spoofed."""
    policy = checked("2001:db8::1")
    outwards = rules_of(policy, "sources/eth0/egress/ipv4")
    assert outwards[1:] == ["goto spoofed/eth0/egress"]
    assert rules_of(policy, "sources/eth0/ingress/ipv4")[1:] == ["goto peers/eth0/ingress/ipv4"]


def test_live_sessions_are_checked_by_the_packet_that_opened_them() -> None:
    """By the tuple of conntrack, after translation."""
    policy = checked("10.0.0.11")
    assert rules_of(policy, "live/sources/eth0/egress/ipv4")[1:] == [
        "ct reply ip daddr != 10.0.0.11 goto spoofed/eth0/egress",
        "goto live/peers/eth0/egress/ipv4",
    ]
    assert rules_of(policy, "live/sources/eth0/ingress/ipv4")[1:] == [
        "ct original ip saddr 10.0.0.11 goto spoofed/eth0/ingress",
        "goto live/peers/eth0/ingress/ipv4",
    ]


def test_observing_drops_nothing() -> None:
    """The counter chain ends where sessions are remembered as allowed (§9.1)."""
    policy = checked("10.0.0.11", mode=Mode.OBSERVE)
    (leaf,) = rules_of(policy, "spoofed/eth0/egress")
    assert leaf == 'counter name "spoofed/eth0/egress" goto accept/eth0/egress'


@pytest.mark.parametrize("after", (("10.0.0.11",), ("10.0.0.11", "10.0.0.12", "10.0.0.13"), ("10.0.0.13",)))
def test_a_change_of_addresses_replaces_the_rules_that_compare_them(after: tuple[str, ...]) -> None:
    """Nothing else but the generation, which is compared where sessions are known and remembered."""
    old, new = checked("10.0.0.11", "10.0.0.12"), checked(*after)
    standing = compiled(old)
    found = enforce(new, standing, (), LAYOUT, enforced=Enforced(policy=old, ruleset=standing))
    changed = {
        operation.name if isinstance(operation, Flush) else operation.chain
        for operation in found.plan.operations
        if isinstance(operation, (Flush, AddRule))
    }
    chains = (f"{chain}/eth0/{way}" for chain in ("accept", "tracked") for way in ("ingress", "egress"))
    of_generation = {"prerouting", "postrouting", *chains}
    assert changed - of_generation == {
        f"{live}sources/eth0/{way}/ipv4" for live in ("", "live/") for way in ("ingress", "egress")
    }
    assert not any(isinstance(o, (AddElements, DeleteElements)) for o in found.plan.operations)


def test_which_changes_judge_sessions_again() -> None:
    """To switch the check on, and each change of addresses; to switch it off takes nothing away."""
    assert narrows(UNCHECKED, checked("10.0.0.11"))
    assert narrows(checked("10.0.0.11"), checked("10.0.0.12"))
    assert narrows(checked("10.0.0.11"), checked("10.0.0.11", "10.0.0.12"))
    assert not narrows(checked("10.0.0.11"), UNCHECKED)
    assert not narrows(checked("10.0.0.11"), checked("10.0.0.11"))
