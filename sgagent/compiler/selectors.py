"""Selectors: where rules read the ends of a session, in the packet's header or in conntrack's tuples.

All chains that judge exist in two variants (:func:`read_twice`). The first reads the packet's header, which
is cheapest, and holds for the first packet of a session. The second, for live sessions, reads conntrack's
tuples, and holds for any packet. Maps exist once and lead to the first variant; a guard at its head sends
packets of live sessions to the second. That sends those back that belong to an entry which was opened over
another link: they are evaluated by their own header (§6.4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sgagent.core.model import UDP, Direction, Family, PortSet, Protocol
from sgagent.core.policy import DHCP, ResolvedInterface
from sgagent.nft import names, ruleset as nft

COMES_IN = nft.Match(nft.META_OIFNAME, (nft.NO_LINK,))
"""Matches at prerouting: no link is known yet by which the packet leaves."""

Place = tuple[Direction, str, Family]
"""Of the sessions that one decision list is for: their direction, interface and family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectors:
    """Where to read the ends of a session of one direction and family."""

    peer: nft.Selector
    local: nft.Selector
    protocol: nft.Selector
    source_port: nft.Selector | None = None
    """None for headers, where the protocol has to say."""

    destination_port: nft.Selector | None = None
    settled: int | None = None
    """The protocol, where it need not be asked for."""

    @property
    def is_tracked(self) -> bool:
        """Return whether the ends are read in conntrack's tuples."""
        return self.source_port is not None

    @property
    def protocol_and_port(self) -> tuple[nft.Selector, nft.Selector]:
        """Return both selectors, for a look-up of both at once."""
        return self.protocol, self.destination_port or nft.TH_DPORT

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
        before, port = self.read_port(protocol)
        return (*before, nft.Match(port, (ports,)))

    def read_port(self, protocol: int) -> tuple[tuple[nft.Match, ...], nft.Selector]:
        """Return the matches that must come first, and where the destination port is then."""
        if self.destination_port is None:
            return (), nft.destination_port(Protocol(protocol))
        return () if protocol == self.settled else self.match_protocol(protocol), self.destination_port

    def read_source_port(self, protocol: int) -> nft.Selector:
        """Return where the source port is, the protocol being settled."""
        return self.source_port or nft.source_port(Protocol(protocol))

    def match_source_ports(self, protocol: int | None, ports: PortSet) -> tuple[tuple[nft.Match, ...], ...]:
        """Return the alternatives of source ports, each as its matches, the protocol being settled."""
        if protocol is None or ports.is_all:
            return ((),)
        selector = self.read_source_port(protocol)
        return tuple((nft.Match(selector, (nft.Interval(*ends),)),) for ends in ports.ranges)

    def match_user(self, user: int | None, *, lets_answers_in: bool) -> tuple[tuple[nft.Match, ...], ...]:
        """Return the alternatives of who made the socket; answers come in without one (§6.3, §13.3).

        Args:
            user: who may have made it; None is anybody, and packets without a socket.
            lets_answers_in: whether answers of live sessions match too.
        """
        if user is None:
            return ((),)
        made_by = (nft.Match(nft.META_SKUID, (nft.Interval.single(user),)),)
        return (made_by, (COMES_IN,)) if self.is_tracked and lets_answers_in else (made_by,)

    def match_ends(
        self, peers: tuple[nft.Interval, ...], local: tuple[int, int] | None
    ) -> tuple[nft.Match, ...]:
        """Return the matches of far and near end, in the order of the header, as libnftables lists them."""
        far = (nft.Match(self.peer, peers),) if peers else ()
        near = () if local is None else (nft.Match(self.local, (nft.Interval(*local),)),)
        return (*far, *near) if self.peer.key.endswith("saddr") else (*near, *far)


def has_units(judge: ResolvedInterface) -> bool:
    """Return whether an egress rule is for a unit that runs: answers have chains apart from it (§13.3)."""
    return any(rule.conditions.group is not None for rule in judge.egress.rules)


