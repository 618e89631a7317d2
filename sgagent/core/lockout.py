"""The live sessions of this host that a policy would cut (§6.3, §7.4)."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from sgagent.core.binding import HostFacts
from sgagent.core.evaluate import Decision, Packet, evaluate, matches_but_for_source
from sgagent.core.model import TCP, Direction, Family, Mode, Policy, address_text
from sgagent.core.policy import ResolvedPolicy


class SessionKind(enum.Enum):
    """The purpose of a session, as far as this host can find it out; the dearest first."""

    MANAGEMENT = "management"
    """Somebody is logged in: SSH."""

    SOURCE = "source"
    """The agent itself gets its definitions."""

    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """A TCP session between this host and another."""

    family: Family
    local_address: int
    local_port: int
    peer_address: int
    peer_port: int
    opened: Direction = Direction.INGRESS
    """Egress: this host opened it. Ingress: somebody opened it to a listener of this host."""

    kind: SessionKind = SessionKind.OTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class CutSession:
    """A live session that the policy forbids, and why."""

    session: LiveSession
    interface: str
    decision: Decision


def may_shut_in(policy: ResolvedPolicy) -> bool:
    """Return whether there may be sessions that only the far end may open."""
    return any(
        judge.mode is Mode.ENFORCE
        and (
            judge.egress.default is Policy.DROP
            or any(rule.policy is Policy.DROP for rule in judge.egress.rules)
        )
        for judge in policy.judges
    )


def sessions_shut_in(
    policy: ResolvedPolicy, facts: HostFacts, sessions: Iterable[LiveSession]
) -> Iterator[tuple[LiveSession, str]]:
    """Yield the sessions that the policy lets the far end open, and this host not, with their interfaces.

    Args:
        policy: in force. An interface in observe mode shuts nothing in (§9.1).
        facts: the links.
        sessions: at listeners.
    """
    link_of, inwards = _links_by_address(facts), DoorJudge(policy)
    for session in sessions:
        interface = link_of.get((session.family, session.local_address))
        judge = policy.judge(interface) if interface else None
        if interface is None or judge is None or judge.mode is not Mode.ENFORCE:
            continue
        is_admitted = inwards.evaluate(opening_packet(session, interface)).verdict is Policy.ACCEPT
        outwards = opening_packet(replace(session, opened=Direction.EGRESS), interface)
        if is_admitted and evaluate(policy, outwards).verdict is Policy.DROP:
            yield session, interface


def _links_by_address(facts: HostFacts) -> dict[tuple[Family, int], str]:
    return {
        (address.family, address.first): link.name
        for link in facts.links
        if not link.is_loopback
        for address in link.addresses
    }


def sessions_cut(
    policy: ResolvedPolicy, facts: HostFacts, sessions: Iterable[LiveSession]
) -> tuple[CutSession, ...]:
    """Return the sessions that the policy would not allow to be opened, in the order given.

    In observe mode too. A session belongs to the link that carries its local address; one whose address no
    link carries is left alone, as nothing tells where its packets come in.
    """
    link_of = _links_by_address(facts)
    judge, cut = DoorJudge(policy), []
    for session in sessions:
        interface = link_of.get((session.family, session.local_address))
        if interface is None:
            continue
        decision = judge.evaluate(opening_packet(session, interface))
        if decision.verdict is Policy.DROP:
            cut.append(CutSession(session=session, interface=interface, decision=decision))
    return tuple(cut)


MOST_DOORS = 10_000
"""Of which the rules are remembered."""


class DoorJudge:
    """Evaluate packets to few doors: ports of near ends. Each is spared a walk over the rules of others."""

    def __init__(self, policy: ResolvedPolicy) -> None:
        """Take the policy."""
        self._policy = policy
        self._rules_at: dict[tuple[object, ...], ResolvedPolicy] = {}

    def evaluate(self, packet: Packet) -> Decision:
        """Return the verdict on a packet, as :func:`sgagent.core.evaluate.evaluate` does."""
        protocol, maker = (packet.protocol, packet.destination_port), (packet.user, packet.unit)
        door = (
            packet.interface,
            packet.direction,
            packet.family,
            packet.local,
            *protocol,
            *maker,
            packet.is_of_unknown_user,
        )
        if door not in self._rules_at:
            if len(self._rules_at) >= MOST_DOORS:
                self._rules_at.clear()
            self._rules_at[door] = self._at(packet)
        return evaluate(self._rules_at[door], packet)

    def _at(self, packet: Packet) -> ResolvedPolicy:
        """Return the policy of one interface, without the rules that speak of other ports or near ends."""
        judge = self._policy.judge(packet.interface)
        if judge is None:
            return ResolvedPolicy()
        toward = judge.toward(packet.direction)
        rules = tuple(rule for rule in toward.rules if matches_but_for_source(rule, packet))
        here = judge.with_side(packet.direction, replace(toward, rules=rules))
        return ResolvedPolicy(interfaces=(replace(here, name=packet.interface),))


def sessions_newly_cut(
    old: ResolvedPolicy | None, new: ResolvedPolicy, facts: HostFacts, sessions: Iterable[LiveSession]
) -> tuple[CutSession, ...]:
    """Return the sessions that the old policy allows and the new one does not, in the order given.

    An interface in observe mode cuts nothing (§9.1).

    Args:
        old: the policy in force. None if it is unknown; every open session then counts as allowed.
        new: the policy to apply.
        facts: the links.
        sessions: the open sessions.
    """
    cuts = [cut for cut in sessions_cut(new, facts, sessions) if is_carried_out(new, cut)]
    if old is None:
        return tuple(cuts)
    also = sessions_cut(old, facts, (cut.session for cut in cuts))
    before = {cut.session for cut in also if is_carried_out(old, cut)}
    return tuple(cut for cut in cuts if cut.session not in before)


def dearest(sessions: Iterable[LiveSession], most: int) -> tuple[LiveSession, ...]:
    """Return so many of the sessions, those first that a person would miss most, in a total order.

    Behind logins and the agent's own come those at ports that few talk to: a door for administrators that
    nothing else tells from a busy service.
    """
    all_of_them = tuple(sessions)
    crowds = Counter((session.opened, session.local_port) for session in all_of_them)

    def rank(session: LiveSession) -> tuple[int, int, int, int, int, int]:
        return (
            _KINDS.index(session.kind),
            crowds[session.opened, session.local_port],
            session.local_port,
            session.peer_address,
            session.peer_port,
            session.local_address,
        )

    return tuple(sorted(all_of_them, key=rank)[:most])


_KINDS = tuple(SessionKind)


def is_carried_out(policy: ResolvedPolicy, cut: CutSession) -> bool:
    """Return whether verdicts on the session's interface are more than counted."""
    judge = policy.judge(cut.interface)
    return judge is not None and judge.mode is Mode.ENFORCE


