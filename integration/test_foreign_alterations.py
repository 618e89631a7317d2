"""Whatever another process does to the table, a few steps lead back to exactly the one that is wanted."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from integration.namespaces import CommandError, Namespace, network_namespace
from integration.test_dataplane import listed_anew
from sgagent.compiler.enforce import Enforced, enforce
from sgagent.core.errors import KernelRefusedError
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.dataplane import TableDataplane
from sgagent.dataplane.table import Applied, PrivilegedTable
from sgagent.nft.marks import MarkLayout
from sgagent.nft.ruleset import Goto, LookUp, Ruleset, VerdictMap
from sgagent.nft.text import differences, key_text
from sgagent.nft.transactions import Plan
from sgagent.ports import Observed
from tests.draws import SeededDraws
from tests.generators import random_case

CASES = 1500 if os.environ.get("SGAGENT_FULL") else 60
ROUNDS = 4
"""The interim table, the wanted one, what a change in between left, and none."""

POLICIES = 12
LAYOUTS = (MarkLayout(0xFFFF0000), MarkLayout(0x00FFF000), MarkLayout(0xFF))
LINKS = ("eth0", "eth1", "eth2")

ALTERATIONS = (
    "{verb} rule {t} {chain} {rule}",
    "flush chain {t} {chain}",
    "flush chain {t} {chain} ; rename chain {t} {chain} {other} ; add chain {t} {other}",
    "flush chain {t} {base} ; delete chain {t} {base} ; add chain {t} {base} {declaration}",
    "add chain {t} {base} {{ policy drop ; }}",
    "add chain {t} {other} ; add rule {t} {other} {rule} ; add rule {t} {chain} jump {other}",
    "add chain {t} {other} {declaration} ; add rule {t} {other} {rule}",
    "add set {t} evil {{ type ipv4_addr ; {flags} }}",
    "add map {t} evil {{ type ipv4_addr : verdict ; elements = {{ 192.0.2.7 : {verdict} }} ; }}",
    "add map {t} evil {{ type ipv4_addr : verdict ; {flags} }} ; add rule {t} {other} ip saddr vmap @evil",
    "flush map {t} {map}",
    "delete element {t} {map} {{ {key} }}",
    "delete element {t} {map} {{ {key} }} ; add element {t} {map} {{ {key} : {verdict} }}",
    "{flushes} ; add rule {t} {behind} jump {user}",
    "flush table {t} ; delete map {t} {map} ; add map {t} {map} {{ type mark : verdict ; {flags} }}",
    "delete chain {t} generation ; add chain {t} generation {{ comment {state} ; }}",
    "add {object}",
    "add ct timeout {t} evil {{ protocol tcp ; l3proto ip ; policy = {{ established : 99 }} ; }}",
    "add table {t} {{ flags {table_flags} ; }}",
    "flush table {t}",
    "delete table {t}",
)
WORDS = {
    "t": ("inet sgagent",),
    "verb": ("add", "insert"),
    "other": ("evil", "gone", "other/3"),
    "verdict": ("accept", "drop", "goto {regular}", "jump {regular}", "jump evil", "goto generation"),
    "rule": (
        *("{verdict}", "{verdict}", "ip ttl 3 accept", "ip saddr @evil {verdict}", "ip saddr vmap @evil"),
        *('{verdict} comment "x"', "jump {{ accept ; }}", "ip saddr vmap {{ 192.0.2.7 : {verdict} }}"),
        *("ip saddr {{ 192.0.2.7, 10.0.0.0/8 }} drop", "tcp dport {{ 1-9, 80 }} {verdict}", "notrack"),
        *('iifname "a b" accept', 'iifname "a*" drop', "ct mark set 0x10000", "log group 3", "counter drop"),
        *("fib daddr type local accept", 'limit name "evil"', 'ct timeout set "evil"', "reject"),
    ),
    "declaration": (
        *("", '{{ comment "x" ; }}', "{{ type filter hook input priority 0 ; policy drop ; }}"),
        *(
            "{{ type nat hook prerouting priority -100 ; }}",
            "{{ type filter hook prerouting priority -140 ; }}",
        ),
    ),
    "flags": ("", "flags timeout ;", "flags interval ;", "counter ;"),
    "state": ('"x"', '"mask 0xffff0000 generation 3 slots eth0 / /"'),
    "table_flags": ("dormant", "dormant, persist"),
    "object": (
        *("quota {t} evil 5 mbytes", "limit {t} evil rate 5/second", "counter {t} {regular}"),
        'ct helper {t} evil {{ type "ftp" protocol tcp ; }}',
    ),
}


class Drawn(dict[str, str]):
    """The words of one alteration; each is drawn when it is first asked for."""

    def __init__(self, draws: SeededDraws, table: Ruleset) -> None:
        """Draw from the names in a table.

        Raises:
            IndexError: when a word is asked for of which the table has none.
        """
        super().__init__()
        self._draws, self._table = draws, table
        self._map: VerdictMap | None = None

    def __missing__(self, word: str) -> str:
        """Draw a word."""
        self[word] = self._word(word).format_map(self) if word in WORDS else self._word(word)
        return self[word]

    def _word(self, word: str) -> str:
        chains = self._table.chains
        match word:
            case "chain":
                return self._draws.choice(chains).name
            case "base" | "regular":
                return self._draws.choice(
                    [one for one in chains if (one.hook is None) is (word != "base")]
                ).name
            case "flushes":
                return " ; ".join(f"flush map inet sgagent {one.name}" for one in self._table.verdict_maps)
            case "map" | "key" | "behind" | "user":
                return self._of_map(word)
            case _:
                return self._draws.choice(WORDS[word])

    def _of_map(self, word: str) -> str:
        self._map = self._map or self._draws.choice([one for one in self._table.verdict_maps if one.elements])
        look_up = [
            chain.name
            for chain in self._table.chains
            for rule in chain.rules
            for one in rule.statements
            if isinstance(one, LookUp) and one.verdict_map == self._map.name
        ]
        behind = [one.verdict.chain for one in self._map.elements if isinstance(one.verdict, Goto)]
        key = key_text(self._draws.choice(self._map.elements).key, self._map.key_types)
        choices = {"map": [self._map.name], "key": [key], "behind": behind, "user": look_up}
        return self._draws.choice(choices[word])


class InterruptedTable(PrivilegedTable):
    """The kernel's table, before whose transactions another process may do something."""

    def __init__(self) -> None:
        """Open it, as for one change."""
        super().__init__(owned=False)
        self.interruptions: list[Callable[[], None]] = []
        """What is done before the next transactions, one before each."""

    def apply(self, plan: Plan) -> Applied:
        """Let another process come first, and carry out a plan."""
        if self.interruptions:
            self.interruptions.pop(0)()
        return super().apply(plan)