def readings(direction: Direction, family: Family) -> tuple[Selectors, Selectors]:
    """Return how sessions opened in the direction are read where tracked, and how packets where not."""
    inwards, is_ipv4 = direction is Direction.INGRESS, family is Family.IPV4
    side = nft.TupleDirection.ORIGINAL if inwards else nft.TupleDirection.REPLY
    prefix = "ip" if is_ipv4 else "ip6"
    ports = nft.ct_tuple(side, "proto-src"), nft.ct_tuple(side, "proto-dst")
    source, destination = ports if inwards else ports[::-1]
    tracked = Selectors(
        peer=nft.ct_tuple(side, f"{prefix} saddr"),
        local=nft.ct_tuple(side, f"{prefix} daddr"),
        protocol=nft.CT_PROTOCOL,
        source_port=source,
        destination_port=destination,
    )
    ends = (nft.IP_SADDR, nft.IP_DADDR) if is_ipv4 else (nft.IP6_SADDR, nft.IP6_DADDR)
    peer, local = ends if inwards else ends[::-1]
    return tracked, Selectors(peer=peer, local=local, protocol=nft.META_L4PROTO)


def dhcp_rule(reading: Selectors, direction: Direction, interface: str, family: Family) -> nft.Rule:
    """Return the rule that accepts DHCP between this host, as a client, and any server.

    The source port stands first: libnftables lists neighbouring fields of a header in the header's order.
    """
    server, client = (nft.Interval.single(port) for port in DHCP[family])
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    number = UDP.wire_number
    *protocol, port = reading.match_port(number, destination)
    source_port = nft.Match(reading.read_source_port(number), (source,))
    return nft.Rule((*protocol, source_port, port, nft.Goto(names.accept_chain(direction, interface))))


def read_twice(
    name: str,
    place: Place,
    rules: Callable[[Selectors], list[nft.Rule]],
    final: tuple[nft.Statement, ...],
    guards: Callable[[str, Family], tuple[nft.Rule, ...]],
) -> tuple[nft.Chain, ...]:
    """Return the chain of the name, which reads headers, and the one beside it, which reads sessions.

    Args:
        name: of the first.
        place: whose sessions are judged.
        rules: makes the rules for one of the two ways to read.
        final: what is done with packets that none of these decides.
        guards: makes the rules that send packets from the first to the second.
    """
    direction, _, family = place
    by_session, by_header = (rules(reading) for reading in readings(direction, family))
    on = nft.Rule(final)
    if not by_header:
        return (nft.Chain(name=name, rules=(on,)),)
    head = (returning(direction),) if guards is guards_of_maps else ()
    live = nft.Chain(name=names.live_chain(name), rules=(*head, *by_session, on))
    return nft.Chain(name=name, rules=(*guards(live.name, family), *by_header, on)), live


def guards_of_maps(live: str, family: Family) -> tuple[nft.Rule, ...]:
    """Return the guards of a chain that is the target of maps.

    A packet that is not the first of its session may be a reply, or an ICMP error about the session.

    Args:
        live: the chain that reads sessions; it begins with what :func:`returning` returns.
        family: of the packets.
    """
    is_live = nft.Match(nft.CT_STATE, (nft.Symbol("established"), nft.Symbol("related")))
    return (nft.Rule((is_live, nft.Jump(live))), *guards_of_new(live, family))


def guards_of_new(live: str, family: Family) -> tuple[nft.Rule, ...]:
    """Return the guards of a chain to which only packets come that are evaluated by their header.

    Behind an authentication header of IPv6 conntrack sees the protocol, but nft does not.

    Args:
        live: the chain that reads sessions.
        family: of the packets.
    """
    if family is Family.IPV4:
        return ()
    is_authenticated = nft.Match(nft.META_L4PROTO, (nft.Interval.single(AUTHENTICATION),))
    return (nft.Rule((is_authenticated, nft.Match(nft.CT_STATE, (nft.Symbol("new"),)), nft.Goto(live))),)


def returning(direction: Direction) -> nft.Rule:
    """Return the rule that sends packets back that are evaluated by their own header (§6.4).

    They are replies that pass in the direction of the sessions that are judged. The replies of those sessions
    pass in the other direction, at the other hook: only one of the two knows a link outwards.
    """
    operator = nft.Operator.NOT_EQUAL if direction is Direction.EGRESS else nft.Operator.EQUAL
    is_reply = nft.Match(nft.CT_DIRECTION, (nft.Symbol("reply"),))
    return nft.Rule((is_reply, nft.Match(nft.META_OIFNAME, (nft.NO_LINK,), operator), nft.Return()))


AUTHENTICATION = 51
"""The protocol of IPv6 behind an authentication header, as nftables reads it."""
