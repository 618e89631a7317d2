"""Selectors: the nftables expressions for the ends of a session, in a packet or in conntrack (§2.2, §6.4).

For a session in conntrack, its tuples are read, whichever direction the packet has, so that any packet can
decide it. A session that was opened inwards is read from the original tuple, as it came in, before any NAT. A
session that was opened outwards is read from the reply tuple with ends swapped, as it went out after all NAT.
An untracked packet is read from its own header.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sgagent.core.model import UDP, Direction, Family, Protocol
from sgagent.core.policy import DHCP
from sgagent.nft import names, ruleset
from sgagent.nft.ruleset import Goto, Interval, Match, Operator, Rule, Selector, TupleDirection, ct_tuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectors:
    """Where to read the ends of a session of one direction and family."""

    family: Family
    peer: Selector
    local: Selector
    protocol: Selector
    protocol_and_port: tuple[Selector, Selector]
    """For a look-up of both at once."""

    is_tracked: bool
    source_port: Selector | None
    """None for headers, where the protocol has to say."""

    destination_port: Selector | None
    settled: int | None = None
    """The protocol, where it need not be asked for."""

    def of_protocol(self, protocol: Protocol) -> Selectors:
        """Return how headers are read where the protocol, which has ports, is settled."""
        return replace(self, settled=protocol.number, destination_port=ruleset.TH_DPORT)

    def match_others(self, protocol: Protocol) -> Match:
        """Return the match on every protocol but one."""
        return Match(self.protocol, (Interval.single(protocol.wire_number),), Operator.NOT_EQUAL)

    def match_protocol(self, protocol: int) -> tuple[Match, ...]:
        """Return the match on a protocol."""
        return (Match(self.protocol, (Interval.single(protocol),)),)

    def match_port(self, protocol: int, ports: Interval) -> tuple[Match, ...]:
        """Return the matches on a protocol and its destination port."""
        if self.destination_port is None:
            return (Match(ruleset.destination_port(Protocol(protocol)), (ports,)),)
        return (*self._unless_settled(protocol), Match(self.destination_port, (ports,)))

    def read_port(self, protocol: int) -> tuple[tuple[Match, ...], Selector]:
        """Return what to match first, and where the destination port is then."""
        if self.destination_port is None:
            return (), ruleset.destination_port(Protocol(protocol))
        return self._unless_settled(protocol), self.destination_port

    def _unless_settled(self, protocol: int) -> tuple[Match, ...]:
        return () if protocol == self.settled else self.match_protocol(protocol)

    def match_source_port(self, protocol: int, ports: Interval) -> Match:
        """Return the match on the source port, the protocol being settled."""
        return Match(self.source_port_of(protocol), (ports,))

    def source_port_of(self, protocol: int) -> Selector:
        """Return where the source port is, the protocol being settled."""
        return self.source_port or ruleset.source_port(Protocol(protocol))

    def match_local(self, addresses: Interval) -> Match:
        """Return the match on the near end."""
        return Match(self.local, (addresses,))


def readings(direction: Direction, family: Family) -> tuple[Selectors, Selectors]:
    """Return how sessions opened in the direction are read where tracked, and how packets where not."""
    return _tracked(direction, family), _untracked(direction, family)


def _tracked(direction: Direction, family: Family) -> Selectors:
    inwards = direction is Direction.INGRESS
    side = TupleDirection.ORIGINAL if inwards else TupleDirection.REPLY
    prefix = "ip" if family is Family.IPV4 else "ip6"
    source, destination = ct_tuple(side, "proto-src"), ct_tuple(side, "proto-dst")
    if not inwards:
        source, destination = destination, source
    return Selectors(
        family=family,
        peer=ct_tuple(side, f"{prefix} saddr"),
        local=ct_tuple(side, f"{prefix} daddr"),
        protocol=ruleset.CT_PROTOCOL,
        protocol_and_port=(ruleset.CT_PROTOCOL, destination),
        is_tracked=True,
        source_port=source,
        destination_port=destination,
    )


def _untracked(direction: Direction, family: Family) -> Selectors:
    ends = {
        Family.IPV4: (ruleset.IP_SADDR, ruleset.IP_DADDR),
        Family.IPV6: (ruleset.IP6_SADDR, ruleset.IP6_DADDR),
    }[family]
    peer, local = ends if direction is Direction.INGRESS else ends[::-1]
    return Selectors(
        family=family,
        peer=peer,
        local=local,
        protocol=ruleset.META_L4PROTO,
        protocol_and_port=(ruleset.META_L4PROTO, ruleset.TH_DPORT),
        is_tracked=False,
        source_port=None,
        destination_port=None,
    )


def dhcp_rule(reading: Selectors, direction: Direction, interface: str, family: Family) -> Rule:
    """Return the rule that accepts DHCP between this host, as a client, and any server.

    The source port stands first: libnftables lists neighbouring fields of a header in the header's order.
    """
    server, client = (Interval.single(port) for port in DHCP[family])
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    number = UDP.wire_number
    *protocol, port = reading.match_port(number, destination)
    accept = Goto(names.accept_chain(direction, interface))
    return Rule((*protocol, reading.match_source_port(number, source), port, accept))
