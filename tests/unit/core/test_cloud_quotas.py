"""Quotas of the cloud, counted as it counts."""

from __future__ import annotations

from dataclasses import replace

from sgagent.core.cloud_quotas import CloudLimit, cloud_ratios, quota_uses, rule_weight
from sgagent.core.model import TCP, CidrBlock, Family, GroupType, PrefixList
from tests.words import ACCEPT, group, interface, rule, snapshot

ENTRIES = tuple(CidrBlock.parse(f"10.{number}.0.0/16") for number in range(100))
LIST = PrefixList(prefix_list_id="pl-a", family=Family.IPV4, entries=ENTRIES)


def test_a_list_counts_as_its_entries() -> None:
    """Eleven rules with a list of 100 are 1,100 of 1,000; the maximum of entries counts where it is known."""
    rules = [rule(f"r-{port}", ACCEPT, TCP, f"{port}", "pl-a") for port in range(1, 12)]
    definitions = snapshot(group("sg-a", *rules), LIST, interface("eni-1", ["sg-a"], ["10.0.0.1"]))
    assert cloud_ratios(definitions)[CloudLimit.RULES_PER_INTERFACE] == 1.1
    larger = snapshot(group("sg-a", *rules), replace(LIST, max_entries=200))
    assert rule_weight(larger.security_groups[0].rules[0], larger) == 200


def test_objects_times_ports() -> None:
    """Several objects and several ports are their product."""
    one = rule("r", ACCEPT, TCP, "80, 443", "10.0.0.1")
    both = replace(one, authorization_objects=(*one.authorization_objects, CidrBlock.parse("10.0.0.2")))
    definitions = snapshot(group("sg-a", both))
    assert rule_weight(both, definitions) == 2 * len(both.ports.ranges)  # type: ignore[union-attr] # a port set


def test_addresses_of_basic_groups() -> None:
    """6,001 are one too many; an advanced group takes more."""
    members = ["10.0.0.0/20", "10.1.0.0/21"]
    for group_type, expected in ((GroupType.BASIC, [6144]), (GroupType.ADVANCED, [])):
        definitions = snapshot(replace(group("sg-a", members=members), group_type=group_type))
        uses = [one for one in quota_uses(definitions) if one.limit is CloudLimit.ADDRESSES_PER_BASIC_GROUP]
        assert [one.used for one in uses] == expected
