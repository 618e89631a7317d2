"""Invent policies of any size: as the documents that a person would write, and as resolved ones.

Groups have a hundred members. Of the rules four fifths speak of a group, most of the others of a network, a
few of everyone; protocols, ports and priorities are spread so that rules overlap as they do in practice.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Address

from bench.sizes import Size
from sgagent.core.addresses import AddressSet
from sgagent.core.model import (
    TCP,
    UDP,
    CidrBlock,
    Direction,
    GroupReference,
    GroupType,
    Policy,
    PortSet,
    Protocol,
)
from sgagent.core.policy import (
    Peer,
    ResolvedDirection,
    ResolvedInterface,
    ResolvedPolicy,
    ResolvedRule,
    precedence,
)

INTERFACE = "eth0"
GROUP_ID = "sg-bench"
"""The group that has all the rules, on the one interface."""

RULES_PER_GROUP = 10
"""Of ten rules there is one group that they may speak of."""

_FIRST_MEMBER = int(IPv4Address("10.0.1.0"))
_EVERYONE = CidrBlock.parse("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class MemberGroup:
    """A group that rules speak of; its members are one row of single addresses."""

    group_id: str
    numbers: range

    def __str__(self) -> str:
        """Return the id, as documents write the object."""
        return self.group_id


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRule:
    """A rule, inwards."""

    rule_id: str
    policy: Policy
    priority: int
    protocol: Protocol
    ports: tuple[int, int]
    authorization_object: MemberGroup | CidrBlock


@dataclass(frozen=True)
class BenchPolicy:
    """One group's rules and the groups that they speak of."""

    size: Size
    groups: tuple[MemberGroup, ...]
    rules: tuple[BenchRule, ...]

    @cached_property
    def resolved(self) -> ResolvedPolicy:
        """Return the policy as ``resolve`` would make it from the document."""
        peers = {group: _peer_of(group) for group in self.groups}
        rules = (_resolved(rule, peers) for rule in self.rules)
        interface = ResolvedInterface(
            name=INTERFACE,
            group_type=GroupType.BASIC,
            security_group_ids=(GROUP_ID,),
            ingress=ResolvedDirection(rules=tuple(sorted(rules, key=precedence))),
            egress=ResolvedDirection(default=Policy.ACCEPT),
        )
        return ResolvedPolicy(interfaces=(interface,))

    def document(self) -> str:
        """Return the policy as a native document, in JSON."""
        bench = {
            "security_group_id": GROUP_ID,
            "type": "basic",
            "inner_access_policy": "drop",
            "rules": [_written(rule) for rule in self.rules],
        }
        others = [
            {
                "security_group_id": group.group_id,
                "type": "basic",
                "member_addresses": [str(IPv4Address(number)) for number in group.numbers],
            }
            for group in self.groups
        ]
        return json.dumps({"version": 1, "security_groups": [bench, *others]}, indent=1)


def invent(size: Size, seed: int = 1) -> BenchPolicy:
    """Return the policy of a size; the same one every time."""
    dice = random.Random(seed)
    groups = tuple(_groups(size))
    rules = tuple(_rule(dice, number, groups) for number in range(size.rules))
    return BenchPolicy(size, groups, rules)


def _groups(size: Size) -> Iterator[MemberGroup]:
    count = max(1, size.rules // RULES_PER_GROUP)
    members = size.members // count
    for number in range(count):
        first = _FIRST_MEMBER + number * members
        yield MemberGroup(f"sg-{number}", range(first, first + members))


def _rule(dice: random.Random, number: int, groups: tuple[MemberGroup, ...]) -> BenchRule:
    kind, first = dice.random(), dice.randrange(1, 60_000)
    authorization_object: MemberGroup | CidrBlock
    if kind < 0.8:
        authorization_object = dice.choice(groups)
    elif kind < 0.95:
        authorization_object = CidrBlock.parse(f"172.{dice.randrange(16, 32)}.{dice.randrange(256)}.0/24")
    else:
        authorization_object = _EVERYONE
    return BenchRule(
        rule_id=f"sgr-{number}",
        policy=Policy.ACCEPT if dice.random() < 0.9 else Policy.DROP,
        priority=dice.randrange(1, 101),
        protocol=TCP if dice.random() < 0.8 else UDP,
        ports=(first, first if dice.random() < 0.7 else first + dice.randrange(1, 100)),
        authorization_object=authorization_object,
    )


def _peer_of(authorization_object: MemberGroup | CidrBlock) -> Peer:
    if isinstance(authorization_object, CidrBlock):
        return Peer(name=str(authorization_object), addresses=AddressSet.of([authorization_object]))
    members = tuple((number, number) for number in authorization_object.numbers)
    return Peer(name=authorization_object.group_id, addresses=AddressSet(ipv4=members))


def _resolved(rule: BenchRule, peers: dict[MemberGroup, Peer]) -> ResolvedRule:
    spoken_of = rule.authorization_object
    return ResolvedRule(
        rule_id=rule.rule_id,
        security_group_id=GROUP_ID,
        direction=Direction.INGRESS,
        authorization_objects=(
            GroupReference(spoken_of.group_id) if isinstance(spoken_of, MemberGroup) else spoken_of,
        ),
        policy=rule.policy,
        priority=rule.priority,
        protocols=(rule.protocol,),
        ports=PortSet.of(rule.ports),
        peer=peers[spoken_of] if isinstance(spoken_of, MemberGroup) else _peer_of(spoken_of),
    )


def _written(rule: BenchRule) -> dict[str, str | int]:
    return {
        "rule_id": rule.rule_id,
        "direction": "ingress",
        "policy": rule.policy.value,
        "priority": rule.priority,
        "protocol": str(rule.protocol),
        "port_range": str(PortSet.of(rule.ports)),
        "authorization_object": str(rule.authorization_object),
    }


def with_member(policy: BenchPolicy) -> BenchPolicy:
    """Return the policy after one more member has joined the last group."""
    *others, last = policy.groups
    grown = MemberGroup(last.group_id, range(last.numbers.start, last.numbers.stop + 1))
    rules = (
        replace(rule, authorization_object=grown) if rule.authorization_object == last else rule
        for rule in policy.rules
    )
    return BenchPolicy(policy.size, (*others, grown), tuple(rules))


def with_rule(policy: BenchPolicy) -> BenchPolicy:
    """Return the policy with one more rule, for a group."""
    rule = BenchRule(
        rule_id="sgr-new",
        policy=Policy.ACCEPT,
        priority=50,
        protocol=TCP,
        ports=(60_500, 60_500),
        authorization_object=policy.groups[0],
    )
    return BenchPolicy(policy.size, policy.groups, (*policy.rules, rule))
