"""Write a short policy as a list, and tell which policies are short."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from sgagent.compiler.decision_list import list_entries
from sgagent.compiler.linear import (
    ALIKE,
    MOST_ADDRESSES,
    MOST_LINES,
    MOST_MEMBERS,
    FarEndMaps,
    entry_rules,
    is_short,
    protocol_rules,
    separate_protocols,
    up_to,
)
from sgagent.compiler.selectors import readings
from sgagent.core.memo import Memo
from sgagent.core.model import (
    ALL_PROTOCOLS,
    ICMP,
    TCP,
    UDP,
    Direction,
    Family,
    PortSet,
    Protocol,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.nft.ruleset import KeyType
from sgagent.nft.text import element_text, rule_text
from tests.words import ACCEPT, DROP, IN, OUT, group, policy_of, rule


def written(
    *rules: SecurityGroupRule,
    direction: Direction = IN,
    live: bool = False,
    groups: tuple[SecurityGroup, ...] = (),
) -> list[str]:
    """Return the lines of a group's rules, of sessions opened inwards and read by header unless said."""
    there = group("sg-2", members=["10.0.0.2", "10.0.0.3", "10.0.0.9"])
    policy = policy_of(group("sg-1", *rules), there, *groups, on={"eth0": "sg-1"})
    entries = list_entries(policy.interfaces[0], direction, Family.IPV4, Memo())
    of_rules = [entry for entry in entries if not entry.is_exempt]
    by_session, by_header = readings(direction, Family.IPV4)
    return [rule_text(line) for line in entry_rules(of_rules, by_session if live else by_header, far_ends())]


def accepting(rule_id: str, direction: Direction = IN) -> str:
    """Return how lines of a rule that accepts end."""
    return f'counter name "rule/eth0/{rule_id}" goto accept/eth0/{direction.value}'


def far_ends() -> FarEndMaps:
    """Return what collects the maps of a list."""
    return FarEndMaps("objects", (KeyType.IPV4_ADDR,))


def test_lines_stand_in_the_order_in_which_rules_decide() -> None:
    """Priority orders lines, and drop stands before accept; the port is compared before the far end."""
    assert written(
        rule("r1", ACCEPT, TCP, "80", "10.0.0.0/8", priority=2),
        rule("r2", ACCEPT, UDP, "53-54", "0.0.0.0/0"),
        rule("r3", DROP, ICMP, "", "10.9.0.0/16"),
        rule("r4", DROP, ALL_PROTOCOLS, "", "10.0.0.7", priority=3),
    ) == [
        "meta l4proto icmp ip saddr 10.9.0.0/16 goto rule/eth0/r3",
        f"udp dport 53-54 {accepting('r2')}",
        f"tcp dport 80 ip saddr 10.0.0.0/8 {accepting('r1')}",
        "ip saddr 10.0.0.7 goto rule/eth0/r4",
    ]


def test_networks_are_looked_up_in_a_map() -> None:
    """Neighbours are one range; an anonymous set of ranges would be empty until its commit ends."""
    policy = policy_of(
        group("sg-1", rule("r1", ACCEPT, TCP, "80", "sg-2")),
        group("sg-2", members=["10.0.0.2", "10.0.0.3", "10.0.0.9"]),
        on={"eth0": "sg-1"},
    )
    entries = [e for e in list_entries(policy.interfaces[0], IN, Family.IPV4, Memo()) if not e.is_exempt]
    found, (by_session, by_header) = far_ends(), readings(IN, Family.IPV4)
    lines = [rule_text(line) for way in (by_header, by_session) for line in entry_rules(entries, way, found)]
    (made,) = found.made.values()
    assert lines == [
        f"tcp dport 80 ip saddr vmap @{made.name}",
        f"ct protocol tcp ct original proto-dst 80 ct original ip saddr vmap @{made.name}",
    ]
    assert [element_text(element, made.key_types) for element in made.elements] == [
        "10.0.0.2/31 : goto rule/eth0/r1",
        "10.0.0.9 : goto rule/eth0/r1",
    ]


def test_single_addresses_are_compared_in_the_rule() -> None:
    """A set of single addresses is a hash set, which the kernel shows at once."""
    (line,) = written(
        rule("r1", ACCEPT, TCP, "80", "sg-3"), groups=(group("sg-3", members=["10.0.0.2", "10.0.0.9"]),)
    )
    assert line == f"tcp dport 80 ip saddr {{ 10.0.0.2, 10.0.0.9 }} {accepting('r1')}"


_LIVE = "ct protocol udp ct reply proto-dst 7 ct reply proto-src 53"


@pytest.mark.parametrize(
    ("direction", "live", "line"),
    (
        (IN, False, "udp sport 7 udp dport 53 ip saddr 10.0.0.2 ip daddr 10.0.0.1"),
        (OUT, False, "udp sport 7 udp dport 53 ip saddr 10.0.0.1 ip daddr 10.0.0.2"),
        (OUT, True, f"{_LIVE} ct reply ip saddr 10.0.0.2 ct reply ip daddr 10.0.0.1"),
    ),
)
def test_fields_stand_in_the_order_of_the_header(direction: Direction, *, live: bool, line: str) -> None:
    """So libnftables lists them; and far and near end are where the direction has them."""
    looks_further = rule(
        "r1", ACCEPT, UDP, "53", "10.0.0.2", direction=direction, source_ports="7", local="10.0.0.1"
    )
    assert written(looks_further, direction=direction, live=live) == [f"{line} {accepting('r1', direction)}"]


