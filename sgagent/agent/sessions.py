"""This host's open TCP sessions, the preview of those that a policy will cut, and their end (§7.4).

``explain`` asks here, too, which sessions conntrack knows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sgagent.core import lockout
from sgagent.core.binding import HostFacts
from sgagent.core.errors import NotPermittedError
from sgagent.core.evaluate import Packet, Tracking
from sgagent.core.lockout import CutSession, LiveSession, NamedCut, SessionKind, as_keys, named
from sgagent.core.model import Direction, Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.conntrack import TrackedSession
from sgagent.dataplane.live_sessions import (
    Ending,
    TcpSession,
    TcpSockets,
    link_towards,
    list_sockets,
    sessions_at_listeners,
)
from sgagent.host.login_ports import configured_ssh_ports
from sgagent.host.processes import own_sockets, sockets_of_agents, sockets_of_ssh_servers
from sgagent.nft.marks import EnforcementState, MarkLayout, elsewhere_marks, is_remembered
from sgagent.ports import Clock

if TYPE_CHECKING:  # 20 ms for commands that only look at sessions
    from sgagent.agent.step import EventLog, Step

SSH_PORT = 22


def open_sessions() -> tuple[LiveSession, ...]:
    """Return the sessions at this host's listeners, and those that this process has opened to others.

    Without sessions, the scan of all processes for the holders of sockets is skipped.

    Raises:
        OSError: the kernel can't tell.
    """
    sockets = list_sockets()
    if not sockets.sessions:
        return ()
    return classified(sockets, sockets_of_ssh_servers(), own_sockets(), configured_ssh_ports())


def open_sessions_of_agents_too() -> tuple[LiveSession, ...]:
    """Return the sessions as a command sees them: also those that a running agent has opened to others.

    Raises:
        OSError: the kernel can't tell.
    """
    ours = own_sockets() | sockets_of_agents()
    return classified(list_sockets(), sockets_of_ssh_servers(), ours, configured_ssh_ports())


def classified(
    sockets: TcpSockets,
    of_ssh_servers: Collection[int] = (),
    of_ourselves: Collection[int] = (),
    ssh_ports: Collection[int] = (),
) -> tuple[LiveSession, ...]:
    """Return the sessions at listeners and our own, with their kinds.

    A login is a session at port 22, at a port where an SSH server listens or is configured to listen, or one
    that such a server holds.

    Args:
        sockets: of this host.
        of_ssh_servers: the inodes of theirs; empty for an agent that may not look into other processes.
        of_ourselves: the inodes of ours.
        ssh_ports: at which SSH servers are configured to listen.
    """
    ports = {SSH_PORT, *ssh_ports, *(s.local_port for s in sockets.listeners if s.inode in of_ssh_servers)}

    def kind(session: TcpSession) -> SessionKind:
        is_login = session.local_port in ports or session.inode in of_ssh_servers
        return SessionKind.MANAGEMENT if is_login else SessionKind.OTHER

    incoming = sockets.at_listeners
    known = {session.inode for session in incoming}
    ours = (s for s in sockets.sessions if s.inode in of_ourselves and s.inode not in known)
    return (
        *(as_live_session(session, kind(session)) for session in incoming),
        *(as_live_session(session, SessionKind.SOURCE, Direction.EGRESS) for session in ours),
    )


def as_live_session(
    session: TcpSession, kind: SessionKind | None = None, opened: Direction = Direction.INGRESS
) -> LiveSession:
    """Return a session as the core needs it; without ``kind``, the port determines the kind."""
    by_port = SessionKind.MANAGEMENT if session.local_port == SSH_PORT else SessionKind.OTHER
    return LiveSession(
        family=session.family,
        local_address=session.local_address,
        local_port=session.local_port,
        peer_address=session.peer_address,
        peer_port=session.peer_port,
        opened=opened,
        kind=kind or by_port,
    )


ListSessions = Callable[[], Collection[LiveSession]]
"""Lists sessions, or raises OSError where the kernel can't tell."""


