"""Find the live sessions of this host that a policy would cut (§6.3, §7.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sgagent.core.evaluate import Decision, Packet, evaluate
from sgagent.core.host import HostFacts
from sgagent.core.model import TCP, Direction, Family, Policy
from sgagent.core.policy import ResolvedPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """A TCP session that somebody opened to a listener of this host."""

    family: Family
    local_address: int
    local_port: int
    peer_address: int
    peer_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CutSession:
    """A live session that the policy forbids, and why."""

    session: LiveSession
    interface: str
    decision: Decision


def sessions_cut(
    policy: ResolvedPolicy, facts: HostFacts, sessions: Iterable[LiveSession]
) -> tuple[CutSession, ...]:
    """Return the sessions that the policy would not allow to be opened, in the order given.

    A session belongs to the link that carries its local address; one whose address no link carries is left
    alone, as nothing tells where its packets come in.
    """
    link_of = {
        (address.family, address.first): link.name
        for link in facts.links
        if not link.is_loopback
        for address in link.addresses
    }
    cut = []
    for session in sessions:
        interface = link_of.get((session.family, session.local_address))
        if interface is None:
            continue
        decision = evaluate(policy, _opening_packet(session, interface))
        if decision.verdict is Policy.DROP:
            cut.append(CutSession(session=session, interface=interface, decision=decision))
    return tuple(cut)


def _opening_packet(session: LiveSession, interface: str) -> Packet:
    return Packet(
        interface=interface,
        direction=Direction.INGRESS,
        family=session.family,
        source=session.peer_address,
        destination=session.local_address,
        protocol=TCP.number or 0,
        source_port=session.peer_port,
        destination_port=session.local_port,
    )
