"""Invent a policy whose objects overlap; members of that of :mod:`bench.policies` have one group each.

Five groups are bound to one interface. One member in forty is in a second group, a fifth of the members are
network interfaces, networks lie inside networks and around members, and one object in twenty is named once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from bench.policies import INTERFACE, RULES_PER_GROUP
from bench.sizes import Size
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, parse_documents
from sgagent.documents.problems import Limits

BOUND = tuple(f"sg-bound-{number}" for number in range(5))

OVERLAPPING_BINDING = ("--interface", f"{INTERFACE}={','.join(BOUND)}")
"""As commands take it."""

_FIRST_MEMBER = int(IPv4Address("10.0.1.0"))
_IN_A_SECOND_GROUP, _ON_AN_INTERFACE = 40, 5
"""One member in so many."""

_LENGTHS = (23, 25, 28)
_NETWORKS = 200
"""Prefixes of as many starting points, which the lengths nest."""


@dataclass(frozen=True)
class OverlappingPolicy:
    """A policy of a size, as documents have it."""

    size: Size
    definitions: dict[str, Any]

    def document(self) -> str:
        """Return it as a native document, in JSON."""
        return json.dumps(self.definitions, indent=1)

    def with_member(self, address: IPv4Address) -> OverlappingPolicy:
        """Return the policy with a member more in a group that rules name."""
        groups = [*self.definitions["security_groups"]]
        group = groups[len(BOUND)]
        groups[len(BOUND)] = {**group, "member_addresses": [*group["member_addresses"], str(address)]}
        return self._with_groups(groups)

    def with_moved_rule(self, port: int) -> OverlappingPolicy:
        """Return the policy with its first rule at another port."""
        first, *others = self.definitions["security_groups"]
        rule, *rules = first["rules"]
        moved = {**first, "rules": [{**rule, "port_range": f"{port}/{port}"}, *rules]}
        return self._with_groups([moved, *others])

    def _with_groups(self, groups: list[dict[str, Any]]) -> OverlappingPolicy:
        return replace(self, definitions={**self.definitions, "security_groups": groups})

    @cached_property
    def resolved(self) -> ResolvedPolicy:
        """Return the policy of a host that has the five groups on its interface."""
        file = DocumentFile("overlapping.json", self.document().encode())
        snapshot, _ = parse_documents([file], Limits())
        hand = HandBinding(interface=INTERFACE, security_group_ids=BOUND)
        bound = bind(snapshot, (hand,), HostFacts(), automatically=False)
        return resolve(snapshot, bound, Exemptions()).policy


def invent_overlapping(size: Size, seed: int = 1) -> OverlappingPolicy:
    """Return the policy of a size; the same one every time."""
    dice = random.Random(seed)
    count = max(2, size.rules // RULES_PER_GROUP)
    members, interfaces = _members(dice, size, count)
    rules: dict[str, list[dict[str, Any]]] = {group: [] for group in BOUND}
    for number in range(size.rules):
        rules[dice.choice(BOUND)].append(_rule(dice, number, count))
    groups = [
        {"security_group_id": group, "type": "basic", "inner_access_policy": "drop", "rules": rules[group]}
        for group in BOUND
    ]
    others = [
        {"security_group_id": f"sg-{number}", "type": "basic", "member_addresses": addresses}
        for number, addresses in enumerate(members)
    ]
    definitions = {
        "version": 1,
        "security_groups": [*groups, *others],
        "network_interfaces": list(interfaces),
    }
    return OverlappingPolicy(size, definitions)


def _members(dice: random.Random, size: Size, count: int) -> tuple[list[list[str]], Iterator[dict[str, Any]]]:
    """Return each group's members of its own, and those on interfaces."""
    members: list[list[str]] = [[] for _ in range(count)]
    on_interfaces: list[tuple[str, list[int]]] = []
    for number in range(size.members):
        address, groups = str(IPv4Address(_FIRST_MEMBER + number)), [number * count // size.members]
        if dice.randrange(_IN_A_SECOND_GROUP) == 0:
            groups.append((groups[0] + dice.randrange(1, count)) % count)
        if dice.randrange(_ON_AN_INTERFACE) == 0:
            on_interfaces.append((address, groups))
        else:
            for group in groups:
                members[group].append(address)
    interfaces = (
        {
            "network_interface_id": f"eni-{number}",
            "addresses": [address],
            "security_group_ids": [f"sg-{group}" for group in groups],
        }
        for number, (address, groups) in enumerate(on_interfaces)
    )
    return members, interfaces


def _rule(dice: random.Random, number: int, groups: int) -> dict[str, Any]:
    kind, first = dice.random(), dice.randrange(1, 60_000)
    if kind < 0.05:
        named = str(IPv4Address(int(IPv4Address("198.18.0.0")) + number))
    elif kind < 0.85:
        named = f"sg-{dice.randrange(groups)}"
    else:
        around = _FIRST_MEMBER + dice.randrange(_NETWORKS) * 499
        named = str(IPv4Network((around, dice.choice(_LENGTHS)), strict=False))
    last = first if dice.random() < 0.7 else first + dice.randrange(1, 100)
    return {
        "rule_id": f"sgr-{number}",
        "direction": "ingress",
        "policy": "accept" if dice.random() < 0.9 else "drop",
        "priority": dice.randrange(1, 101),
        "protocol": "tcp" if dice.random() < 0.8 else "udp",
        "port_range": f"{first}/{last}",
        "authorization_object": named,
    }
