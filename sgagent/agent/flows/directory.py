"""Find out what definitions call an address: the interface that has it, and the groups it is a member of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from sgagent.core.model import CidrBlock, Family, Snapshot

MOST_NAMED = 200_000
"""Addresses that are named. Of definitions with more, those that come last stay without a name."""


@dataclass(frozen=True, slots=True)
class Name:
    """What an address is called."""

    network_interface_id: str | None = None
    security_group_ids: tuple[str, ...] = ()


NAMELESS = Name()


@dataclass(frozen=True, slots=True)
class _Owner:
    """Something that has an address."""

    vpc_id: str | None
    network_interface_id: str | None
    security_group_ids: tuple[str, ...]


_Key = tuple[Family, int, int]
"""Family, length of the prefix, and its bits."""


@dataclass(frozen=True)
class Directory:
    """The names of a snapshot's addresses; worked out when the first is asked for."""

    snapshot: Snapshot

    def name(self, family: Family, address: int, vpc_id: str | None) -> Name:
        """Return what an address is called in a VPC.

        An address that several interfaces have, as networks that don't know of each other may, is called by
        the groups of all of them.

        Args:
            family: of the address.
            address: as a number.
            vpc_id: of the interface where it was seen; owners of another VPC are not meant. None is any.
        """
        owners = [
            owner
            for length in self._lengths[family]
            for owner in self._owners.get((family, length, _bits(family, address, length)), ())
            if vpc_id is None or owner.vpc_id is None or owner.vpc_id == vpc_id
        ]
        if not owners:
            return NAMELESS
        interfaces = {owner.network_interface_id for owner in owners if owner.network_interface_id}
        groups = {group for owner in owners for group in owner.security_group_ids}
        return Name(next(iter(interfaces)) if len(interfaces) == 1 else None, tuple(sorted(groups)))

    def vpc_of(self, network_interface_id: str | None) -> str | None:
        """Return the VPC of an interface; None where it is not known."""
        found = self.snapshot.interface_by_id.get(network_interface_id or "")
        return found.vpc_id if found else None

    @cached_property
    def _owners(self) -> dict[_Key, tuple[_Owner, ...]]:
        owners: dict[_Key, tuple[_Owner, ...]] = {}
        for number, (block, owner) in enumerate(self._owned()):
            if number == MOST_NAMED:
                break
            key = _key(block)
            owners[key] = (*owners.get(key, ()), owner)
        return owners

    def _owned(self) -> Iterator[tuple[CidrBlock, _Owner]]:
        """Yield each address and prefix with what has it."""
        for interface in self.snapshot.network_interfaces:
            owner = _Owner(interface.vpc_id, interface.network_interface_id, interface.security_group_ids)
            yield from ((block, owner) for block in interface.addresses)
        for group in self.snapshot.security_groups:
            owner = _Owner(group.vpc_id, None, (group.security_group_id,))
            yield from ((block, owner) for block in group.member_addresses)

    @cached_property
    def _lengths(self) -> dict[Family, tuple[int, ...]]:
        """Return the lengths of prefixes that occur, the longest first."""
        return {
            family: tuple(sorted({key[1] for key in self._owners if key[0] is family}, reverse=True))
            for family in Family
        }


def _key(block: CidrBlock) -> _Key:
    length = block.network.prefixlen
    return block.family, length, _bits(block.family, block.first, length)


def _bits(family: Family, address: int, length: int) -> int:
    return address >> (family.bits - length)
