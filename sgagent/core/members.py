"""Know which addresses belong to which group."""

from __future__ import annotations

from itertools import chain

from sgagent.core.addresses import AddressSet
from sgagent.core.memory import Memory
from sgagent.core.model import CidrBlock, GroupReference, SecurityGroup, Snapshot


def members_by_group(snapshot: Snapshot, memory: Memory | None = None) -> dict[str, AddressSet]:
    """Return each group's members: what is attached to it and what it lists itself (§5.2)."""
    memory = memory or Memory()
    blocks: dict[str, list[tuple[CidrBlock, ...]]] = {
        group.security_group_id: [group.member_addresses] for group in snapshot.security_groups
    }
    for interface in snapshot.network_interfaces:
        for group_id in interface.security_group_ids:
            if group_id in blocks:
                blocks[group_id].append(interface.addresses)
    return {group_id: _members(group_id, members, memory) for group_id, members in blocks.items()}


def _members(group_id: str, blocks: list[tuple[CidrBlock, ...]], memory: Memory) -> AddressSet:
    """Return the members of one group, as the value of before if it is equal."""
    members = memory.recall(tuple(blocks), lambda: AddressSet.of(chain.from_iterable(blocks)))
    return memory.part(group_id).revise(lambda before: before if before == members else members)


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
