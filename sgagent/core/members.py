"""Members of groups, and which group a reference means (§5.2)."""

from __future__ import annotations

from itertools import chain

from sgagent.core.addresses import AddressSet
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import CidrBlock, GroupReference, SecurityGroup, Snapshot


def members_by_group(snapshot: Snapshot, memo: Memo | None = None) -> dict[str, AddressSet]:
    """Return each group's members: the addresses attached to it, and those it lists itself (§5.2).

    With a memo they are the same objects as in the last step, where they are equal.
    """
    blocks: dict[str, list[tuple[CidrBlock, ...]]] = {
        group.security_group_id: [group.member_addresses] for group in snapshot.security_groups
    }
    for interface in snapshot.network_interfaces:
        for group_id in interface.security_group_ids:
            if group_id in blocks:
                blocks[group_id].append(interface.addresses)
    memo = memo or Memo()

    def members(group_id: str, lists: tuple[tuple[CidrBlock, ...], ...]) -> AddressSet:
        part = memo.part(Seam.RESOLVED_RULES, "members", group_id)
        return part.same("members", part.get("of lists", lists, lambda: AddressSet.of(chain(*lists))))

    return {group_id: members(group_id, tuple(lists)) for group_id, lists in blocks.items()}


def is_of_account(found: SecurityGroup, own: SecurityGroup, reference: GroupReference) -> bool:
    """Return whether the group that was found by its id is the one that the reference means (§5.2).

    ``account/sg-…`` means a group of that account; a plain ``sg-…`` one of the rule's own account. A group
    whose account is not known may be either.
    """
    meant = reference.account_id or own.account_id
    return found.account_id is None or found.account_id == meant


def whose_group(own: SecurityGroup, reference: GroupReference) -> str:
    """Return whose group a reference means, in words."""
    account = reference.account_id or own.account_id
    return f"account {account}" if account else "the rule's own account"
