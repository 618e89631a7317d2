"""A table that an ended agent left is listed by the next one if anybody has changed anything since."""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Callable, Mapping
from typing import cast

import pytest

from integration.namespaces import Namespace
from integration.prepared_agent import agent_with
from integration.service import Service, definitions
from sgagent.agent.state.tables import STANDING_FILE
from sgagent.dataplane.dataplane import TableDataplane
from sgagent.dataplane.generation import RulesetNumber
from sgagent.dataplane.table import PrivilegedTable, TableKeeper, TableListing
from sgagent.dataplane.tracked_table import TrackedTable
from sgagent.nft.diff import make_plan
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import element_text
from sgagent.ports import Observed
from tests.verified_cases import verified_case

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
TRIES = 2_000 if IS_FULL else 60
TRIES_PER_TABLE = 20
OURS = "inet sgagent"
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"


class CountingTable(TrackedTable):
    """The table as the applier keeps it; says how often it was listed."""

    listings = 0

    def list_table(self) -> TableListing:
        """Return the table."""
        self.listings += 1
        return super().list_table()


class Owner:
    """A data plane that owns the table."""

    def __init__(self) -> None:
        """Begin, in the network namespace of this thread."""
        self.table = CountingTable(PrivilegedTable(owned=True), lambda _: None)
        # The applier answers what concerns no table by the table within.
        self.plane = TableDataplane(cast("TableKeeper", self.table))

    def bring(self, desired: Ruleset) -> RulesetNumber:
        """Apply the desired table, end, and return the ruleset's number then."""
        observed = self.plane.observe()
        self.plane.apply(plan := make_plan(desired, observed.ruleset, observed.foreign))
        self.plane.remove(plan)
        assert self.plane.observe() == Observed(ruleset=desired)
        number = self.plane.ruleset_number()
        assert number is not None
        self.plane.close()
        return number


def some_table(first: int) -> Ruleset:
    """Return a compiled table that has elements, of the first seed that gives one."""
    cases = (verified_case(seed, links=("eth0", "eth1"), most_rules=10) for seed in itertools.count(first))
    return next(case.table for case in cases if any(one.elements for one in case.table.verdict_maps))


Command = Callable[[Ruleset, random.Random], str]


def _some_chain(table: Ruleset, dice: random.Random) -> str:
    return dice.choice([chain.name for chain in table.chains if chain.rules])


def _some_element(table: Ruleset, dice: random.Random) -> tuple[str, str]:
    """Return a map and one of its elements."""
    found = dice.choice([one for one in table.verdict_maps if one.elements])
    return found.name, element_text(dice.choice(found.elements), found.key_types)


def _delete_element(table: Ruleset, dice: random.Random) -> str:
    name, element = _some_element(table, dice)
    return f"delete element {OURS} {name} {{ {element} }}"


def _swap_verdict(table: Ruleset, dice: random.Random) -> str:
    name, element = _some_element(table, dice)
    key, _, verdict = element.rpartition(" : ")
    other = "drop" if verdict == "accept" else "accept"
    return f"delete element {OURS} {name} {{ {element} }}\nadd element {OURS} {name} {{ {key} : {other} }}"


CHANGES: Mapping[str, Command] = {
    "an element is deleted": _delete_element,
    "an element gets another verdict": _swap_verdict,
    "a map is emptied": lambda table, dice: f"flush map {OURS} {_some_element(table, dice)[0]}",
    "a chain is emptied": lambda table, dice: f"flush chain {OURS} {_some_chain(table, dice)}",
    "a rule is added": lambda table, dice: f"add rule {OURS} {_some_chain(table, dice)} accept",
    "a rule is inserted": lambda table, dice: f"insert rule {OURS} {_some_chain(table, dice)} accept",
    "a chain is added": lambda _, __: f"add chain {OURS} evil",
    "a base chain is added": lambda _, __: (
        f"add chain {OURS} evil {{ type filter hook input priority 5; policy accept; }}"
    ),
    "a counter is added": lambda _, __: f"add counter {OURS} evil",
    "a set is added": lambda _, __: f"add set {OURS} evil {{ type ipv4_addr; }}",
    "a map is added": lambda _, __: f"add map {OURS} evil {{ type ipv4_addr : verdict; }}",
    "the table sleeps": lambda _, __: f"add table {OURS} {{ flags persist,dormant; }}",
    "the table is deleted": lambda _, __: f"delete table {OURS}",
    "another table is added": lambda _, __: "add table ip other",
}


