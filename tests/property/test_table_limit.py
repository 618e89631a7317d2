"""Rules with many overlapping source ports: a list in order of precedence, not a table without bounds."""

from __future__ import annotations

from itertools import count as count_from

from hypothesis import given

from sgagent.compiler.decision_list import list_entries
from sgagent.compiler.port_table import exceeds_table_limit
from sgagent.core.evaluate import Tracking, evaluate
from sgagent.core.memo import Memo
from sgagent.core.model import ALL_PROTOCOLS, TCP, UDP, Family, Policy, SecurityGroup, SecurityGroupRule
from tests.draws import Draws, SeededDraws
from tests.generators import described, random_packets
from tests.property.test_compiled import compiled, expected_counters, untracked
from tests.strategies import draws, examples, noted_groups
from tests.tracing import walk, walk_reply
from tests.words import ACCEPT, DROP, IN, group, policy_of, rule


def overlapping_rules(draws: Draws, count: int) -> SecurityGroup:
    """Return a group of rules for nested networks whose ports and source ports overlap at random."""
    numbers = count_from(0)

    def ports(draws: Draws, most: int) -> str:
        first = draws.randint(1, most - 1)
        return f"{first}-{draws.randint(first, 65535)}"

    def drawn(draws: Draws) -> SecurityGroupRule:
        protocol = draws.choice((TCP, TCP, TCP, UDP, ALL_PROTOCOLS))
        return rule(
            f"r{next(numbers)}",
            draws.choice(tuple(Policy)),
            protocol,
            draws.choice((ports(draws, 2000), ports(draws, 2000), "")) if protocol.has_ports else "",
            draws.choice((f"10.0.0.0/{draws.randint(8, 32)}", "10.0.0.0/8", "0.0.0.0/0")),
            priority=draws.randint(1, 100),
            source_ports=ports(draws, 3000) if protocol.has_ports else "",
            local="10.0.0.0/30" if draws.chance(10) else None,
        )

    rules = draws.many(drawn, count, is_full=True)
    return group("sg-1", *rules, inner=DROP)


@examples(25)
@given(draws())
def test_a_list_decides_as_the_specification(draws: Draws) -> None:
    """Tracked sessions, their replies, and packets that conntrack does not follow."""
    policy = policy_of(*noted_groups(overlapping_rules(draws, 60)), on={"eth0": "sg-1"})
    table = compiled(policy)
    for judged in random_packets(draws, policy, 30):
        accepted = evaluate(policy, judged).verdict is ACCEPT
        replies = [walk_reply(table, judged)] if judged.tracking is Tracking.NEW else []
        for seen in (walk(table, judged), *replies):
            assert seen.accepted is accepted, described(judged)
            assert seen.counted == expected_counters(policy, judged), described(judged)
        alone = untracked(judged, draws)
        assert walk(table, alone).counted == expected_counters(policy, alone), described(alone)


def test_a_table_stays_within_bounds() -> None:
    """Twice the rules make about four times the table; one of all combinations would make eight times."""
    sizes = []
    for count in (100, 200):
        table = compiled(policy_of(overlapping_rules(SeededDraws(1), count), on={"eth0": "sg-1"}))
        rules = sum(len(chain.rules) for chain in table.chains)
        elements = sum(len(verdict_map.elements) for verdict_map in table.verdict_maps)
        sizes.append(rules + elements)
    assert sizes[1] <= 6 * sizes[0]
    assert sizes[1] <= 200 * 200


def test_what_people_write_fits_a_table() -> None:
    """Many rules with source ports are told apart by look-ups as long as they don't all overlap."""
    rules = [
        rule(f"r{number}", ACCEPT, TCP, str(1000 + number), "0.0.0.0/0", source_ports="1024-65535")
        for number in range(500)
    ]
    (interface,) = policy_of(group("sg-1", *rules), on={"eth0": "sg-1"}).interfaces
    entries = list_entries(interface, IN, Family.IPV4, Memo())
    assert not exceeds_table_limit(entries, range(len(entries)), ())
    (interface,) = policy_of(overlapping_rules(SeededDraws(1), 100), on={"eth0": "sg-1"}).interfaces
    entries = list_entries(interface, IN, Family.IPV4, Memo())
    assert exceeds_table_limit(entries, range(len(entries)), ())
