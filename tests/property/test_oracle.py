"""What a native document means, by a judge that was written from the text alone (§4, §5, §12)."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given, note

from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.evaluate import DecidedBy, Packet, evaluate
from sgagent.core.model import Direction, Family
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from tests.draws import Draws
from tests.oracle import Address, Attempt, Document, judge
from tests.strategies import draws, examples

NOW = dt.datetime(2026, 11, 27, 12, tzinfo=dt.UTC)
TIMES = tuple(NOW + dt.timedelta(seconds=seconds) for seconds in (-1, 0, 1))
ENDS = (
    "2026-11-27T12:00:00Z",
    "2026-11-27T13:00:00+01:00",
    "2026-11-27T06:29:59.5-05:30",
    "2026-11-27t12:00:01z",
)
NETWORKS = {
    4: ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10.1.2.2/31", "192.0.2.0/24", "192.0.2.7"),
    6: ("::/0", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::3", "fd00::/8", "2001:db8:1::2/127"),
}
ADDRESSES: dict[int, Sequence[str]] = {
    4: ("10.1.2.3", "10.1.2.2", "10.1.2.4", "10.200.0.1", "192.0.2.7", "192.0.2.8", "203.0.113.9"),
    6: ("2001:db8:1::3", "2001:db8:1::2", "2001:db8:2::", "2001:db8:ffff::1", "fd00::1"),
}
PORTS = (22, 53, 80, 443, 8080)
PORT_RANGES = (22, "53", "80/443", "443-443", "1/65535", "8080/8081")
PORTED: tuple[str | int, ...] = ("tcp", "UDP", 6, "17")
PORTLESS: tuple[str | int, ...] = ("gre", "icmp", "ICMPv6", 253)
GROUPS = ("sg-0", "sg-1", "sg-2")


def drawn_document(draws: Draws) -> dict[str, Any]:
    """Draw a document that has no errors."""
    document = {
        "version": 1,
        "security_groups": [
            {
                "security_group_id": group,
                "inner_access_policy": "drop",
                "member_addresses": [drawn_address(draws) for _ in range(draws.randint(0, 2))],
                "rules": [],
            }
            for group in GROUPS
        ],
        "prefix_lists": [
            {
                "prefix_list_id": f"pl-{family}",
                "address_family": f"ipv{family}",
                "entries": [draws.choice(NETWORKS[family]) for _ in range(draws.randint(0, 3))],
            }
            for family in (4, 6)
        ],
        "port_lists": [{"port_list_id": "prl-1", "entries": draws.sample(PORT_RANGES, draws.randint(0, 2))}],
        "network_interfaces": [
            {
                "network_interface_id": f"eni-{number}",
                "addresses": [drawn_address(draws)],
                "security_group_ids": draws.sample(GROUPS, draws.randint(0, 2)),
            }
            for number in range(2)
        ],
    }
    rules = draws.many(drawn_rule, 8)
    document["security_groups"][0]["rules"] = [  # type: ignore[index] # it was made so above
        {"rule_id": f"sgr-{number}", **rule} for number, rule in enumerate(rules)
    ]
    return document


def drawn_address(draws: Draws) -> str:
    """Draw an address of either family."""
    return draws.choice(ADDRESSES[draws.choice((4, 6))])


def drawn_rule(draws: Draws) -> dict[str, Any]:
    """Draw a rule, often with several objects and protocols."""
    policy = draws.choice(("accept", "drop"))
    local = draws.choice((4, 6)) if draws.chance(20) else None
    protocols = drawn_protocols(draws, local)
    objects = [drawn_object(draws, policy, local) for _ in range(draws.choice((1, 1, 2, 3, 5)))]
    numbers = {str(protocol).lower() for protocol in protocols}
    for name, family in (("icmp", 4), ("icmpv6", 6)):
        if name in numbers:
            objects.append(draws.choice(NETWORKS[family]))
    rule: dict[str, Any] = {
        "direction": draws.choice(("ingress", "egress")),
        "policy": policy,
        "priority": draws.choice((1, 1, 2, 3)),
        "protocol": protocols if len(protocols) > 1 or draws.chance(20) else protocols[0],
        "authorization_object": objects if len(objects) > 1 or draws.chance(20) else objects[0],
    }
    if all(protocol in PORTED for protocol in protocols):
        if draws.chance(20):
            rule["port_list_id"] = "prl-1"
        else:
            rule["port_range"] = draws.sample(PORT_RANGES, draws.randint(1, 2))
        if draws.chance(20):
            rule["source_port_range"] = draws.choice(PORT_RANGES)
    elif any(protocol in PORTED for protocol in protocols):
        rule["port_range"] = "-1/-1"
    if draws.chance(25):
        rule["expires"] = draws.choice(ENDS)
    if local is not None:
        rule["local_address"] = draws.choice(NETWORKS[local])
    return rule


def drawn_protocols(draws: Draws, local: int | None) -> list[str | int]:
    """Draw one protocol or several that go together, given the family of a local address."""
    if draws.chance(20):
        return ["all"]
    by_number: dict[str, str | int] = {}
    for _ in range(draws.choice((1, 1, 2, 3))):
        protocol = draws.choice(PORTED if draws.chance(70) else PORTLESS)
        by_number.setdefault({"tcp": "6", "udp": "17"}.get(str(protocol).lower(), str(protocol)), protocol)
    other = {4: "ICMPv6", 6: "icmp"}.get(local or 0)
    return [one for one in by_number.values() if one != other] or ["tcp"]


def drawn_object(draws: Draws, policy: str, local: int | None) -> str:
    """Draw an object, given the family of a local address."""
    family = local or draws.choice((4, 6))
    kind = draws.randint(0, 99)
    if kind >= 95 and local is None:
        return draws.choice(("any", "Any"))
    if kind >= 90 and policy == "accept":
        return draws.choice(("sg-unknown", "pl-unknown"))
    if kind >= 65:
        return draws.choice(GROUPS)
    return f"pl-{family}" if kind >= 50 else draws.choice(NETWORKS[family])


def drawn_attempt(draws: Draws) -> Attempt:
    """Draw a packet."""
    family = draws.choice((4, 6))
    source, destination = (ipaddress.ip_address(draws.choice(ADDRESSES[family])) for _ in range(2))
    protocol = draws.choice((6, 6, 6, 17, 17, 1, 58, 47, 253, 132))
    ports = (draws.choice(PORTS), draws.choice(PORTS)) if protocol in (6, 17) else (None, None)
    return Attempt(draws.choice(("ingress", "egress")), source, destination, protocol, *ports)


def policy_of(document: Document, at: dt.datetime) -> ResolvedPolicy:
    """Return what the document comes to where the first group is on the link, at a time."""
    found, _ = parse_documents([DocumentFile("a.json", json.dumps(document).encode())], Limits())
    bound = bind(
        found,
        [HandBinding(interface="eth0", security_group_ids=(GROUPS[0],))],
        HostFacts(),
        automatically=False,
    )
    resolution = resolve(found, bound, Exemptions(), at=at)
    assert not resolution.errors
    return resolution.policy


def packet_of(attempt: Attempt) -> Packet:
    """Return a packet in the words of the specification; ICMP asks, and is no neighbour's."""
    return Packet(
        interface="eth0",
        direction=Direction(attempt.direction),
        family=family_of(attempt.source),
        source=int(attempt.source),
        destination=int(attempt.destination),
        protocol=attempt.protocol,
        source_port=attempt.source_port,
        destination_port=attempt.port,
        icmp_type=None,
        hop_limit=64,
    )


def family_of(address: Address) -> Family:
    """Return the family of an address."""
    return Family.IPV4 if address.version == 4 else Family.IPV6


@examples(120)
@given(draws())
def test_a_document_means_what_the_text_says(draws: Draws) -> None:
    """Verdict and rule of each packet, by every list of objects and protocols."""
    document = drawn_document(draws)
    note(json.dumps(document, indent=1))
    at = draws.choice(TIMES)
    policy = policy_of(document, at)
    for attempt in draws.many(drawn_attempt, 40, is_full=True):
        decision = evaluate(policy, packet_of(attempt))
        rule_id = decision.rule.rule_id if decision.decided_by is DecidedBy.RULE and decision.rule else None
        assert (decision.verdict.value, rule_id) == judge(document, GROUPS[0], attempt, at), attempt