@pytest.mark.long
def test_any_change_while_no_agent_runs_is_seen(namespace: Namespace) -> None:
    """In each kind of object, at random places of random tables; nothing but a listing shows it."""
    seen = dict.fromkeys(CHANGES, 0)
    for first in range(0, TRIES, TRIES_PER_TABLE):
        desired = some_table(first)
        for seed in range(first, first + TRIES_PER_TABLE):
            number, dice = Owner().bring(desired), random.Random(seed)
            kind = list(CHANGES)[seed % len(CHANGES)]
            namespace.nft("-f", "-", stdin=CHANGES[kind](desired, dice))
            after = Owner()
            assert not after.plane.take_up(number), f"{kind}, seed {seed}"
            after.plane.recognize(desired)  # does nothing
            is_of_others = kind == "another table is added"
            is_equal = after.plane.observe() == Observed(ruleset=desired)
            assert after.table.listings == 1
            assert kind == "the table sleeps" or is_equal == is_of_others, f"{kind}, seed {seed}"
            after.plane.close()
            if is_of_others:
                namespace.nft("delete", "table", "ip", "other")
            seen[kind] += 1
    assert min(seen.values()) >= TRIES // len(CHANGES)


def test_nothing_is_listed_where_nobody_changed_anything(namespace: Namespace) -> None:  # noqa: ARG001 - entered
    """The next owner takes the table up; a change from then on is seen as any other."""
    desired = some_table(3)
    number = Owner().bring(desired)
    after = Owner()
    assert after.plane.take_up(number)
    after.plane.recognize(desired)
    assert after.plane.observe().ruleset is desired
    assert after.table.listings == 0
    again = after.plane.ruleset_number()
    after.plane.close()
    assert again is not None
    assert again.generation > number.generation, "the kernel has a new owner of the table"


def test_what_changes_after_the_table_was_taken_up_is_seen(namespace: Namespace) -> None:
    """The change comes before the agent has compiled the table."""
    desired = some_table(3)
    number = Owner().bring(desired)
    after = Owner()
    assert after.plane.take_up(number)
    namespace.nft("add", "table", "ip", "other")
    after.plane.recognize(desired)
    assert after.plane.observe() == Observed(ruleset=desired)
    after.plane.close()


agent = agent_with(definitions(WEB), verifies=True)


@pytest.mark.long
def test_an_agent_that_ends_in_order_leaves_what_the_next_one_takes(agent: Service) -> None:
    """The rules stay as they are; the next agent owns them, and has them proved."""
    before = agent.table()
    assert agent.stop() == 0
    kept = agent.state / STANDING_FILE
    assert kept.exists()
    agent.start()
    assert not kept.exists()
    assert agent.table() == before
    assert len(agent.events("ruleset_applied")) == 1
    agent.wait_for_proof()


def test_what_somebody_changes_while_no_agent_runs_is_repaired_at_the_start(agent: Service) -> None:
    """As a difference to the wanted table, not as drift; and the table is proved."""
    table = agent.table()
    hooked = re.search(r"chain (\S+) \{\n\t\ttype filter hook", table)
    assert hooked is not None
    assert agent.stop() == 0
    agent.namespace.nft("flush", "chain", "inet", "sgagent", hooked[1])
    agent.start()
    assert len(agent.events("ruleset_applied")) == 2
    agent.wait_for_proof()


def test_a_killed_agent_leaves_nothing_to_believe(agent: Service) -> None:
    """The next one lists the table."""
    agent.kill()
    assert not (agent.state / STANDING_FILE).exists()
    agent.start()
    assert len(agent.events("ruleset_applied")) == 1