class Host:
    """A host whose table another process alters."""

    def __init__(self, namespace: Namespace) -> None:
        """Take a namespace, in which the thread is."""
        self._namespace, self.table = namespace, InterruptedTable()
        self.dataplane = TableDataplane(self.table)
        self._enforced: Enforced | None = None
        self.log: list[str] = []
        """What the other process did."""

    def alter(self, draws: SeededDraws) -> None:
        """Carry out some alterations that the kernel takes."""
        table = listed_anew().ruleset or Ruleset()
        for _ in range(draws.choice((2, 4, 8))):
            with contextlib.suppress(IndexError, CommandError):
                command = draws.choice(ALTERATIONS).format_map(Drawn(draws, table))
                self._namespace.nft(command)
                self.log.append(command)

    def step(self, policy: ResolvedPolicy, layout: MarkLayout) -> Plan:
        """Do a step, as the agent does, and return its plan."""
        observed, enforced = self.dataplane.observe(), self._enforced
        if enforced is not None:
            differences(enforced.ruleset, observed.ruleset, observed.foreign)
        step = enforce(policy, observed.ruleset, observed.foreign, layout, enforced=enforced)
        if step.clearance and step.plan:
            self.dataplane.clear_marks(step.clearance.mask, step.clearance.tests)
        self.dataplane.apply(step.plan)
        with contextlib.suppress(KernelRefusedError):  # the next step removes what is left
            self.dataplane.remove(step.plan)
        self._enforced = step.enforcing(policy)
        return step.plan

    def settle(self, policy: ResolvedPolicy, layout: MarkLayout) -> None:
        """Check that a few steps lead to the table of the policy, and then no further."""
        plans = list(itertools.takewhile(bool, (self.step(policy, layout) for _ in range(ROUNDS))))
        assert len(plans) < ROUNDS, self.log
        assert self._enforced is not None
        assert listed_anew() == Observed(ruleset=self._enforced.ruleset), self.log


@pytest.fixture
def host() -> Iterator[Host]:
    """Make a network namespace, move the test into it, and open its table."""
    with network_namespace() as namespace, namespace.entered():
        host = Host(namespace)
        yield host
        host.dataplane.close()


@pytest.mark.long
def test_a_few_steps_restore_the_table(host: Host) -> None:
    """It is altered before a step, or between two of its transactions, and the policy may change with it."""
    policies = [
        random_case(
            SeededDraws(seed), interfaces=LINKS[: 1 + seed % len(LINKS)], most_rules=1 + seed % 8
        ).policy
        for seed in range(POLICIES)
    ]
    layout, policy = LAYOUTS[0], policies[0]
    for case in range(CASES):
        draws = SeededDraws(case)
        if draws.chance(30):
            layout, policy = draws.choice(LAYOUTS), draws.choice(policies)
        host.settle(policy, layout)
        host.log = [f"case {case}"]
        if draws.chance(50):
            host.alter(draws)
        else:
            transactions = draws.randint(1, 2)
            host.table.interruptions = [lambda: None] * transactions + [partial(host.alter, draws)]
            policy = draws.choice(policies)
            with contextlib.suppress(KernelRefusedError):
                host.step(policy, layout)
            host.table.interruptions = []
        host.settle(policy, layout)
