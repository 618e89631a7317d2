"""Build the decision list of one direction, interface and family, in the order of §3.

Exemptions of the configuration, inner access and rules all become entries. An entry holds the far ends, the
traffic that it matches, and the counter chain for packets that it decides. A rule of several protocols has
several entries with one counter chain. The default follows the last.

:class:`Selectors` say where rules read the ends of a session: in the packet's header or conntrack's tuples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from sgagent.core.addresses import AddressRanges
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import ALL_PORTS, UDP, Direction, Family, PortSet, Protocol
from sgagent.core.policy import DHCP, Exemption, ResolvedDirection, ResolvedInterface, ResolvedRule
from sgagent.nft import names, ruleset as nft

Place = tuple[Direction, str, Family]
"""Of the sessions that one decision list is for: their direction, interface and family."""

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
        return self.source_ports.is_all and self.local is None

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
        for exemption in exemptions:
            if exemption.can_match(family):
                yield _exemption(kind, exemption, interface)
    inner = toward.inner.ranges(family)
    if inner:
        yield _inner(inner, interface, family)


def _inner(members: AddressRanges, interface: str, family: Family) -> Entry:
    return Entry(
        leaf=names.inner_chain(interface),
        peer=INNER_PEER,
        family=family,
        addresses=members,
        protocol=None,
        is_exempt=True,
    )


def _exemption(kind: str, exemption: Exemption, interface: str) -> Entry:
    block = exemption.peer
    return Entry(
        leaf=names.step_chain(kind, exemption.direction, interface),
        peer=str(block),
        family=block.family,
        addresses=((block.first, block.last),),
        protocol=exemption.protocol.number,
        ports=exemption.ports,
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
        )
        for protocol in rule.protocols_of(family)
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectors:
    """Where to read the ends of a session of one direction and family."""

    family: Family
    peer: nft.Selector
    local: nft.Selector
    protocol: nft.Selector
    protocol_and_port: tuple[nft.Selector, nft.Selector]
    """For a look-up of both at once."""

    is_tracked: bool
    source_port: nft.Selector | None
    """None for headers, where the protocol has to say."""

    destination_port: nft.Selector | None
    settled: int | None = None
    """The protocol, where it need not be asked for."""

    def of_protocol(self, protocol: Protocol) -> Selectors:
        """Return how headers are read where the protocol, which has ports, is settled."""
        return replace(self, settled=protocol.number, destination_port=nft.TH_DPORT)

    def match_others(self, protocol: Protocol) -> nft.Match:
        """Return the match on every protocol but one."""
        return nft.Match(self.protocol, (nft.Interval.single(protocol.wire_number),), nft.Operator.NOT_EQUAL)

    def match_protocol(self, protocol: int) -> tuple[nft.Match, ...]:
        """Return the match on a protocol."""
        return (nft.Match(self.protocol, (nft.Interval.single(protocol),)),)

    def match_port(self, protocol: int, ports: nft.Interval) -> tuple[nft.Match, ...]:
        """Return the matches on a protocol and its destination port."""
        if self.destination_port is None:
            return (nft.Match(nft.destination_port(Protocol(protocol)), (ports,)),)
        return (*self._unless_settled(protocol), nft.Match(self.destination_port, (ports,)))

    def read_port(self, protocol: int) -> tuple[tuple[nft.Match, ...], nft.Selector]:
        """Return what to match first, and where the destination port is then."""
        if self.destination_port is None:
            return (), nft.destination_port(Protocol(protocol))
        return self._unless_settled(protocol), self.destination_port

    def _unless_settled(self, protocol: int) -> tuple[nft.Match, ...]:
        return () if protocol == self.settled else self.match_protocol(protocol)

    def match_source_port(self, protocol: int, ports: nft.Interval) -> nft.Match:
        """Return the match on the source port, the protocol being settled."""
        return nft.Match(self.source_port_of(protocol), (ports,))

    def source_port_of(self, protocol: int) -> nft.Selector:
        """Return where the source port is, the protocol being settled."""
        return self.source_port or nft.source_port(Protocol(protocol))

    def match_local(self, addresses: nft.Interval) -> nft.Match:
        """Return the match on the near end."""
        return nft.Match(self.local, (addresses,))


def readings(direction: Direction, family: Family) -> tuple[Selectors, Selectors]:
    """Return how sessions opened in the direction are read where tracked, and how packets where not."""
    return _tracked(direction, family), _untracked(direction, family)


def _tracked(direction: Direction, family: Family) -> Selectors:
    inwards = direction is Direction.INGRESS
    side = nft.TupleDirection.ORIGINAL if inwards else nft.TupleDirection.REPLY
    prefix = "ip" if family is Family.IPV4 else "ip6"
    source, destination = nft.ct_tuple(side, "proto-src"), nft.ct_tuple(side, "proto-dst")
    if not inwards:
        source, destination = destination, source
    return Selectors(
        family=family,
        peer=nft.ct_tuple(side, f"{prefix} saddr"),
        local=nft.ct_tuple(side, f"{prefix} daddr"),
        protocol=nft.CT_PROTOCOL,
        protocol_and_port=(nft.CT_PROTOCOL, destination),
        is_tracked=True,
        source_port=source,
        destination_port=destination,
    )


def _untracked(direction: Direction, family: Family) -> Selectors:
    ends = {
        Family.IPV4: (nft.IP_SADDR, nft.IP_DADDR),
        Family.IPV6: (nft.IP6_SADDR, nft.IP6_DADDR),
    }[family]
    peer, local = ends if direction is Direction.INGRESS else ends[::-1]
    return Selectors(
        family=family,
        peer=peer,
        local=local,
        protocol=nft.META_L4PROTO,
        protocol_and_port=(nft.META_L4PROTO, nft.TH_DPORT),
        is_tracked=False,
        source_port=None,
        destination_port=None,
    )


def dhcp_rule(reading: Selectors, direction: Direction, interface: str, family: Family) -> nft.Rule:
    """Return the rule that accepts DHCP between this host, as a client, and any server.

    The source port stands first: libnftables lists neighbouring fields of a header in the header's order.
    """
    server, client = (nft.Interval.single(port) for port in DHCP[family])
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    number = UDP.wire_number
    *protocol, port = reading.match_port(number, destination)
    accept = nft.Goto(names.accept_chain(direction, interface))
    return nft.Rule((*protocol, reading.match_source_port(number, source), port, accept))
