"""Know which addresses belong to which group."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import chain
from operator import is_

from sgagent.core.addresses import AddressSet
from sgagent.core.memory import Memory
from sgagent.core.model import CidrBlock, GroupReference, SecurityGroup, Snapshot

_Blocks = tuple[tuple[CidrBlock, ...], ...]
"""The lists of a group's members: its own, and those of interfaces."""

_Members = Mapping[str, tuple[_Blocks, AddressSet]]
"""By group."""


def members_by_group(snapshot: Snapshot, memory: Memory | None = None) -> dict[str, AddressSet]:
    """Return each group's members: what is attached to it and what it lists itself (§5.2)."""
    blocks: dict[str, list[tuple[CidrBlock, ...]]] = {
        group.security_group_id: [group.member_addresses] for group in snapshot.security_groups
    }
    for interface in snapshot.network_interfaces:
        for group_id in interface.security_group_ids:
            if group_id in blocks:
                blocks[group_id].append(interface.addresses)
    found = (memory or Memory()).revise(partial(_members, blocks))
    return {group_id: members for group_id, (_, members) in found.items()}


def _members(blocks: Mapping[str, list[tuple[CidrBlock, ...]]], before: _Members | None) -> _Members:
    """Return the members of all groups, each as the value of before if it is equal."""
    known = before or {}
    return {group_id: _of_one(tuple(lists), known.get(group_id)) for group_id, lists in blocks.items()}


def _of_one(lists: _Blocks, before: tuple[_Blocks, AddressSet] | None) -> tuple[_Blocks, AddressSet]:
    """Return the members of one group."""
    if before is None:
        return lists, AddressSet.of(chain.from_iterable(lists))
    if len(lists) == len(before[0]) and all(map(is_, lists, before[0])):
        return before
    members = AddressSet.of(chain.from_iterable(lists))
    return lists, before[1] if before[1] == members else members


def is_of_account(found: SecurityGroup, own: SecurityGroup, reference: GroupReference) -> bool:
    """Tell whether the group that was found by its id is the one that the reference means (§5.2).

    ``account/sg-…`` means a group of that account; a plain ``sg-…`` one of the rule's own account. A group
    whose account is not known may be either.
    """
    meant = reference.account_id or own.account_id
    return found.account_id is None or found.account_id == meant


def whose_group(own: SecurityGroup, reference: GroupReference) -> str:
    """Return whose group a reference means, in words."""
    account = reference.account_id or own.account_id
    return f"account {account}" if account else "the rule's own account"
