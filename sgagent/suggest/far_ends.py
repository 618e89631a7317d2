"""Far ends as objects of rules: groups, lists and networks that addresses are widened to, or addresses."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sgagent.analysis.lint.services import SENSITIVE
from sgagent.core.addresses import NO_ADDRESSES, AddressSet, ranges_of
from sgagent.core.members import members_by_group
from sgagent.core.model import (
    TCP,
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    PrefixListReference,
    Protocol,
    Snapshot,
    address_text,
)
from sgagent.suggest.observations import Circle, FarEnd, Service


class Widening(enum.Enum):
    """A way in which a rule admits more than was seen."""

    SOURCE_PORTS = "source-ports"
    """Of clients: those that were seen to any."""

    GROUP = "group"
    """Some members of a group to all, as far ends."""

    MEMBERS = "members"
    """Some members of a group to all, as near ends; hosts with the same groups are one."""

    NETWORK = "network"
    """Some addresses of an announced network, or a prefix list, to all."""

    EVERYONE = "everyone"
    """Many addresses of many networks to all addresses of the family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """From when on something is admitted, or widened."""

    least_sessions: int = 2
    group_from: int = 3
    network_from: int = 3
    everyone_from: int = 16
    widenings: frozenset[Widening] = frozenset(Widening)
    networks: tuple[CidrBlock, ...] = ()
    """That are announced: addresses of one belong together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FarObject:
    """An object of a rule, and the traffic that it rests on."""

    named: AuthorizationObject
    addresses: AddressSet
    """All that it stands for."""

    widening: Widening | None = None
    seen: str = ""
    """What of it was seen, in words; of what is widened."""


_EVERYONE_NETWORKS = 3
_NETWORK_BITS = {Family.IPV4: 16, Family.IPV6: 48}
"""Prefixes that count as different networks when many addresses are taken for everyone."""

_PRIVATE = tuple(
    CidrBlock.parse(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
)


@dataclass(frozen=True)
class FarEnds:
    """Finds objects for far ends in definitions."""

    snapshot: Snapshot
    measures: Measures
    _units: dict[tuple[Family, int, int], set[tuple[str, str]]] = field(init=False, repr=False)
    """Groups with a block, each with the member that has it: an interface's id, or the block itself."""

    _members: dict[str, AddressSet] = field(init=False, repr=False)
    _sizes: dict[str, int] = field(init=False, repr=False)
    """Members of each group."""

    _lists: dict[Family, list[tuple[AuthorizationObject, AddressSet]]] = field(init=False, repr=False)
    """Prefix lists and announced networks, the smallest first."""

    _lengths: dict[Family, frozenset[int]] = field(init=False, repr=False)
    """Prefix lengths that members have."""

    def __post_init__(self) -> None:
        """Sort members by address."""
        units: dict[tuple[Family, int, int], set[tuple[str, str]]] = defaultdict(set)
        members: dict[str, set[str]] = defaultdict(set)

        def add(group: str, member: str, blocks: Iterable[CidrBlock]) -> None:
            members[group].add(member)
            for block in blocks:
                units[block.family, block.prefix_length, block.first].add((group, member))

        for interface in self.snapshot.network_interfaces:
            for group_id in interface.security_group_ids:
                add(group_id, interface.network_interface_id, interface.addresses)
        for group in self.snapshot.security_groups:
            for block in group.member_addresses:
                add(group.security_group_id, str(block), (block,))
        lengths = {one: frozenset(length for family, length, _ in units if family is one) for one in Family}
        object.__setattr__(self, "_units", dict(units))
        object.__setattr__(self, "_lengths", lengths)
        object.__setattr__(self, "_lists", {family: _lists(self, family) for family in Family})
        object.__setattr__(self, "_members", members_by_group(self.snapshot))
        object.__setattr__(self, "_sizes", {group: len(found) for group, found in members.items()})

    def memberships(self, far: FarEnd) -> frozenset[tuple[str, str]]:
        """Return the groups that an address is a member of, each with the member that has it."""
        family, address = far
        found: set[tuple[str, str]] = set()
        for length in self._lengths[family]:
            shift = family.bits - length
            found |= self._units.get((family, length, address >> shift << shift), set())
        return frozenset(found)

    def circles(self, far: FarEnd) -> Iterator[Circle]:
        """Yield the circles of an address in the definitions, if a rule may be widened to these."""
        for group, member in self.memberships(far) if self._widens(Widening.GROUP) else ():
            yield Circle(group, member, self.measures.group_from)
        for named, addresses in self._lists[far[0]] if self._widens(Widening.NETWORK) else ():
            if addresses.contains(*far):
                yield Circle(str(named), far_text(far), self.measures.network_from)

    def _widens(self, how: Widening) -> bool:
        return how in self.measures.widenings

    def objects(
        self, service: Service, fars: Collection[FarEnd], vpc_id: str | None = None
    ) -> tuple[FarObject, ...]:
        """Return objects that stand for far ends: as few as the measures allow.

        Args:
            service: what these far ends ask for, or are asked for.
            fars: that were seen, and are not doubtful.
            vpc_id: of the near end; groups of another one are not meant (§5.2).
        """
        named = {far: self.memberships(far) for far in fars}
        found: list[FarObject] = []
        left = set(fars)
        for family in Family:
            outside = [far for far in left if far[0] is family and not named[far]]
            if self._is_everyone(service, outside):
                block = CidrBlock.around(family, 0, 0)
                seen = _addresses_text(len(outside))
                found.append(_widened(block, AddressSet.of([block]), Widening.EVERYONE, seen))
                left -= {far for far in left if far[0] is family}
        found += self._groups(left, named, vpc_id, Protocol(service.protocol).only_family)
        for family in Family:
            here = {address for one, address in left if one is family}
            found += self._networks(family, here)
            blocks = (CidrBlock.around(family, address, family.bits) for address in here)
            found += (FarObject(named=block, addresses=AddressSet.of([block])) for block in blocks)
        return tuple(found)

    def _is_everyone(self, service: Service, outside: Collection[FarEnd]) -> bool:
        """Return whether so many different far ends ask for this that it is for everyone.

        Never for what the guide says is nobody's business: ports of management and databases.
        """
        is_guarded = (
            service.direction is Direction.INGRESS
            and service.protocol == TCP.wire_number
            and service.port in SENSITIVE
        )
        if Widening.EVERYONE not in self.measures.widenings or is_guarded:
            return False
        public = [far for far in outside if not _is_private(far)]
        networks = {address >> family.bits - _NETWORK_BITS[family] for family, address in public}
        return len(public) >= self.measures.everyone_from and len(networks) >= _EVERYONE_NETWORKS

    def _groups(
        self,
        left: set[FarEnd],
        named: Mapping[FarEnd, frozenset[tuple[str, str]]],
        vpc_id: str | None,
        only: Family | None,
    ) -> Iterator[FarObject]:
        """Yield groups for far ends, and take these away; first those of which at least half was seen.

        Of a protocol of only one family, addresses of the other are not admitted anyway.
        """
        seen: dict[str, dict[str, set[FarEnd]]] = defaultdict(lambda: defaultdict(set))
        for far in left:
            for group, member in named[far]:
                seen[group][member].add(far)
        exact = AddressSet.of(CidrBlock.around(family, address, family.bits) for family, address in left)
        if only is not None:
            other = Family.IPV6 if only is Family.IPV4 else Family.IPV4
            exact = exact.union(AddressSet(**{other.value: ((0, other.last_address),)}))
        usable = [group for group in seen if self._is_usable(group, len(seen[group]), exact, vpc_id)]
        for is_wanted in (lambda group: 2 * len(seen[group]) >= self._sizes[group], lambda _: True):
            candidates = sorted(filter(is_wanted, usable))
            while True:
                best = max(
                    candidates,
                    key=lambda group: (
                        sum(not far_ends.isdisjoint(left) for far_ends in seen[group].values()),
                        len(seen[group]) - self._sizes[group],
                    ),
                    default=None,
                )
                if best is None or not any(not one.isdisjoint(left) for one in seen[best].values()):
                    break
                yield self._group(best, len(seen[best]), exact)
                for far_ends in seen[best].values():
                    left -= far_ends

    def _is_usable(self, group: str, seen: int, exact: AddressSet, vpc_id: str | None) -> bool:
        found = self.snapshot.group_by_id.get(group)
        if found is None or (vpc_id and found.vpc_id and vpc_id != found.vpc_id):
            return False
        if Widening.GROUP not in self.measures.widenings:
            return self._members[group].issubset(exact)
        return seen == self._sizes[group] or seen >= self.measures.group_from

    def _group(self, group: str, seen: int, exact: AddressSet) -> FarObject:
        addresses = self._members[group]
        account = self.snapshot.group_by_id[group].account_id
        named = GroupReference(group, account)
        if addresses.issubset(exact):
            return FarObject(named=named, addresses=addresses)
        text = f"addresses of {seen} of {self._sizes[group]} members"
        return _widened(named, addresses, Widening.GROUP, text)

    def _networks(self, family: Family, here: set[int]) -> Iterator[FarObject]:
        """Yield prefix lists and announced networks for addresses, and take these away."""
        for named, addresses in self._lists[family]:
            inside = {address for address in here if addresses.contains(family, address)}
            exact = AddressSet(**{family.value: ranges_of(inside)}) if inside else NO_ADDRESSES
            if not inside:
                continue
            if addresses.issubset(exact):
                yield FarObject(named=named, addresses=addresses)
            elif self._widens(Widening.NETWORK) and len(inside) >= self.measures.network_from:
                yield _widened(named, addresses, Widening.NETWORK, _addresses_text(len(inside)))
            else:
                continue
            here -= inside


def _lists(ends: FarEnds, family: Family) -> list[tuple[AuthorizationObject, AddressSet]]:
    found: list[tuple[AuthorizationObject, AddressSet]] = [
        (PrefixListReference(one.prefix_list_id), AddressSet.of(one.entries))
        for one in ends.snapshot.prefix_lists
        if one.family is family
    ]
    found += [(one, AddressSet.of([one])) for one in ends.measures.networks if one.family is family]
    return sorted(found, key=lambda one: sum(last - first + 1 for first, last in one[1].ranges(family)))


def _widened(named: AuthorizationObject, addresses: AddressSet, how: Widening, seen: str) -> FarObject:
    return FarObject(named=named, addresses=addresses, widening=how, seen=seen)


def _is_private(far: FarEnd) -> bool:
    family, address = far
    return any(one.family is family and one.first <= address <= one.last for one in _PRIVATE)


def far_text(far: FarEnd) -> str:
    """Return an address as people write it."""
    return address_text(*far)


def _addresses_text(number: int) -> str:
    return f"{number} address{'es' * (number != 1)}"
