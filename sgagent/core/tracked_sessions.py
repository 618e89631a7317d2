"""The sessions that conntrack follows, and which of them a policy has to end in conntrack too (§6.3).

Dropping their packets is enough for most. Not where the policy lets the far end open the same session from
its side: its packets are part of the old one as long as conntrack knows that. Nor where a flow table of
another table forwards packets past our hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from sgagent.core.addresses import Ranges, joined, meets
from sgagent.core.evaluate import Packet
from sgagent.core.lockout import DoorJudge
from sgagent.core.model import DCCP, ICMP, ICMPV6, LAST_PORT, SCTP, TCP, Direction, Family, Mode, Policy
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy


@dataclass(frozen=True, slots=True)
class FlowTuple:
    """The ends of one direction of a session, as its packets have them before this host's NAT."""

    source: int
    source_port: int | None
    """None for protocols without ports."""

    destination: int
    destination_port: int | None

    @property
    def turned(self) -> FlowTuple:
        """Return the ends exchanged."""
        return FlowTuple(self.destination, self.destination_port, self.source, self.source_port)


@dataclass(frozen=True, slots=True)
class ConntrackEntry:
    """A session that conntrack follows."""

    family: Family
    protocol: int
    original: FlowTuple
    """Of the packet that opened it."""

    reply: FlowTuple
    mark: int
    is_offloaded: bool
    """Whether a flow table forwards its packets past all hooks."""

    identity: int
    """Tells it from a later one with the same tuples, unless that took its place in the kernel's memory."""

    original_zone: int = 0
    reply_zone: int = 0

    def opening(self, interface: str, direction: Direction) -> Packet:
        """Return the packet that opened it as it was on the wire at a link (§2.2)."""
        return self._packet(
            interface, direction, self.original if direction is Direction.INGRESS else self.reply.turned
        )

    def from_far_end(self, interface: str) -> Packet:
        """Return the packet by which the far end would open the same session where this host's end did."""
        return self._packet(interface, Direction.INGRESS, self.reply)

    def _packet(self, interface: str, direction: Direction, ends: FlowTuple) -> Packet:
        return Packet(
            interface=interface,
            direction=direction,
            family=self.family,
            protocol=self.protocol,
            source=ends.source,
            source_port=ends.source_port,
            destination=ends.destination,
            destination_port=ends.destination_port,
            is_of_unknown_user=direction is Direction.EGRESS,
        )


_NOT_REOPENED = frozenset(
    protocol.wire_number
    for protocol in (
        *(TCP, SCTP, DCCP),  # conntrack may take any later packet of theirs for the first one
        *(ICMP, ICMPV6),  # the type of a packet says whether it opens a session
    )
)


def can_be_reopened(protocol: int) -> bool:
    """Return whether the next packet of either end opens a session anew, as if it were the first."""
    return protocol not in _NOT_REOPENED


FindLink = Callable[[ConntrackEntry, Direction], str | None]
"""Finds the link through which a session was opened in a direction, if nothing speaks against it."""


Maker = tuple[int | None, int | None]
"""Who made a socket: the user, and the number of the control group; None stands for no socket (§13.3)."""


def _forwarded(packet: Packet) -> Packet:
    """Return a packet outwards as one that no socket of this host sends."""
    return replace(packet, is_of_unknown_user=False)


class EntryJudge:
    """Judge conntrack's entries, by one policy; many entries with few ports among them."""

    def __init__(self, policy: ResolvedPolicy, find_link: FindLink) -> None:
        """Take the policy in force, and the look-up of links."""
        self._door_judge = DoorJudge(policy)
        self._policy = policy
        self._find_link = find_link
        self._ports_in: dict[str, Ranges] = {}

    def is_locked_out(self, entry: ConntrackEntry) -> bool:
        """Return whether packets of the far end are dropped only because a revoked session has their ends.

        The session was opened outwards, which the policy forbids now, and the far end may open it. One that
        the policy forbids where it was opened inwards, too, stays: it has to stop in both directions.
        """
        if not can_be_reopened(entry.protocol) or not self._may_admit(entry):
            return False
        link = self._find_link(entry, Direction.EGRESS)
        return (
            link is not None
            and self._is_dropped(entry.opening(link, Direction.EGRESS))
            and not self._is_dropped(entry.from_far_end(link))
            and not self._is_revoked_inwards(entry)
        )

    def is_revoked(self, entry: ConntrackEntry) -> bool:
        """Return whether the policy forbids a session, which is forwarded, at a link where it was opened."""
        link = self._find_link(entry, Direction.EGRESS)
        is_out = link is not None and self._is_dropped(_forwarded(entry.opening(link, Direction.EGRESS)))
        return is_out or self._is_revoked_inwards(entry)

    def is_of_revoked_user(self, entry: ConntrackEntry, makers: Collection[Maker]) -> bool:
        """Return whether the policy forbids a session to each user and unit who may have made its socket.

        Its answers do not show that (§6.3): they would be let in as long as some user may have it.
        """
        link = self._find_link(entry, Direction.EGRESS)
        judge = self._policy.judge(link) if link is not None else None
        if link is None or judge is None or not judge.egress.has_users:
            return False
        opening = _forwarded(entry.opening(link, Direction.EGRESS))
        sent = (replace(opening, user=user, unit=unit) for user, unit in makers)
        return bool(makers) and all(map(self._is_dropped, sent))

    def _is_revoked_inwards(self, entry: ConntrackEntry) -> bool:
        link = self._find_link(entry, Direction.INGRESS)
        return link is not None and self._is_dropped(entry.opening(link, Direction.INGRESS))

    def _is_dropped(self, packet: Packet) -> bool:
        """Return whether a packet that opens a session is dropped, and not only counted (§9.1)."""
        judge = self._policy.judge(packet.interface)
        if judge is None or judge.mode is not Mode.ENFORCE:
            return False
        return self._door_judge.evaluate(packet).verdict is Policy.DROP

    def _may_admit(self, entry: ConntrackEntry) -> bool:
        """Return whether some link may admit the far end's packet, at the cost of a look at its port."""
        port, packet = entry.reply.destination_port or 0, entry.from_far_end("")
        return any(
            meets((port, port), self._ports_of(judge))
            or judge.ingress.inner.contains(packet.family, packet.peer)
            for judge in self._policy.judges
        )

    def _ports_of(self, judge: ResolvedInterface) -> Ranges:
        """Return the destination ports of which something other than inner access admits packets."""
        if judge.name not in self._ports_in:
            ingress = judge.ingress
            admitting = [rule.ports for rule in ingress.rules if rule.policy is Policy.ACCEPT]
            admitting += [entry.ports for entry in (*ingress.platform, *ingress.failsafe)]
            is_all = ingress.default is Policy.ACCEPT or any(ports.is_all for ports in admitting)
            every = [(0, LAST_PORT)] if is_all else [ends for ports in admitting for ends in ports.ranges]
            self._ports_in[judge.name] = joined(every)
        return self._ports_in[judge.name]
