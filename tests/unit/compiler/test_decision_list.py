"""Bring what decides about one direction and family into one list."""

from __future__ import annotations

from sgagent.compiler.decision_list import INNER_PEER, Entry, list_entries
from sgagent.core.memo import Memo
from sgagent.core.model import ALL_PROTOCOLS, ICMP, ICMPV6, TCP, Family, PortList
from sgagent.core.policy import Exemption, ResolvedPolicy
from sgagent.core.resolve import Exemptions
from tests.words import ACCEPT, DROP, IN, OUT, block, group, policy_of, resolution, rule, snapshot


def entries(policy: ResolvedPolicy, family: Family = Family.IPV4) -> tuple[Entry, ...]:
    """Return the entries of sessions opened inwards through the one interface."""
    return list_entries(policy.interfaces[0], IN, family, Memo())


def test_the_whole_family_is_everyone() -> None:
    """A rule for 0.0.0.0/0 holds for every IPv4 address, one for ::/0 for every IPv6 address."""
    policy = policy_of(
        group("sg-1", rule("r4", ACCEPT, TCP, "80", "0.0.0.0/0"), rule("r6", ACCEPT, TCP, "80", "::/0"))
    )
    assert [entry.has_any_peer for entry in entries(policy)] == [True]
    assert [entry.has_any_peer for entry in entries(policy, Family.IPV6)] == [True]


def test_a_part_of_ipv6_is_not_everyone() -> None:
    """``::/96`` has the numbers of all IPv4 addresses, and is a small part of IPv6 all the same."""
    policy = policy_of(group("sg-1", rule("r1", ACCEPT, ALL_PROTOCOLS, "", "::/96")))
    assert not entries(policy, Family.IPV6)[0].has_any_peer


def test_exemptions_and_members_stand_before_rules() -> None:
    """The order is that of §3: platform, fail-safe, fellow members, rules."""
    platform = Exemption(direction=IN, peer=block("10.0.0.9"), protocol=ALL_PROTOCOLS)
    failsafe = Exemption(direction=IN, peer=block("10.0.0.8"), protocol=TCP)
    definitions = snapshot(group("sg-1", rule("r1", DROP, TCP, "80", "10.0.0.7"), members=["10.0.0.6"]))
    found = resolution(definitions, exemptions=Exemptions(platform=(platform,), failsafe=(failsafe,)))
    assert [entry.leaf for entry in entries(found.policy)] == [
        "platform/eth0/ingress",
        "failsafe/eth0/ingress",
        "inner/eth0",
        "rule/eth0/r1",
    ]
    assert [entry.peer for entry in entries(found.policy)] == ["10.0.0.9", "10.0.0.8", INNER_PEER, "10.0.0.7"]
    assert [entry.is_exempt for entry in entries(found.policy)] == [True, True, True, False]


def test_what_cannot_match_the_family_is_left_out() -> None:
    """A rule is listed only for the families that its object, protocol and near end have."""
    policy = policy_of(
        group(
            "sg-1",
            rule("both", ACCEPT, TCP, "80", "sg-2"),
            rule("icmp", ACCEPT, ICMP, "", "sg-2"),
            rule("icmpv6", ACCEPT, ICMPV6, "", "sg-2"),
            rule("near", ACCEPT, TCP, "81", "sg-2", local="2001:db8::/64"),
        ),
        group("sg-2", members=["10.0.0.2", "2001:db8::2"]),
        on={"eth0": "sg-1"},
    )
    assert [entry.leaf.rpartition("/")[2] for entry in entries(policy)] == ["both", "icmp"]
    assert [e.leaf.rpartition("/")[2] for e in entries(policy, Family.IPV6)] == ["both", "icmpv6", "near"]


def test_a_rule_without_any_port_is_left_out() -> None:
    """An empty port list matches nothing (§5.3)."""
    policy = policy_of(
        group("sg-1", rule("r1", ACCEPT, TCP, "prl-1", "10.0.0.2")),
        PortList(port_list_id="prl-1"),
        on={"eth0": "sg-1"},
    )
    assert entries(policy) == ()


def test_a_near_end_that_is_everywhere_makes_nothing_less_plain() -> None:
    """``local_address: 0.0.0.0/0`` constrains nothing."""
    policy = policy_of(
        group(
            "sg-1",
            rule("a", ACCEPT, TCP, "80", "10.0.0.2", local="0.0.0.0/0"),
            rule("b", ACCEPT, TCP, "80", "10.0.0.2", local="10.0.0.0/8"),
            rule("c", ACCEPT, TCP, "80", "10.0.0.2", source_ports="1024-65535"),
        )
    )
    assert [entry.is_plain for entry in entries(policy)] == [True, False, False]


def test_each_direction_has_its_own_list() -> None:
    """Rules of the other direction are not listed."""
    policy = policy_of(group("sg-1", rule("r1", ACCEPT, TCP, "80", "10.0.0.2", direction=OUT)))
    assert entries(policy) == ()
    outwards = list_entries(policy.interfaces[0], OUT, Family.IPV4, Memo())
    assert [entry.leaf for entry in outwards] == ["platform/eth0/egress", "rule/eth0/r1"]
