"""Warnings about limits of the clouds, which a host does not have (§8.2)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter

from sgagent.core.errors import Origin, Problem
from sgagent.core.model import (
    ALL_PROTOCOLS,
    CidrBlock,
    Cloud,
    Direction,
    Family,
    GroupType,
    NetworkInterface,
    Policy,
    SecurityGroup,
    SecurityGroupRule,
)

MOST_GROUPS_PER_INTERFACE = 10
MOST_RULES_PER_INTERFACE = 1000
MOST_GROUP_OBJECTS_PER_GROUP = 20


def interface_warnings(name: str, origin: Origin, groups: Iterable[SecurityGroup]) -> Iterator[Problem]:
    """Yield a warning for each limit that an interface exceeds.

    Args:
        name: of the interface, for people.
        origin: where the interface is defined.
        groups: attached to it.
    """
    limited = [group for group in groups if group.cloud is Cloud.ALIBABA]
    rules = sum(len(group.rules) for group in limited)
    for count, most, noun in (
        (len(limited), MOST_GROUPS_PER_INTERFACE, "groups"),
        (rules, MOST_RULES_PER_INTERFACE, "rules"),
    ):
        if count > most:
            message = f"interface {name} has more than {most} {noun}, which the cloud would refuse"
            yield Problem.warning(origin, f"many_{noun}", str(count), message, f"keep to {most}")


def group_warnings(group: SecurityGroup, group_objects: int) -> Iterator[Problem]:
    """Yield a warning if too many rules of a group have a group as their object."""
    if group.cloud is Cloud.ALIBABA and group_objects > MOST_GROUP_OBJECTS_PER_GROUP:
        message = (
            f"the group has more than {MOST_GROUP_OBJECTS_PER_GROUP} rules whose object is a group,"
            " which the cloud would refuse"
        )
        remedy = f"keep to {MOST_GROUP_OBJECTS_PER_GROUP}, or use prefix lists"
        yield Problem.warning(group.origin, "many_group_objects", str(group_objects), message, remedy)


def object_warnings(
    group: SecurityGroup, rule: SecurityGroupRule, name: str, found: SecurityGroup
) -> Iterator[Problem]:
    """Yield a warning if the cloud would refuse the group that a rule names.

    Args:
        group: the rule's own.
        rule: has a group among its objects.
        name: of that object.
        found: the group.
    """
    if group.cloud is not Cloud.ALIBABA:
        return
    origin = rule.origin.at("authorization_object")
    if group.group_type is GroupType.ADVANCED:
        message = "an advanced group has a group as object, which the cloud would refuse"
        yield Problem.warning(
            origin, "group_object_in_advanced", name, message, "use a CIDR or a prefix list"
        )
    elif found.group_type is GroupType.ADVANCED:
        message = "a basic group has an advanced group as object, which the cloud would refuse"
        yield Problem.warning(origin, "advanced_group_object", name, message, "use a CIDR or a prefix list")
    elif found.security_group_id == group.security_group_id:
        message = "the group names itself, which the cloud would refuse"
        remedy = _by_inner_policy(group, rule) or "use a CIDR or a prefix list"
        yield Problem.warning(origin, "own_group", name, message, remedy)


def _by_inner_policy(group: SecurityGroup, rule: SecurityGroupRule) -> str | None:
    """Return how the inner access policy replaces a rule that names its own group; None if it can't.

    That policy is about all traffic from members (§3.4): in place of a rule of less it would accept more.
    """
    is_alone = len(rule.authorization_objects) == 1
    is_as_wide = rule.protocols == (ALL_PROTOCOLS,) and rule.local_address is None and is_alone
    if rule.direction is Direction.EGRESS or not is_as_wide:
        return None
    name = rule.policy.value
    if group.inner_access_policy is not rule.policy:
        return f"set inner_access_policy to {name} and remove the rule"
    if rule.policy is Policy.DROP:
        return None  # the rule also precedes accept rules, which the policy does not
    return f"remove the rule: inner_access_policy is {name} and comes before all rules"


MOST_PER_ADDRESS = 3
"""Other interfaces that are named for one address; where thousands share it, all pairs are too many."""


def overlap_errors(interfaces: Sequence[NetworkInterface]) -> Iterator[Problem]:
    """Yield an error for each pair of interfaces that share addresses, in their order.

    Two VPCs may use the same addresses. A VPC that is not known may be any.
    """
    pairs: dict[tuple[int, int], tuple[CidrBlock, CidrBlock]] = {}
    for family in Family:
        for one, other in _overlapping(interfaces, family):
            (_, earlier, earlier_block), (_, later, later_block) = sorted((one, other), key=itemgetter(1))
            pairs.setdefault((later, earlier), (later_block, earlier_block))
    for (later, earlier), (block, other_block) in sorted(pairs.items()):
        name, owner = interfaces[later].network_interface_id, interfaces[earlier]
        within = "" if block == other_block else f" in {other_block}"
        yield Problem.error(
            interfaces[later].origin,
            "duplicate_address",
            str(block),
            f"{name} has an address{within} that {owner.network_interface_id} has too ({owner.origin})",
            "leave it to one of them, or give both their vpc_id if they are in different VPCs",
        )


_Held = tuple[int, int, CidrBlock]
"""A block and who has it: the block's last address, the place of the interface, the block."""


def _overlapping(interfaces: Sequence[NetworkInterface], family: Family) -> Iterator[tuple[_Held, _Held]]:
    """Yield each block of a family with some of those of other interfaces that hold its first address."""
    blocks = sorted(
        (block.first, place, block)
        for place, interface in enumerate(interfaces)
        for block in interface.addresses
        if block.family is family
    )
    holding: dict[str | None, list[_Held]] = {None: []}
    holding_anywhere: list[_Held] = []
    for first, place, block in blocks:
        held, vpc_id = (block.last, place, block), interfaces[place].vpc_id
        own = holding.setdefault(vpc_id, [])
        for heap in (own, holding[None]) if vpc_id else (holding_anywhere,):
            while heap and heap[0][0] < first:
                heapq.heappop(heap)
            others = (other for other in heap if other[1] != place)
            yield from ((held, other) for other in islice(others, MOST_PER_ADDRESS))
        heapq.heappush(own, held)
        heapq.heappush(holding_anywhere, held)
