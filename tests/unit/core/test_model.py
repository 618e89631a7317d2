"""The cloud's own words as values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    CidrBlock,
    Family,
    GroupReference,
    PortListReference,
    PortSet,
    PrefixListReference,
    Protocol,
)
from sgagent.core.policy import precedence
from tests.words import ACCEPT, DROP, block, group, policy_of, rule, snapshot


@pytest.mark.parametrize(
    ("thing", "text"),
    (
        (Protocol(6), "tcp"),
        (Protocol(47), "gre"),
        (Protocol(253), "253"),
        (ALL_PROTOCOLS, "all"),
        (PortSet.of((443, 443), (80, 81)), "80/81,443/443"),
        (PortSet(), "none"),
        (ALL_PORTS, "-1/-1"),
        (block("10.0.0.1/32"), "10.0.0.1"),
        (block("10.0.0.0/8"), "10.0.0.0/8"),
        (block("2001:db8::1"), "2001:db8::1"),
        (GroupReference("sg-1"), "sg-1"),
        (GroupReference("sg-1", "7"), "7/sg-1"),
        (PrefixListReference("pl-1"), "pl-1"),
        (PortListReference("prl-1"), "prl-1"),
    ),
)
def test_things_are_written_as_in_documents(thing: object, text: str) -> None:
    """So that messages show what a person wrote."""
    assert str(thing) == text


def test_protocols() -> None:
    """TCP and UDP have ports; ICMP is of one family, as is ICMPv6 (§4.1)."""
    assert [p.has_ports for p in (TCP, UDP, ICMP, ALL_PROTOCOLS, Protocol(132))] == [True, True, *[False] * 3]
    assert [p.only_family for p in (ICMP, ICMPV6, TCP)] == [Family.IPV4, Family.IPV6, None]


@pytest.mark.parametrize(("first", "last"), ((2, 1), (-1, 1), (0, 65536)))
def test_a_range_that_holds_no_port(first: int, last: int) -> None:
    """Reversed and out-of-range ports make no value."""
    with pytest.raises(ValueError, match="not a port range"):
        PortSet.of((first, last))


def test_blocks() -> None:
    """A block knows its ends; host bits make none."""
    assert (block("10.0.0.0/30").first, block("10.0.0.0/30").last) == (0x0A000000, 0x0A000003)
    assert block("0.0.0.0/0").is_everything
    assert block("::/0").is_everything
    assert not block("0.0.0.0/1").is_everything
    with pytest.raises(ValueError, match="host bits"):
        CidrBlock.parse("10.0.0.1/8")


WEB = rule("", ACCEPT, TCP, "80", "10.0.0.0/8")
BAN = replace(WEB, policy=DROP)


def test_objects_are_found_by_id() -> None:
    """A snapshot knows its groups."""
    assert snapshot(group("sg-1")).group_by_id["sg-1"] == group("sg-1")


def test_precedence_is_total() -> None:
    """Priority, then drop, then ids (§3.5)."""
    first = group("sg-1", *(replace(WEB, rule_id=name) for name in ("b", "a")), replace(BAN, rule_id="c"))
    second = group("sg-2", replace(WEB, rule_id="d", priority=2))
    rules = policy_of(first, second).interfaces[0].ingress.rules
    mixed = [rules[place] for place in (3, 1, 0, 2)]
    assert [one.rule_id for one in sorted(mixed, key=precedence)] == ["c", "a", "b", "d"]
