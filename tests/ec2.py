"""Draw answers of the EC2 API, and decide about packets by them as AWS does, without a word of ours.

The judge is written from AWS's own description: a group only allows; what a rule of any group of an interface
allows passes; everything else is dropped, in both directions. It reads the very answers that are imported.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from hypothesis import strategies as st

from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family

ACCOUNT = "123456789012"
GROUPS = ("sg-a", "sg-b", "sg-c")
ADDRESSES = {
    "eni-1": ("10.0.0.1", "2001:db8::1"),
    "eni-2": ("10.0.0.2", "2001:db8::2"),
    "eni-3": ("10.0.1.3", "2001:db8::3"),
}
LISTS = {"pl-1": ("10.0.0.0/31", "198.51.100.0/24"), "pl-6": ("2001:db8::/127",)}
IPV4_BLOCKS = ("0.0.0.0/0", "10.0.0.0/24", "10.0.0.2/32", "198.51.100.0/25")
IPV6_BLOCKS = ("::/0", "2001:db8::/64", "2001:db8::2/128")
STRANGERS = ("198.51.100.7", "198.51.100.200", "2001:db8:1::1")
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
TYPED = (1, 58)

Answer = dict[str, Any]
"""JSON, as it comes."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A packet, with the ICMP code that ours do not know."""

    packet: Packet
    icmp_code: int


def answers(*, with_what_has_no_equal: bool) -> st.SearchStrategy[list[Answer]]:
    """Draw what the calls answer together."""
    rules = st.lists(permissions(with_what_has_no_equal=with_what_has_no_equal), max_size=4)
    groups = st.tuples(*(st.tuples(rules, rules) for _ in GROUPS))
    attached = st.tuples(*(st.lists(st.sampled_from(GROUPS), min_size=1, unique=True) for _ in ADDRESSES))
    return st.builds(_answers, groups, attached)


@st.composite
def permissions(draw: st.DrawFn, *, with_what_has_no_equal: bool) -> Answer:
    """Draw one permission."""
    protocol = draw(st.sampled_from(["-1", "tcp", "udp", "icmp", "icmpv6", "6", "50"]))
    number = NUMBERS.get(protocol, int(protocol) if protocol.isdigit() else None)
    permission: Answer = {"IpProtocol": protocol, "PrefixListIds": [], "UserIdGroupPairs": []}
    ipv4 = number != 58 or with_what_has_no_equal
    ipv6 = number != 1 or with_what_has_no_equal
    if number in (6, 17):
        low = 0 if with_what_has_no_equal else 1
        first, last = sorted((draw(st.integers(low, 4)), draw(st.sampled_from([1, 2, 3, 4, 65535]))))
        permission |= {"FromPort": first, "ToPort": last}
    elif number in TYPED:
        kind = draw(st.sampled_from([-1, 8, 128])) if with_what_has_no_equal else -1
        code = draw(st.sampled_from([-1, 0])) if kind != -1 else -1
        permission |= {"FromPort": kind, "ToPort": code}
    some = st.lists(st.sampled_from(IPV4_BLOCKS), max_size=2 * ipv4, unique=True)
    permission["IpRanges"] = [{"CidrIp": block} for block in draw(some)]
    others = st.lists(st.sampled_from(IPV6_BLOCKS), max_size=2 * ipv6, unique=True)
    permission["Ipv6Ranges"] = [{"CidrIpv6": block} for block in draw(others)]
    named = (*GROUPS, "sg-unknown") if with_what_has_no_equal else GROUPS
    for group in draw(st.lists(st.sampled_from(named), max_size=2, unique=True)):
        permission["UserIdGroupPairs"].append({"GroupId": group, "UserId": ACCOUNT})
    lists = [name for name in LISTS if (name == "pl-6" and ipv6) or (name == "pl-1" and ipv4)]
    for name in draw(st.lists(st.sampled_from(lists), max_size=1)):
        permission["PrefixListIds"].append({"PrefixListId": name})
    return permission


def _answers(
    groups: tuple[tuple[list[Answer], list[Answer]], ...], attached: tuple[list[str], ...]
) -> list[Answer]:
    return [
        {
            "SecurityGroups": [
                {
                    "GroupId": name,
                    "OwnerId": ACCOUNT,
                    "VpcId": "vpc-1",
                    "IpPermissions": ingress,
                    "IpPermissionsEgress": egress,
                }
                for name, (ingress, egress) in zip(GROUPS, groups, strict=True)
            ]
        },
        {
            "NetworkInterfaces": [
                {
                    "NetworkInterfaceId": name,
                    "PrivateIpAddress": ipv4,
                    "Ipv6Addresses": [{"Ipv6Address": ipv6}],
                    "VpcId": "vpc-1",
                    "OwnerId": ACCOUNT,
                    "Groups": [{"GroupId": group} for group in of_it],
                }
                for (name, (ipv4, ipv6)), of_it in zip(ADDRESSES.items(), attached, strict=True)
            ]
        },
        {"PrefixLists": [{"PrefixListId": name, "Cidrs": list(blocks)} for name, blocks in LISTS.items()]},
    ]