FindAll = Callable[[Sequence[Packet]], Sequence[TrackedSession | None]]
"""Finds the session of each packet; may raise OSError where the kernel can't be asked."""


class LiveSessions:
    """Look up whether the current policy has allowed a session, by its conntrack mark."""

    def __init__(self, layout: MarkLayout, find: FindAll) -> None:
        """Take the layout of marks, and the look-up of packets' sessions."""
        self._layout = layout
        self._find = find

    def as_met(self, packet: Packet, policy: ResolvedPolicy, state: EnforcementState) -> Packet:
        """Return the packet as the kernel would judge it.

        One of a live session is judged as the packet that opened the session, whichever way it goes itself
        (§6.4), but an answer of an entry that was not opened so here as what it is itself. If the
        current policy has allowed the session already, it says so (§3, step 1). In observe mode sessions are
        remembered that enforcing would drop, so there nothing is taken for allowed.
        """
        interface = policy.judge(packet.interface)
        if interface is None:
            return packet
        try:
            (session,) = self._find([packet])
        except OSError:
            return packet
        if session is None:
            return packet
        elsewhere = elsewhere_marks(interface.name, session.opened, self._layout, state)
        is_own = session.opened is packet.direction or (elsewhere and elsewhere.is_met_by(session.mark))
        opening = packet if is_own else _turned(packet, session.opened)
        if not is_own and session.opened is Direction.EGRESS:
            opening = replace(opening, is_of_unknown_user=True)
        is_allowed = interface.mode is Mode.ENFORCE and is_remembered(
            session.mark, interface.name, session.opened, self._layout, state
        )
        return replace(opening, tracking=Tracking.ALLOWED) if is_allowed else opening


def _turned(packet: Packet, opened: Direction) -> Packet:
    """Return the packet that a packet is a reply to."""
    return replace(
        packet,
        direction=opened,
        source=packet.destination,
        destination=packet.source,
        source_port=packet.destination_port,
        destination_port=packet.source_port,
    )


MOST_LOOKED_AT = 100
"""Sessions that are judged before an apply; each is held against all rules of its port, maybe very many."""

MOST_NAMED = 20
"""In the log, one by one; of the others their number."""


class CutPreview:
    """Look at the open sessions before each apply that may cut some."""

    def __init__(self, log: EventLog, list_sessions: ListSessions, find: FindAll) -> None:
        """Take the log, the lister of sessions, and the look-up of conntrack's entries."""
        self._log = log
        self._list_sessions = list_sessions
        self._find = find
        self._logged: frozenset[NamedCut] = frozenset()
        self._fault: str | None = None

    def cuts(self, old: ResolvedPolicy | None, new: ResolvedPolicy, facts: HostFacts) -> tuple[NamedCut, ...]:
        """Log and return the sessions that the old policy allows and the new one does not.

        The policy is applied in any case. Of very many sessions, some at busy ports are not checked; if the
        kernel can't list them, the log has once why. Cuts that were logged for an apply that the kernel
        refused are not logged again.

        Args:
            old: the policy in force; None if it is unknown.
            new: the policy to apply.
            facts: the links.
        """
        sessions, fault = tuple[LiveSession, ...](), None
        try:
            dearest = lockout.dearest(tuple(self._list_sessions()), MOST_LOOKED_AT)
            sessions = on_the_wire(dearest, self._find)
        except OSError as error:
            fault = str(error)
        if fault and fault != self._fault:
            self._log.warning("sessions_not_listed", reason=fault)
        self._fault = fault
        cut = tuple(map(named, lockout.sessions_newly_cut(old, new, facts, sessions)))
        unsaid = [one for one in cut if one not in self._logged]
        for one in unsaid[:MOST_NAMED]:
            self._log.warning("session_cut_foreseen", **as_keys(one))
        if len(unsaid) > MOST_NAMED:
            self._log.warning("more_cuts_foreseen", sessions=len(unsaid))
        self._logged = frozenset(cut)
        return cut


