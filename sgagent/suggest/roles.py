"""Roles: hosts with the same groups, and proposed groups for hosts that have none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sgagent.core.model import GroupReference, GroupType, NetworkInterface, Policy, SecurityGroup, Snapshot
from sgagent.core.rule_values import free_id
from sgagent.suggest.far_ends import FarEnds, Measures, Widening
from sgagent.suggest.observations import FarEnd, Observation, Service

Seen = Mapping[Service, Collection[FarEnd]]
"""The far ends of each service that are not doubtful."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Observed interfaces that get the same rules, as they have the same groups."""

    interfaces: tuple[str, ...]
    groups: tuple[str, ...]
    """Sorted."""

    seen: Mapping[Service, frozenset[FarEnd]]
    vpc_id: str | None = None


def seen_at(observations: Iterable[Observation]) -> dict[str, dict[Service, set[FarEnd]]]:
    """Return the services and far ends of each interface, without doubtful observations."""
    found: dict[str, dict[Service, set[FarEnd]]] = {}
    for one in observations:
        at = found.setdefault(one.interface, {})
        if one.doubt is None:
            at.setdefault(one.service, set()).add(one.far)
    return found


def propose_groups(snapshot: Snapshot, seen: Mapping[str, Seen], measures: Measures) -> Snapshot:
    """Return definitions in which each observed interface has a group; those that get one have no rules.

    Hosts with the same listeners and the same peers share one. Whether peers are the same depends on whether
    these are in one group, so groups are split until nothing tells their members apart.
    """
    bare = [
        one.network_interface_id
        for one in snapshot.network_interfaces
        if one.network_interface_id in seen and snapshot.group_by_id.keys().isdisjoint(one.security_group_ids)
    ]
    if not bare:
        return snapshot
    shares = Widening.MEMBERS in measures.widenings
    parts: list[list[str]] = [bare] if shares else [[one] for one in bare]
    found = _with_groups(snapshot, parts)
    is_first = True
    while True:
        ends = FarEnds(found, measures)
        split = [
            piece
            for part in parts
            for piece in _alike(part, {one: _signature(seen[one], ends, is_first=is_first) for one in part})
        ]
        if len(split) == len(parts) and not is_first:
            return found
        parts, is_first = split, False
        found = _with_groups(snapshot, parts)


def _signature(seen: Seen, ends: FarEnds, *, is_first: bool) -> Hashable:
    if is_first:
        return frozenset(seen)
    return frozenset(
        (service, one.named) for service, fars in seen.items() for one in ends.objects(service, fars)
    )


def _alike(part: Sequence[str], signatures: Mapping[str, Hashable]) -> list[list[str]]:
    found: dict[Hashable, list[str]] = {}
    for one in part:
        found.setdefault(signatures[one], []).append(one)
    return list(found.values())


def _with_groups(snapshot: Snapshot, parts: Sequence[Sequence[str]]) -> Snapshot:
    """Return definitions with a proposed group for each part; named by its first member."""
    taken = set(snapshot.group_by_id)
    groups: dict[str, str] = {}
    made: list[SecurityGroup] = []
    for part in parts:
        name = free_group_id(part[0], taken)
        taken.add(name)
        groups |= dict.fromkeys(part, name)
        vpcs = {snapshot.interface_by_id[one].vpc_id for one in part}
        text = part[0] if len(part) == 1 else f"{len(part)} hosts with the same listeners and peers"
        made.append(
            SecurityGroup(
                security_group_id=name,
                name=text,
                group_type=GroupType.BASIC,
                inner_access_policy=Policy.DROP,
                vpc_id=next(iter(vpcs)) if len(vpcs) == 1 else None,
            )
        )
    return with_attachments(snapshot, groups, made)


def free_group_id(interface: str, taken: Container[str]) -> str:
    """Return an id for a group that is named after an interface."""
    return free_id(f"sg-{interface.removeprefix('eni-')}"[:100], taken)


def with_attachments(
    snapshot: Snapshot, groups: Mapping[str, str], made: Iterable[SecurityGroup]
) -> Snapshot:
    """Return definitions with more groups, each attached to interfaces beside those that they have."""

    def attached(one: NetworkInterface) -> NetworkInterface:
        more = groups.get(one.network_interface_id)
        if more is None:
            return one
        return replace(one, security_group_ids=tuple(sorted({*one.security_group_ids, more})))

    every = sorted((*snapshot.security_groups, *made), key=lambda one: one.security_group_id)
    return replace(
        snapshot,
        security_groups=tuple(every),
        network_interfaces=tuple(map(attached, snapshot.network_interfaces)),
    )


def roles_of(snapshot: Snapshot, seen: Mapping[str, Seen], measures: Measures) -> tuple[Role, ...]:
    """Return the roles of observed interfaces; without that widening each is one of its own."""
    shares = Widening.MEMBERS in measures.widenings
    parts: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(seen):
        groups = _known_groups(snapshot, name)
        parts[groups if shares else (*groups, "", name)].append(name)
    return tuple(_role(snapshot, names, seen) for names in parts.values())


def _role(snapshot: Snapshot, names: Sequence[str], seen: Mapping[str, Seen]) -> Role:
    together: dict[Service, set[FarEnd]] = defaultdict(set)
    for name in names:
        for service, fars in seen[name].items():
            together[service].update(fars)
    groups = _known_groups(snapshot, names[0])
    vpcs = {snapshot.group_by_id[one].vpc_id for one in groups} - {None}
    return Role(
        interfaces=tuple(names),
        groups=groups,
        seen={service: frozenset(fars) for service, fars in together.items()},
        vpc_id=next(iter(vpcs)) if len(vpcs) == 1 else snapshot.interface_by_id[names[0]].vpc_id,
    )


def _known_groups(snapshot: Snapshot, interface: str) -> tuple[str, ...]:
    groups = snapshot.interface_by_id[interface].security_group_ids
    return tuple(sorted(one for one in groups if one in snapshot.group_by_id))


def reference_from(own: SecurityGroup, reference: GroupReference) -> GroupReference:
    """Return a reference as a rule of a group writes it: with the account, where that is another one."""
    is_own = reference.account_id in (None, own.account_id)
    return GroupReference(reference.security_group_id) if is_own else reference