def opening_packet(session: LiveSession, interface: str) -> Packet:
    """Return the packet that opened a session."""
    near, far = (session.local_address, session.local_port), (session.peer_address, session.peer_port)
    source, destination = (far, near) if session.opened is Direction.INGRESS else (near, far)
    return Packet(
        interface=interface,
        direction=session.opened,
        family=session.family,
        source=source[0],
        destination=destination[0],
        protocol=TCP.wire_number,
        source_port=source[1],
        destination_port=destination[1],
        is_of_unknown_user=session.opened is Direction.EGRESS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCut:
    """A session that is cut, in words."""

    interface: str
    kind: SessionKind
    opened: Direction
    peer: str
    peer_port: int
    local: str
    local_port: int
    decided_by: str
    """The step of §3."""

    rule_id: str | None

    def __str__(self) -> str:
        """Return the session and its forbidding rule or step, for a person."""
        who = {SessionKind.MANAGEMENT: "the login", SessionKind.SOURCE: "the agent's own session"}
        what = who.get(self.kind, "the session")
        by = f"rule {self.rule_id}" if self.rule_id else f"the {self.decided_by}"
        if self.opened is Direction.EGRESS:
            return f"{what} to {self.peer} port {self.peer_port} on {self.interface}, by {by}"
        whence = f"from {self.peer} port {self.peer_port} to port {self.local_port}"
        return f"{what} {whence} on {self.interface}, by {by}"


def named(cut: CutSession) -> NamedCut:
    """Return a session that is cut, and why, in words."""
    session = cut.session
    return NamedCut(
        interface=cut.interface,
        kind=session.kind,
        opened=session.opened,
        peer=address_text(session.family, session.peer_address),
        peer_port=session.peer_port,
        local=address_text(session.family, session.local_address),
        local_port=session.local_port,
        decided_by=cut.decision.decided_by.value,
        rule_id=cut.decision.rule.rule_id if cut.decision.rule else None,
    )


def as_keys(cut: NamedCut) -> dict[str, object]:
    """Return the fields as keys of a log line."""
    return {**asdict(cut), "kind": cut.kind.value, "opened": cut.opened.value}