def packets() -> Iterator[Typed]:
    """Go through a packet for everything that answers can tell apart."""
    everybody = [address for pair in ADDRESSES.values() for address in pair] + list(STRANGERS)
    for name, near_ends in ADDRESSES.items():
        for near in map(ipaddress.ip_address, near_ends):
            for far in map(ipaddress.ip_address, everybody):
                if far.version == near.version:
                    yield from _between(name, near, far)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _between(name: str, near: _Address, far: _Address) -> Iterator[Typed]:
    family = Family.IPV4 if near.version == 4 else Family.IPV6
    for direction in Direction:
        source, destination = (far, near) if direction is Direction.INGRESS else (near, far)
        for protocol, port, kind, code in _KINDS:
            if protocol == _OF_THE_OTHER[family]:
                continue  # ICMP of the other family, which nobody sends
            packet = Packet(
                interface=name,
                direction=direction,
                family=family,
                source=int(source),
                destination=int(destination),
                protocol=protocol,
                source_port=40000 if port is not None else None,
                destination_port=port,
                icmp_type=kind,
                hop_limit=64,
            )
            yield Typed(packet, code)


_OF_THE_OTHER = {Family.IPV4: 58, Family.IPV6: 1}
_KINDS = (
    *((6, port, None, -1) for port in (0, 1, 2, 3, 5, 65535)),
    *((17, port, None, -1) for port in (0, 1, 4)),
    (1, None, 8, 0),
    (1, None, 8, 1),
    (1, None, 0, 0),
    (58, None, 128, 0),
    (58, None, 129, 0),
    (50, None, None, -1),
    (253, None, None, -1),
)


def allows(told: list[Answer], judged: Typed) -> bool:
    """Tell whether AWS lets a packet that opens a session pass."""
    groups, interfaces, lists = (
        told[0]["SecurityGroups"],
        told[1]["NetworkInterfaces"],
        told[2]["PrefixLists"],
    )
    packet = judged.packet
    here = next(eni for eni in interfaces if eni["NetworkInterfaceId"] == packet.interface)
    attached = {group["GroupId"] for group in here["Groups"]}
    key = "IpPermissions" if packet.direction is Direction.INGRESS else "IpPermissionsEgress"
    return any(
        _speaks_of(permission, judged) and _holds(permission, packet, interfaces, lists)
        for group in groups
        if group["GroupId"] in attached
        for permission in group[key]
    )


def _speaks_of(permission: Answer, judged: Typed) -> bool:
    protocol, packet = permission["IpProtocol"], judged.packet
    if protocol == "-1":
        return True
    number = NUMBERS.get(protocol) or int(protocol)
    if number != packet.protocol:
        return False
    first, last = permission.get("FromPort", -1), permission.get("ToPort", -1)
    if number in TYPED:
        return first in (-1, packet.icmp_type) and last in (-1, judged.icmp_code)
    return packet.destination_port is None or bool(first <= packet.destination_port <= last)


_network = cache(ipaddress.ip_network)
"""A few are asked about again and again."""


def _holds(permission: Answer, packet: Packet, interfaces: list[Answer], lists: list[Answer]) -> bool:
    """Tell whether the far end is one that the permission names."""
    far = (
        ipaddress.ip_address(packet.peer)
        if packet.family is Family.IPV4
        else ipaddress.IPv6Address(packet.peer)
    )
    named = {entry["PrefixListId"] for entry in permission["PrefixListIds"]}
    blocks = [entry["CidrIp"] for entry in permission["IpRanges"]]
    blocks += [entry["CidrIpv6"] for entry in permission["Ipv6Ranges"]]
    blocks += [block for entry in lists if entry["PrefixListId"] in named for block in entry["Cidrs"]]
    pairs = {pair["GroupId"] for pair in permission["UserIdGroupPairs"]}
    for eni in interfaces:
        if pairs & {group["GroupId"] for group in eni["Groups"]}:
            blocks += [eni["PrivateIpAddress"], *(entry["Ipv6Address"] for entry in eni["Ipv6Addresses"])]
    return any(far in _network(block) for block in blocks)
