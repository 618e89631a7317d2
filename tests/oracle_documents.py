"""Draw documents with all that §12 adds, and packets that meet them; see :mod:`tests.oracle`."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sgagent.core.addresses import AddressSet
from sgagent.core.binding import HandBinding, HostFacts, Link, bind
from sgagent.core.evaluate import Packet, Tracking
from sgagent.core.model import CidrBlock, Direction, Family, Mode, SourceCheck
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.settings import Settings
from tests.draws import Draws
from tests.oracle import Address, Attempt, Document, Edge

NOW = dt.datetime(2026, 11, 27, 12, tzinfo=dt.UTC)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TIMES = tuple(NOW + dt.timedelta(seconds=seconds) for seconds in (-1, 0, 1))
ENDS = (
    "2026-11-27T12:00:00Z",
    "2026-11-27T13:00:00+01:00",
    "2026-11-27T06:29:59.5-05:30",
    "2026-11-27t12:00:01z",
    "2026-12-31T18:00:00+01:00",
    "2020-01-01T00:00:00-00:00",
)
NETWORKS: dict[int, Sequence[str]] = {
    4: ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10.1.2.2/31", "192.0.2.0/24", "192.0.2.7"),
    6: ("::/0", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::3", "fd00::/8", "2001:db8:1::2/127"),
}
ADDRESSES: dict[int, Sequence[str]] = {
    4: ("10.1.2.3", "10.1.2.2", "10.1.2.4", "10.200.0.1", "192.0.2.7", "192.0.2.8", "203.0.113.9"),
    6: ("2001:db8:1::3", "2001:db8:1::2", "2001:db8:2::", "2001:db8:ffff::1", "fd00::1", "fe80::7"),
}
OWN_ADDRESSES = (
    ("10.1.2.3", "10.1.2.2", "10.200.0.0/28", "2001:db8:1::3", "2001:db8:ffff::/64"),
    ("10.1.2.4", "192.0.2.6/31", "2001:db8:1::2", "2001:db8:2::", "fd00::1"),
)
"""What network interfaces may have: no address is on both of them."""

PORTS = (22, 53, 80, 443, 8080)
PORT_RANGES = (22, "53", "80/443", "443-443", "1/65535", "8080/8081")
PORTED: tuple[str | int, ...] = ("tcp", "UDP", 6, "17")
PORTLESS: tuple[str | int, ...] = ("gre", "icmp", "ICMPv6", 253)
ACCOUNT = "1609982529920000"
GROUPS = ("sg-0", "sg-1", "sg-2", "sg-3")
LINKS = ("eth0", "eth1")
NAMES = ("mirror.example.org", "xn--mnchen-3ya.example")


def drawn_document(draws: Draws) -> dict[str, Any]:
    """Draw a document that has no errors; two network interfaces have groups that both have rules."""
    types = {group: draws.choice(("basic", "normal", "advanced", "enterprise")) for group in GROUPS}
    numbers = iter(range(10_000))
    return {
        "version": 1,
        "account_id": ACCOUNT,
        "names": {name: draws.many(_drawn_address, 4) for name in NAMES},
        "security_groups": [
            {
                "security_group_id": group,
                "type": types[group],
                "inner_access_policy": draws.choice(("drop", "drop", "accept")),
                "member_addresses": draws.many(_drawn_member, 2),
                "rules": [{"rule_id": f"sgr-{next(numbers):02}", **rule} for rule in draws.many(_rule, 8)],
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
                "addresses": draws.sample(own, draws.randint(1, 3)),
                "security_group_ids": _of_one_type(draws, types),
            }
            for number, own in enumerate(OWN_ADDRESSES)
        ],
    }


def _of_one_type(draws: Draws, types: Mapping[str, str]) -> list[str]:
    """Draw groups for an interface: at most all of one type (§3)."""
    is_basic = types[draws.choice(GROUPS)] in ("basic", "normal")
    fitting = [group for group in GROUPS if (types[group] in ("basic", "normal")) is is_basic]
    return draws.sample(fitting, draws.randint(0 if draws.chance(10) else 1, len(fitting)))


def drawn_edges(draws: Draws) -> dict[str, Edge]:
    """Draw how links are bound, their own addresses, and whether they check sources.

    The first has its name in the configuration, which comes before each pattern (§12.5).
    """
    bound_as = (LINKS[0], draws.choice((LINKS[1], LINKS[1], "eth*", "e*", "et*", "eth1*")))
    return {
        link: Edge(
            f"eni-{number}",
            bound_as[number],
            tuple(draws.sample([*OWN_ADDRESSES[number], "fe80::7"], draws.randint(0, 2))),
            draws.chance(50),
        )
        for number, link in enumerate(LINKS)
    }


def _drawn_address(draws: Draws) -> str:
    return draws.choice(ADDRESSES[draws.choice((4, 6))])


def _drawn_member(draws: Draws) -> str:
    """Draw an address or a network."""
    family = draws.choice((4, 6))
    return draws.choice(NETWORKS[family][1:] if draws.chance(20) else ADDRESSES[family])


def _rule(draws: Draws) -> dict[str, Any]:
    """Draw a rule, often with several objects and protocols."""
    policy = draws.choice(("accept", "drop"))
    local = draws.choice((4, 6)) if draws.chance(20) else None
    protocols = _drawn_protocols(draws, local)
    objects = [_drawn_object(draws, policy, local) for _ in range(draws.choice((1, 1, 2, 3, 5)))]
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
            rule["port_list_id"] = "prl-1" if policy == "drop" or draws.chance(90) else "prl-unknown"
        else:
            rule["port_range"] = draws.sample(PORT_RANGES, draws.randint(1, 2))
        if draws.chance(20):
            rule["source_port_range"] = draws.choice(PORT_RANGES)
    elif any(protocol in PORTED for protocol in protocols):
        rule["port_range"] = "-1/-1"
    if draws.chance(25):
        rule["expires"] = draws.choice(ENDS)
    if draws.chance(15):
        rule["active"] = {
            "days": draws.sample(DAYS, draws.randint(1, 7)),
            "from": draws.choice(("00:00", "06:30", "17:59", "23:00")),
            "to": draws.choice(("05:00", "12:00", "18:00", "24:00")),
            "zone": draws.choice(("UTC", "Asia/Kathmandu", "America/New_York")),
        }
    if local is not None:
        rule["local_address"] = draws.choice(NETWORKS[local])
    return rule


def _drawn_protocols(draws: Draws, local: int | None) -> list[str | int]:
    """Draw one protocol or several that go together, given the family of a local address."""
    if draws.chance(20):
        return ["all"]
    by_number: dict[str, str | int] = {}
    for _ in range(draws.choice((1, 1, 2, 3))):
        protocol = draws.choice(PORTED if draws.chance(70) else PORTLESS)
        by_number.setdefault({"tcp": "6", "udp": "17"}.get(str(protocol).lower(), str(protocol)), protocol)
    other = {4: "ICMPv6", 6: "icmp"}.get(local or 0)
    return [one for one in by_number.values() if one != other] or ["tcp"]


def _drawn_object(draws: Draws, policy: str, local: int | None) -> str:
    """Draw an object, given the family of a local address."""
    family = local or draws.choice((4, 6))
    kind = draws.randint(0, 99)
    if kind >= 95 and local is None:
        return draws.choice(("any", "Any"))
    if kind >= 80 and policy == "accept":
        return draws.choice(
            (
                "dns:Mirror.example.ORG.",
                "DNS:mirror.example.org",
                "dns:münchen.example",
                "dns:unresolved.example",
                "sg-unknown",
                "pl-unknown",
                "1000000000000009/sg-1",
            )
        )
    if kind >= 65:
        return draws.choice(("", f"{ACCOUNT}/")) + draws.choice(GROUPS)
    return f"pl-{family}" if kind >= 50 else draws.choice(NETWORKS[family])


def drawn_attempt(draws: Draws) -> Attempt:
    """Draw a packet that opens a session, or one that a host needs, or nearly."""
    family, direction = draws.choice((4, 6)), draws.choice(("ingress", "egress"))
    source, destination = (ipaddress.ip_address(draws.choice(ADDRESSES[family])) for _ in range(2))
    if draws.chance(5):
        needed = ((67, 68), (68, 67)) if family == 4 else ((547, 546), (546, 547))
        return Attempt(direction, source, destination, 17, *draws.choice(needed))
    if family == 6 and draws.chance(5):
        source = draws.choice((source, ipaddress.ip_address("::"), ipaddress.ip_address("fe80::9")))
        icmp_type, hop_limit = draws.choice((133, 134, 135, 136, 130, 143)), draws.choice((1, 64, 254, 255))
        return Attempt(direction, source, destination, 58, icmp_type=icmp_type, hop_limit=hop_limit)
    if family == 4 and draws.chance(3):
        destination = ipaddress.ip_address("100.100.100.200")
    protocol = draws.choice((6, 6, 6, 6, 17, 17, 1 if family == 4 else 58, 47, 253, 132))
    if protocol in (6, 17):
        return Attempt(direction, source, destination, protocol, draws.choice(PORTS), draws.choice(PORTS))
    return Attempt(direction, source, destination, protocol, icmp_type={1: 8, 58: 128}.get(protocol))


def policy_of(
    document: Document, edges: Mapping[str, Edge], at: dt.datetime, modes: Mapping[str, Mode] | None = None
) -> ResolvedPolicy:
    """Return what the document comes to on the links, at a time."""
    written = {key: value for key, value in document.items() if key != "names"}
    found, _ = parse_documents([DocumentFile("a.json", json.dumps(written).encode())], Limits())
    names = {
        name: AddressSet.of(map(CidrBlock.parse, addresses)) for name, addresses in document["names"].items()
    }
    links = tuple(
        Link(name=name, index=index, addresses=tuple(map(CidrBlock.parse, edge.link_addresses)))
        for index, (name, edge) in enumerate(edges.items(), 2)
    )
    bindings = [
        HandBinding(
            interface=edge.bound_as,
            network_interface_id=edge.network_interface_id,
            mode=(modes or {}).get(name),
            source_check=SourceCheck.ON if edge.is_source_checked else SourceCheck.OFF,
        )
        for name, edge in edges.items()
    ]
    bound = bind(found, bindings, HostFacts(links=links), automatically=False)
    resolution = resolve(found, bound, Exemptions(platform=Settings().platform), at=at, names=names)
    if resolution.errors:
        raise AssertionError(f"a drawn document has errors: {resolution.errors}")
    return resolution.policy


def packet_of(attempt: Attempt, link: str) -> Packet:
    """Return a packet in the words of the specification."""
    is_unfollowed = attempt.icmp_type is not None and 130 <= attempt.icmp_type <= 143
    return Packet(
        interface=link,
        direction=Direction(attempt.direction),
        family=family_of(attempt.source),
        source=int(attempt.source),
        destination=int(attempt.destination),
        protocol=attempt.protocol,
        source_port=attempt.source_port,
        destination_port=attempt.port,
        icmp_type=attempt.icmp_type,
        hop_limit=attempt.hop_limit,
        tracking=Tracking.UNTRACKED if is_unfollowed else Tracking.NEW,
    )


def family_of(address: Address) -> Family:
    """Return the family of an address."""
    return Family.IPV4 if address.version == 4 else Family.IPV6
