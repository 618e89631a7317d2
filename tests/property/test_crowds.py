"""Rules with many overlapping source ports: a list in order of precedence, not a table without bounds."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings

from sgagent.compiler.decision_list import list_entries
from sgagent.compiler.port_table import is_crowd
from sgagent.core.evaluate import Tracking, evaluate
from sgagent.core.memo import Memo
from sgagent.core.model import ALL_PROTOCOLS, TCP, UDP, Family, Policy, SecurityGroupRule
from sgagent.core.policy import ResolvedPolicy
from tests.generators import random_packets
from tests.property.test_compiled import compiled, expected_counters, untracked
from tests.strategies import seeds
from tests.tracing import walk, walk_reply
from tests.words import ACCEPT, DROP, IN, group, policy_of, rule


def crowd(random: Random, count: int) -> ResolvedPolicy:
    """Return a policy of rules for nested networks whose ports and source ports overlap at random."""

    def ports(most: int) -> str:
        first = random.randrange(1, most)
        return f"{first}-{random.randrange(first, 65_536)}"

    def drawn(number: int) -> SecurityGroupRule:
        protocol = random.choice((TCP, TCP, TCP, UDP, ALL_PROTOCOLS))
        return rule(
            f"r{number}",
            random.choice(tuple(Policy)),
            protocol,
            random.choice((ports(2000), ports(2000), "")) if protocol.has_ports else "",
            random.choice((f"10.0.0.0/{random.randrange(8, 33)}", "10.0.0.0/8", "0.0.0.0/0")),
            priority=random.randrange(1, 101),
            source_ports=ports(3000) if protocol.has_ports else "",
            local="10.0.0.0/30" if random.random() < 0.1 else None,
        )

    rules = [drawn(number) for number in range(count)]
    return policy_of(group("sg-1", *rules, inner=DROP), on={"eth0": "sg-1"})


@settings(max_examples=25)
@given(seeds)
def test_a_list_decides_as_the_specification(seed: int) -> None:
    """Tracked sessions, their replies, and packets that conntrack does not follow."""
    random = Random(seed)
    policy = crowd(random, 60)
    table = compiled(policy)
    for judged in random_packets(random, policy, 30):
        accepted = evaluate(policy, judged).verdict is ACCEPT
        replies = [walk_reply(table, judged)] if judged.tracking is Tracking.NEW else []
        for seen in (walk(table, judged), *replies):
            assert seen.accepted is accepted, judged
            assert seen.counted == expected_counters(policy, judged), judged
        alone = untracked(judged, random)
        assert walk(table, alone).counted == expected_counters(policy, alone), alone


def test_a_table_stays_within_bounds() -> None:
    """Twice the rules make about four times the table; one of all combinations would make eight times."""
    sizes = []
    for count in (100, 200):
        table = compiled(crowd(Random(1), count))
        rules = sum(len(chain.rules) for chain in table.chains)
        elements = sum(len(verdict_map.elements) for verdict_map in table.verdict_maps)
        sizes.append(rules + elements)
    assert sizes[1] <= 6 * sizes[0]
    assert sizes[1] <= 200 * 200


def test_what_people_write_is_no_crowd() -> None:
    """Many rules with source ports are told apart by look-ups as long as they don't all overlap."""
    rules = [
        rule(f"r{number}", ACCEPT, TCP, str(1000 + number), "0.0.0.0/0", source_ports="1024-65535")
        for number in range(500)
    ]
    (interface,) = policy_of(group("sg-1", *rules), on={"eth0": "sg-1"}).interfaces
    entries = list_entries(interface, IN, Family.IPV4, Memo())
    assert not is_crowd(entries, range(len(entries)), ())
    (interface,) = crowd(Random(1), 100).interfaces
    entries = list_entries(interface, IN, Family.IPV4, Memo())
    assert is_crowd(entries, range(len(entries)), ())
