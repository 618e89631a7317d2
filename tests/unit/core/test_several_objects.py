"""Rules with several objects and protocols, resolved and judged (§12.1, §12.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.compiler.decision_list import list_entries
from sgagent.core.errors import Severity
from sgagent.core.memo import Memo
from sgagent.core.model import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Family,
    Policy,
    PrefixList,
    Protocol,
    Protocols,
    SecurityGroupRule,
)
from sgagent.core.resolve import Exemptions, resolve
from tests.unit.core.test_resolve import codes, errors
from tests.words import (
    ACCEPT,
    ADVANCED,
    DROP,
    IN,
    OUT,
    by_hand,
    group,
    interface,
    packet,
    policy_of,
    resolution,
    rule,
    snapshot,
    verdict,
)

OBJECTS = "10.0.0.0/8,2001:db8::/32,sg-app"
WEB = rule("r", ACCEPT, (TCP, UDP), "443", OBJECTS)
LISTS = (
    PrefixList(prefix_list_id="pl-4", family=Family.IPV4),
    PrefixList(prefix_list_id="pl-6", family=Family.IPV6),
)
ON = {"eth0": "sg-1"}
APP = group("sg-app", members=["192.0.2.7", "2001:db8:ffff::7"])


@pytest.mark.parametrize(
    ("far_end", "protocol", "port", "expected"),
    (
        ("10.9.9.9", TCP, 443, ACCEPT),
        ("10.9.9.9", UDP, 443, ACCEPT),
        ("192.0.2.7", UDP, 443, ACCEPT),
        ("2001:db8::1", TCP, 443, ACCEPT),
        ("192.0.2.8", TCP, 443, DROP),
        ("fd00::1", TCP, 443, DROP),
        ("10.9.9.9", 132, 443, DROP),
        ("10.9.9.9", TCP, 80, DROP),
    ),
)
def test_any_pair_matches(far_end: str, protocol: Protocol | int, port: int, expected: Policy) -> None:
    """One rule for both families, two protocols, and three kinds of far ends."""
    assert verdict(policy_of(group("sg-1", WEB), APP, on=ON), packet(IN, far_end, protocol, port)) is expected


def test_any_is_everybody_of_both_families() -> None:
    """Which 0.0.0.0/0 alone is not (§2.4)."""
    policy = policy_of(group("sg-1", rule("r", DROP, TCP, "25", "any", direction=OUT)))
    for far_end in ("8.8.8.8", "2001:db8::8"):
        assert verdict(policy, packet(OUT, far_end, TCP, 25)) is DROP
        assert verdict(policy, packet(OUT, far_end, TCP, 26)) is ACCEPT


def test_ping_of_both_families_in_one_rule() -> None:
    """Each protocol in its own family."""
    policy = policy_of(group("sg-1", rule("r", ACCEPT, (ICMP, ICMPV6), "", "any")))
    assert verdict(policy, packet(IN, "8.8.8.8", ICMP, icmp_type=8)) is ACCEPT
    assert verdict(policy, packet(IN, "2001:db8::8", ICMPV6, icmp_type=128)) is ACCEPT
    assert verdict(policy, packet(IN, "8.8.8.8", ICMPV6, icmp_type=128)) is DROP


def test_of_groups_only_members_of_the_local_family_match() -> None:
    """A local address has one family (§4.5)."""
    policy = policy_of(group("sg-1", rule("r", ACCEPT, TCP, "80", "sg-app", local="10.0.0.0/8")), APP, on=ON)
    assert verdict(policy, packet(IN, "192.0.2.7", TCP, 80)) is ACCEPT
    assert verdict(policy, packet(IN, "2001:db8:ffff::7", TCP, 80)) is DROP


def test_an_unknown_object_of_an_accept_matches_nothing_and_the_others_stay() -> None:
    """With a warning for each that is unknown (§5.3)."""
    found = resolution(snapshot(group("sg-1", rule("r", ACCEPT, TCP, "80", "sg-no,10.0.0.0/8,pl-no"))))
    assert [(problem.severity, problem.code, problem.value) for problem in found.problems] == [
        (Severity.WARNING, "unknown_object", "sg-no"),
        (Severity.WARNING, "unknown_object", "pl-no"),
    ]
    assert found.unknown_objects == 2
    assert verdict(found.policy, packet(IN, "10.0.0.9", TCP, 80)) is ACCEPT


def test_an_unknown_object_of_a_drop_refuses_the_snapshot() -> None:
    """Also beside others: dropping less than was meant would open something."""
    found = resolution(snapshot(group("sg-1", rule("r", DROP, TCP, "80", "sg-no,10.0.0.0/8"))))
    assert errors(found) == ["unknown_object_in_drop"]


def test_one_list_means_different_members_by_account() -> None:
    """What a plain group stands for depends on whose rule it is, so two rules with one list may differ."""
    rules = [rule(f"r{number}", ACCEPT, TCP, f"{number}", "sg-app,10.0.0.0/8") for number in (1, 2)]
    own = group("sg-1", rules[0], account="1")
    other = group("sg-2", rules[1], account="2")
    app = group("sg-app", members=["192.0.2.7"], account="1")
    policy = policy_of(own, other, app, on={"eth0": "sg-1,sg-2"})
    assert verdict(policy, packet(IN, "192.0.2.7", TCP, 1)) is ACCEPT
    assert verdict(policy, packet(IN, "192.0.2.7", TCP, 2)) is DROP
    entries = list_entries(policy.interfaces[0], IN, Family.IPV4, Memo())
    assert len({entry.peer for entry in entries if entry.leaf.startswith("rule/")}) == 2


@pytest.mark.parametrize(
    ("protocols", "other_end", "expected"),
    (
        ((ICMP, ICMPV6), "pl-4", ["family_of_protocol"]),
        ((ICMP, ICMPV6), "pl-4,pl-6", []),
        ((ICMP, ICMPV6), "pl-4,2001:db8::1", []),
        ((ICMP, ICMPV6), "pl-4,sg-app", []),
        ((ICMP, ICMPV6), "pl-4,10.0.0.0/8", ["family_of_protocol"]),
        ((ICMPV6, TCP), "pl-4,10.0.0.0/8", ["family_of_protocol"]),
    ),
)
def test_each_protocol_needs_an_object(protocols: Protocols, other_end: str, expected: list[str]) -> None:
    """Prefix lists have a family, which is known once they are."""
    ports = "80" if TCP in protocols else ""
    asking = replace(rule("r", ACCEPT, TCP, ports, other_end), protocols=protocols)
    assert errors(resolution(snapshot(group("sg-1", asking), APP, *LISTS))) == expected


def test_lists_have_the_family_of_the_local_address() -> None:
    """Each that has not is an error of its own."""
    several = rule("r", ACCEPT, TCP, "80", "pl-4,pl-6,10.0.0.0/8", local="10.0.0.0/8")
    found = resolution(snapshot(group("sg-1", several), *LISTS))
    assert [(problem.code, problem.value) for problem in found.errors] == [("mixed_families", "pl-6")]


def test_a_rule_with_groups_counts_once_among_group_objects() -> None:
    """The cloud counts rules, not objects (§8.2)."""
    rules = [rule(f"r{number}", ACCEPT, TCP, f"{number}", "sg-app,sg-2") for number in range(1, 21)]
    assert codes(resolution(snapshot(group("sg-1", *rules), APP, group("sg-2")))) == []
    found = resolution(snapshot(group("sg-1", WEB, group_type=ADVANCED), APP), on=ON)
    assert [problem.value for problem in found.problems] == ["sg-app"]


def test_all_groups_of_a_list_are_depended_on() -> None:
    """A member of another VPC in any of them is an error here (§8.3)."""
    several = group("sg-1", rule("r", ACCEPT, TCP, "80", "10.0.0.0/8,sg-2,sg-3"), vpc="vpc-1")
    for attached in ("sg-2", "sg-3"):
        definitions = snapshot(
            several,
            *(group(other, vpc="vpc-1") for other in ("sg-2", "sg-3")),
            interface("eni-x", [attached], ["10.0.0.5"], vpc="vpc-2"),
        )
        assert errors(resolution(definitions, on=ON)) == ["other_vpc"]


def rules_of(one: SecurityGroupRule, members: list[str], memo: Memo) -> object:
    """Return the resolved rule of a group beside another whose members are given."""
    definitions = snapshot(group("sg-1", one), group("sg-app", members=members), group("sg-other"))
    hand = by_hand(definitions, ON)
    return resolve(definitions, hand, Exemptions(), memo=memo).policy.interfaces[0].ingress.rules[0]


def test_a_rule_is_resolved_again_when_a_member_of_any_object_changes() -> None:
    """And is the very same object as long as none does."""
    memo, several = Memo(), rule("r", ACCEPT, TCP, "80", "10.0.0.0/8,sg-app,sg-other")
    first = rules_of(several, ["192.0.2.1"], memo)
    assert rules_of(several, ["192.0.2.1"], memo) is first
    assert rules_of(several, ["192.0.2.1", "192.0.2.2"], memo) != first