def on_the_wire(sessions: Sequence[LiveSession], find: FindAll) -> tuple[LiveSession, ...]:
    """Return sessions with the ends that the packets which opened them had at the link (§2.2).

    The port of the socket is another one where rules of others redirect. Without conntrack's word the ends of
    the socket are taken.
    """
    try:
        found = find([answer_of(session) for session in sessions])
    except (OSError, NotPermittedError):
        return tuple(sessions)
    return tuple(map(_as_came, sessions, found))


def _as_came(session: LiveSession, tracked: TrackedSession | None) -> LiveSession:
    """Return a session with the ends of its opening packet, if it was opened inwards."""
    is_inward = tracked is not None and tracked.opened is Direction.EGRESS  # as it was found by an answer
    if session.opened is Direction.EGRESS or tracked is None or tracked.original is None or not is_inward:
        return session
    came = tracked.original
    return replace(
        session,
        local_address=came.destination,
        local_port=came.destination_port or session.local_port,
        peer_address=came.source,
        peer_port=came.source_port or session.peer_port,
    )


def answer_of(session: LiveSession, interface: str = "") -> Packet:
    """Return the packet that answers the one that opened a session, as if it came in.

    So it is looked up by its own ends, which are those of the socket also where the port was redirected. Of a
    session that was opened inwards it is a reply.
    """
    return _turned(lockout.opening_packet(session, interface), Direction.INGRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPort:
    """How the kernel is asked about TCP sessions at local listeners, and ends them."""

    find: FindAll
    """Finds conntrack's entries of sessions."""

    destroy: Callable[[TcpSession], Ending]
    list_sessions: Callable[[], Iterable[TcpSession]] = sessions_at_listeners
    link_towards: Callable[[TcpSession], int | None] = link_towards
    """Returns the number of the link by which the host's packets leave."""

    def forbidden(
        self, policy: ResolvedPolicy, facts: HostFacts, sockets: Mapping[LiveSession, TcpSession]
    ) -> Iterator[tuple[CutSession, TcpSession]]:
        """Yield the sessions that a policy forbids, in observe mode too.

        Those whose packets leave by another link than the one with their address are left to the kernel.
        """
        numbers = {link.name: link.index for link in facts.links}
        for cut in lockout.sessions_cut(policy, facts, sockets):
            session = sockets[cut.session]
            if self.link_towards(session) in {None, numbers.get(cut.interface)}:
                yield cut, session


def end_forbidden_sessions(step: Step, log: EventLog, port: SessionPort) -> None:
    """Name the open TCP sessions that the policy forbids, and end those that conntrack did not follow.

    The kernel evaluates those that it followed, by what is on the wire: a port may be redirected.

    Args:
        step: the step that made the table.
        log: where they are named.
        port: what knows and ends sessions.
    """
    if step.policy is None:
        return
    try:
        sockets = {as_live_session(session): session for session in port.list_sessions()}
    except OSError as error:
        log.warning("sessions_not_listed", reason=str(error))
        return
    carried_out = list[tuple[CutSession, TcpSession]]()
    for cut, session in port.forbidden(step.policy, step.facts, sockets):
        if lockout.is_carried_out(step.policy, cut):
            carried_out.append((cut, session))
        else:
            log.warning("session_would_be_cut", **as_keys(named(cut)))
    for (cut, session), tracked in zip(carried_out, _tracked(carried_out, port.find), strict=True):
        if tracked is None or not _is_left_to_kernel(tracked):
            ending = _ending(session, port.destroy)
            log.warning("session_cut", ending=ending, **as_keys(named(cut)))


MOST_ASKED_FOR = 200
"""Revoked sessions that a look asks conntrack for."""

_LOOK_SECONDS = 0.05
"""After which a look leaves sessions to the next one; it evaluates :data:`MOST_LOOKED_AT` at a time."""


class RevokedSessions:
    """End revoked sessions at local listeners that conntrack no longer follows from their opening (§6.3).

    The far end can make conntrack forget a session whose packets are dropped: by a reset, or by silence. The
    socket of this host is still open, and its next packet would open the session outwards, where egress may
    be allowed. A session that conntrack knows is left: it goes on if it is allowed again.
    """

    def __init__(self, log: EventLog, clock: Clock, port: SessionPort) -> None:
        """Take the log, the clock, and the port that lists and ends sessions."""
        self._log = log
        self._clock = clock
        self._port = port
        self._step: Step | None = None
        self._is_listed = False
        self._listed: list[tuple[LiveSession, TcpSession]] = []
        """Those that are not evaluated yet."""

        self._revoked: list[tuple[CutSession, TcpSession]] = []

    is_busy = False
    """A look at each tick is enough: packets of these sessions are dropped meanwhile."""

    def follow(self, step: Step) -> None:
        """Take note of a step; after one that may have revoked sessions, the next look lists them."""
        before, self._step = self._step, step
        is_known = before is not None and before.policy is step.policy and before.facts == step.facts
        if not is_known and (step.may_cut or self._listed or self._revoked):
            self._is_listed = False

    def poll(self) -> None:
        """End those that conntrack has forgotten, or took up when this host sent first."""
        if self._step is None or self._step.policy is None:
            return
        policy, facts = self._step.policy, self._step.facts
        if not self._is_listed:
            try:
                self._listed, self._revoked, self._is_listed = self._list(), [], True
            except OSError:
                return  # as the preview of cuts logs; the next look tries again
        end = self._clock.monotonic() + _LOOK_SECONDS
        while self._listed:
            some, self._listed = self._listed[:MOST_LOOKED_AT], self._listed[MOST_LOOKED_AT:]
            found = self._port.forbidden(policy, facts, dict(some))
            self._revoked += (one for one in found if lockout.is_carried_out(policy, one[0]))
            if self._clock.monotonic() > end:
                break
        asked, later = self._revoked[:MOST_ASKED_FOR], self._revoked[MOST_ASKED_FOR:]
        try:
            known = self._port.find([answer_of(cut.session, cut.interface) for cut, _ in asked])
        except OSError:
            return
        left = (one for one, tracked in zip(asked, known, strict=True) if not self._is_ended(*one, tracked))
        self._revoked = [*later, *left]

    def _list(self) -> list[tuple[LiveSession, TcpSession]]:
        """Return the sessions at local listeners, logins first.

        Raises:
            OSError: the kernel can't tell.
        """
        sockets = {as_live_session(session): session for session in self._port.list_sessions()}
        return [(session, sockets[session]) for session in lockout.dearest(sockets, len(sockets))]

    def _is_ended(self, cut: CutSession, session: TcpSession, tracked: TrackedSession | None) -> bool:
        """End a session unless it is the kernel's to evaluate, and return whether nothing is left to do.

        Some are never ended. What is allowed of a translated one is what is on the wire, which the socket
        does not show; once conntrack has forgotten it, what the host sends first does not come from that end.
        For one that this host opened, other rules apply.
        """
        if tracked is not None and _is_left_to_kernel(tracked):
            return tracked.is_translated or tracked.opened is Direction.INGRESS
        ending = _ending(session, self._port.destroy)
        if ending != Ending.GONE.value:
            self._log.warning("session_cut", ending=ending, **as_keys(named(cut)))
        return True


def _tracked(cuts: Sequence[tuple[CutSession, TcpSession]], find: FindAll) -> Sequence[TrackedSession | None]:
    """Return conntrack's entries of sessions, looked up by their answers; nothing if it can't be asked."""
    try:
        return find([answer_of(cut.session, cut.interface) for cut, _ in cuts])
    except OSError:
        return [None] * len(cuts)


def _is_left_to_kernel(tracked: TrackedSession) -> bool:
    """Return whether conntrack knows a session as opened inwards, or has seen this host open it.

    Args:
        tracked: found by an answer, so that those opened inwards are outward ones.
    """
    return tracked.opened is Direction.EGRESS or tracked.is_opening_seen


def _ending(session: TcpSession, destroy: Callable[[TcpSession], Ending]) -> str:
    """End a session and return the result, in a word, or why it could not be ended."""
    try:
        return destroy(session).value
    except (OSError, NotPermittedError) as error:
        return str(error)
