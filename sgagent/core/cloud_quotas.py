"""Quotas of the cloud, counted as it does: a list by its maximum of entries, and objects times ports."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sgagent.core.addresses import size
from sgagent.core.errors import NOWHERE, Origin
from sgagent.core.members import members_by_group
from sgagent.core.model import (
    Cloud,
    Family,
    GroupReference,
    GroupType,
    PortListReference,
    PrefixListReference,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)


class CloudLimit(enum.Enum):
    """The quantities that the cloud limits."""

    RULES_PER_INTERFACE = "rules_per_interface"
    GROUPS_PER_INTERFACE = "groups_per_interface"
    GROUP_OBJECTS_PER_GROUP = "group_objects_per_group"
    ADDRESSES_PER_BASIC_GROUP = "addresses_per_basic_group"


MOST: Mapping[CloudLimit, int] = {
    CloudLimit.RULES_PER_INTERFACE: 1000,
    CloudLimit.GROUPS_PER_INTERFACE: 10,
    CloudLimit.GROUP_OBJECTS_PER_GROUP: 20,
    CloudLimit.ADDRESSES_PER_BASIC_GROUP: 6000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUse:
    """How much of a limit something uses."""

    limit: CloudLimit
    object_id: str
    """Of the network interface or group."""

    used: int
    origin: Origin = NOWHERE

    @property
    def most(self) -> int:
        """Return the limit."""
        return MOST[self.limit]

    @property
    def ratio(self) -> float:
        """Return the share that is used; more than 1 is more than the cloud takes."""
        return self.used / self.most


def rule_weight(rule: SecurityGroupRule, snapshot: Snapshot) -> int:
    """Return how many rules the cloud counts for one: objects times ports times protocols."""
    objects = sum(_object_weight(one, snapshot) for one in rule.authorization_objects)
    return objects * _port_weight(rule, snapshot) * len(rule.protocols)


def _object_weight(one: object, snapshot: Snapshot) -> int:
    if isinstance(one, PrefixListReference):
        found = snapshot.prefix_list_by_id.get(one.prefix_list_id)
        return max(1, found.max_entries, len(found.entries)) if found else 1
    return 1


def _port_weight(rule: SecurityGroupRule, snapshot: Snapshot) -> int:
    if isinstance(rule.ports, PortListReference):
        found = snapshot.port_list_by_id.get(rule.ports.port_list_id)
        return max(1, len(found.entries.ranges)) if found else 1
    return max(1, len(rule.ports.ranges))


def quota_uses(snapshot: Snapshot) -> Iterator[QuotaUse]:
    """Yield how much of each limit network interfaces and groups use, sorted by their ids."""
    groups = {
        group.security_group_id: group for group in snapshot.security_groups if group.cloud is Cloud.ALIBABA
    }
    weights = {
        name: sum(rule_weight(rule, snapshot) for rule in group.rules) for name, group in groups.items()
    }
    for interface in snapshot.network_interfaces:
        attached = {name for name in interface.security_group_ids if name in groups}
        name, origin = interface.network_interface_id, interface.origin
        rules = sum(weights[group] for group in attached)
        yield QuotaUse(limit=CloudLimit.RULES_PER_INTERFACE, object_id=name, used=rules, origin=origin)
        yield QuotaUse(
            limit=CloudLimit.GROUPS_PER_INTERFACE, object_id=name, used=len(attached), origin=origin
        )
    members = members_by_group(snapshot)
    for name, group in groups.items():
        yield QuotaUse(
            limit=CloudLimit.GROUP_OBJECTS_PER_GROUP,
            object_id=name,
            used=_group_objects(group),
            origin=group.origin,
        )
        if group.group_type is GroupType.BASIC:
            # A delegated IPv6 prefix is one address; the addresses of IPv4 networks are each one.
            used = size(members[name].ranges(Family.IPV4)) + len(members[name].ranges(Family.IPV6))
            limit = CloudLimit.ADDRESSES_PER_BASIC_GROUP
            yield QuotaUse(limit=limit, object_id=name, used=used, origin=group.origin)


def _group_objects(group: SecurityGroup) -> int:
    return sum(
        any(isinstance(one, GroupReference) for one in rule.authorization_objects) for rule in group.rules
    )


def cloud_ratios(snapshot: Snapshot) -> Mapping[CloudLimit, float]:
    """Return the greatest share of each limit that anything uses."""
    found = dict.fromkeys(CloudLimit, 0.0)
    for use in quota_uses(snapshot):
        found[use.limit] = max(found[use.limit], use.ratio)
    return found