def test_of_one_protocol_alone_it_is_not_asked_for() -> None:
    """But where no port is compared, as a packet may be too broken to have one, and where both are."""
    policy = policy_of(
        group(
            "sg-1",
            rule("r1", ACCEPT, TCP, "80", "10.0.0.2", priority=1),
            rule("r2", ACCEPT, UDP, "53", "10.0.0.2", priority=2),
            rule("r3", ACCEPT, TCP, "81", "10.0.0.2", priority=3, source_ports="7"),
            rule("r4", ACCEPT, ALL_PROTOCOLS, "", "10.0.0.3", priority=4),
            rule("r5", ACCEPT, TCP, "", "10.0.0.4", priority=5),
            inner=DROP,
        )
    )
    entries = list_entries(policy.interfaces[0], IN, Family.IPV4, Memo())
    _, by_header = readings(IN, Family.IPV4)
    assert [rule_text(line) for line in protocol_rules(entries, TCP, by_header, far_ends())] == [
        f"th dport 80 ip saddr 10.0.0.2 {accepting('r1')}",
        f"tcp sport 7 tcp dport 81 ip saddr 10.0.0.2 {accepting('r3')}",
        f"ip saddr 10.0.0.3 {accepting('r4')}",
        f"meta l4proto tcp ip saddr 10.0.0.4 {accepting('r5')}",
    ]


@pytest.mark.parametrize(
    ("of_tcp", "of_udp", "expected"),
    (
        (ALIKE, ALIKE, (TCP, UDP)),
        (ALIKE, ALIKE - 1, (TCP,)),
        (ALIKE - 1, ALIKE, (UDP,)),
        (ALIKE - 1, ALIKE - 1, ()),
    ),
)
def test_protocols_are_split_by_lines(of_tcp: int, of_udp: int, expected: tuple[Protocol, ...]) -> None:
    """Those that look at the source port gain nothing, and do not count."""
    rules = (
        *many_rules(of_tcp),
        *many_rules(of_udp, UDP),
        rule("r0", ACCEPT, TCP, "80", "10.0.0.2", source_ports="7"),
    )
    policy = policy_of(group("sg-1", *rules))
    assert separate_protocols(list_entries(policy.interfaces[0], IN, Family.IPV4, Memo())) == expected


def many_rules(count: int, protocol: Protocol = TCP) -> tuple[SecurityGroupRule, ...]:
    """Return so many rules of one port each."""
    return tuple(
        rule(f"{protocol}-{number}", ACCEPT, protocol, f"{9 + number}", "10.0.0.2") for number in range(count)
    )


def with_ports(count: int) -> SecurityGroupRule:
    """Return a rule of so many ports."""
    ports = PortSet.of(*((first, first) for first in range(10, 10 + 2 * count, 2)))
    return replace(rule("r1", ACCEPT, TCP, "80", "10.0.0.2"), ports=ports)


@pytest.mark.parametrize(
    ("rules", "expected"),
    (
        (many_rules(MOST_LINES), True),
        (many_rules(MOST_LINES + 1), False),
        ((with_ports(MOST_LINES),), True),
        ((with_ports(MOST_LINES + 1),), False),
        ((rule("r1", ACCEPT, TCP, "80", "sg-many"), rule("r2", ACCEPT, TCP, "81", "10.0.0.2")), True),
        ((rule("r1", ACCEPT, TCP, "80", "sg-many"), rule("r2", ACCEPT, TCP, "81", "sg-many")), False),
    ),
)
def test_short_by_lines_and_addresses(rules: tuple[SecurityGroupRule, ...], *, expected: bool) -> None:
    """Each port is a line; a range of addresses counts once in each line that names it."""
    members = [f"10.0.{number // 100}.{number % 100 * 2}" for number in range(MOST_ADDRESSES - 1)]
    policy = policy_of(group("sg-1", *rules), group("sg-many", members=members), on={"eth0": "sg-1"})
    entries = list_entries(policy.interfaces[0], IN, Family.IPV4, Memo())
    assert is_short(entries, MOST_LINES) is expected


@pytest.mark.parametrize(("count", "expected"), ((MOST_MEMBERS, True), (MOST_MEMBERS + 1, False)))
def test_members_are_counted_before_they_are_joined(count: int, *, expected: bool) -> None:
    """A large group is no list, be it one range: to tell would take time at each change."""
    members = [str(IPv4Address("10.0.0.0") + number) for number in range(count)]
    rules, there = rule("r1", ACCEPT, TCP, "80", "sg-2"), group("sg-2", members=members)
    policy = policy_of(group("sg-1", rules, inner=DROP), there, on={"eth0": "sg-1"})
    entries = list_entries(policy.interfaces[0], IN, Family.IPV4, Memo())
    assert is_short(entries, MOST_LINES) is expected


def test_nothing_stands_behind_what_decides_about_all() -> None:
    """What is left is cut off there, and so is the entry itself."""
    policy = policy_of(
        group(
            "sg-1",
            rule("r1", ACCEPT, TCP, "80", "10.0.0.2", priority=1),
            rule("r2", DROP, ALL_PROTOCOLS, "", "0.0.0.0/0", priority=2),
            rule("r3", ACCEPT, TCP, "81", "10.0.0.2", priority=3),
        )
    )
    entries = list_entries(policy.interfaces[0], IN, Family.IPV4, Memo())
    kept, last = up_to(entries, lambda entry: entry.has_any_peer and entry.is_for_all)
    assert [entry.leaf for entry in kept] == ["rule/eth0/r1"]
    assert last is not None
    assert last.leaf == "rule/eth0/r2"
