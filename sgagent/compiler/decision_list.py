"""Build the decision list of one direction, interface and family, in the order of §3.

Exemptions of the configuration, inner access and rules all become entries. An entry holds the far ends, the
traffic that it matches, and the counter chain for packets that it decides. A rule of several protocols has
several entries with one counter chain. The default follows the last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from sgagent.core.addresses import AddressRanges
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import ALL_PORTS, Direction, Family, Policy, PortSet
from sgagent.core.policy import ResolvedDirection, ResolvedInterface, ResolvedRule
from sgagent.nft import names, ruleset as nft

INNER_PEER = "(inner)"
"""No id of a document has parentheses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the list."""

    leaf: str
    """The chain that counts and carries out the verdict."""

    peer: str
    """Names the far end; equal names have equal addresses."""

    family: Family
    """Of the packets that it can match."""

    addresses: AddressRanges
    protocol: int | None
    """None is all."""

    ports: PortSet = ALL_PORTS
    """Destination ports."""

    source_ports: PortSet = ALL_PORTS
    local: tuple[int, int] | None = None
    """First and last address of the near end; None is any."""

    user: int | None = None
    """Whose sockets of this host it is for; None is all packets."""

    unit: str | None = None
    """The chain that asks for the control group of the socket, and leads to the leaf; None is no such one."""

    lets_answers_in: bool = False
    """Whether answers of sessions outwards match, which do not show whose they are (§6.3)."""

    is_exempt: bool = False
    """Whether it stands before the rules."""

    @property
    def is_for_everyone(self) -> bool:
        """Return whether the far end may be any address of the family.

        The family has to say what any is: all of IPv4 has the numbers of ``::/96``, a small part of IPv6.
        """
        return self.addresses == ((0, self.family.last_address),)

    @property
    def is_plain(self) -> bool:
        """Return whether peer, protocol and destination port say whether it matches."""
        return self.source_ports.is_all and self.local is None and self.user is None and self.unit is None

    @property
    def onward(self) -> nft.Goto | nft.Jump:
        """Return the way on for packets that match in all that the line compares itself."""
        return nft.Goto(self.leaf) if self.unit is None else nft.Jump(self.unit)

    @property
    def is_for_all(self) -> bool:
        """Return whether it matches all that the far end sends or is sent."""
        return self.is_plain and self.protocol is None


def list_entries(
    interface: ResolvedInterface, direction: Direction, family: Family, memo: Memo
) -> tuple[Entry, ...]:
    """Return the entries that can match packets of the family, the first that decides first."""
    memo = memo.part(Seam.DIRTY_CLASSES, direction, interface.name, family)
    toward = interface.toward(direction)
    before_rules = memo.same("before rules", tuple(_before_rules(toward, interface.name, family)))
    make_entries = partial(_rule, interface=interface.name, family=family)
    return (*before_rules, *chain.from_iterable(memo.each("rules", make_entries, toward.rules)))


def _before_rules(toward: ResolvedDirection, interface: str, family: Family) -> Iterator[Entry]:
    """Yield the entries of exemptions and of inner access."""
    for kind, exemptions in (("platform", toward.platform), ("failsafe", toward.failsafe)):
        for one in exemptions:
            if one.can_match(family):
                yield Entry(
                    leaf=names.step_chain(kind, one.direction, interface),
                    peer=str(one.peer),
                    family=family,
                    addresses=((one.peer.first, one.peer.last),),
                    protocol=one.protocol.number,
                    ports=one.ports,
                    is_exempt=True,
                )
    if inner := toward.inner.ranges(family):
        yield Entry(
            leaf=names.inner_chain(interface),
            peer=INNER_PEER,
            family=family,
            addresses=inner,
            protocol=None,
            is_exempt=True,
        )


def _rule(rule: ResolvedRule, interface: str, family: Family) -> tuple[Entry, ...]:
    """Return the entries of a rule, one for each protocol; none if it can match nothing of the family."""
    if not rule.can_match(family):
        return ()
    return tuple(
        Entry(
            leaf=names.rule_chain(interface, rule.rule_id),
            peer=rule.peer.key,
            family=family,
            addresses=rule.peer.addresses.ranges(family),
            protocol=protocol.number,
            ports=rule.ports,
            source_ports=rule.source_ports,
            local=rule.near_ends,
            user=rule.user,
            unit=_unit_chain(rule, interface),
            lets_answers_in=rule.user is not None and rule.policy is Policy.ACCEPT,
        )
        for protocol in rule.protocols_of(family)
    )


def _unit_chain(rule: ResolvedRule, interface: str) -> str | None:
    group = rule.conditions.group
    return None if group is None else names.unit_chain(interface, rule.rule_id, group)


@dataclass(frozen=True, slots=True)
class Grouped:
    """Entries by their places in the list, the first that decides first."""

    entries: tuple[Entry, ...]
    by_peer: Mapping[str, Sequence[int]]
    """Those of each peer that is not everyone."""

    for_everyone: tuple[int, ...]
    peers: tuple[str, ...]
    """Sorted."""

    @classmethod
    def of(cls, entries: tuple[Entry, ...]) -> Grouped:
        """Group all entries, which are in order, by their peers."""
        by_peer: defaultdict[str, list[int]] = defaultdict(list)
        for_everyone: list[int] = []
        everyone = ((0, entries[0].family.last_address),) if entries else ()
        for index, entry in enumerate(entries):
            if entry.addresses == everyone:
                for_everyone.append(index)
            else:
                by_peer[entry.peer].append(index)
        return cls(entries, by_peer, tuple(for_everyone), tuple(sorted(by_peer)))

    @property
    def addresses(self) -> tuple[AddressRanges, ...]:
        """Return the addresses of each peer."""
        return tuple(self.entries[self.by_peer[peer][0]].addresses for peer in self.peers)

    def own(self, peers: tuple[str, ...]) -> list[int]:
        """Return the entries of some peers, in order."""
        return sorted(index for peer in peers for index in self.by_peer[peer])
