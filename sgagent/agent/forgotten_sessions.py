"""Sessions at listeners that conntrack forgets, as by ``conntrack -F``, and that are restored there.

Whoever sends first then opens the session anew. Where this host may not open it, what the server says is
dropped until the client says something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sgagent.agent.sessions import FindAll, answer_of, as_live_session
from sgagent.agent.step import EventLog, Step
from sgagent.core import lockout
from sgagent.core.binding import HostFacts
from sgagent.core.model import Direction
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.conntrack import TrackedSession
from sgagent.dataplane.live_sessions import TcpSession
from sgagent.ports import Clock

MOST_LOOKED_UP = 500
"""Sessions in one look."""

REST = 20
"""How many times as long as it took to go through all sessions the next time waits."""

LONGEST_REST_SECONDS = 30.0
"""That it waits at most, also on a host that is so busy that a look takes seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenPort:
    """How the agent lists sessions at local listeners, and restores their entries."""

    list_sessions: Callable[[], Iterable[TcpSession]]
    find: FindAll
    link_towards: Callable[[TcpSession], int | None]
    restore: Callable[[TcpSession, TrackedSession], bool]
    """Restores a session as conntrack knew it, and returns whether it had forgotten it; may raise OSError."""


class ForgottenSessions:
    """Remember which sessions conntrack knows as opened inwards, and restore those that it forgets.

    Of a session that this host translates, the socket does not show what is on the wire, so it is left; so is
    one that conntrack forgets before it was looked up.
    """

    is_busy = False
    """The far end repeats its message, or waits."""

    def __init__(self, log: EventLog, clock: Clock, port: ForgottenPort) -> None:
        """Take the log, the clock, and the port to conntrack's sessions."""
        self._log = log
        self._clock = clock
        self._port = port
        self._step: Step | None = None
        self._is_needed = False
        self._left: list[TcpSession] = []
        """Those that are still to be looked up, of the ones listed last."""

        self._known: dict[bytes, TrackedSession] = {}
        """Conntrack's entry of a session, by the identity of its socket."""

        self._due = self._spent = 0.0
        """When to list them again, by the monotonic clock, and how many seconds this time has taken."""

    def follow(self, step: Step) -> None:
        """Take note of a step; there is nothing to do where this host may open whatever it likes."""
        before, self._step = self._step, step
        if before is None or before.policy is not step.policy:
            self._is_needed = step.policy is not None and lockout.may_shut_in(step.policy)
            self._left = []

    def poll(self) -> None:
        """Look some sessions up, and restore those that conntrack has forgotten."""
        began = self._clock.monotonic()
        if not self._is_needed or self._step is None or self._step.policy is None:
            return
        if not self._left and began < self._due:
            return
        try:
            if not self._left:
                self._left, self._spent = self._list(self._step.policy, self._step.facts), 0.0
            some, self._left = self._left[:MOST_LOOKED_UP], self._left[MOST_LOOKED_UP:]
            self._restore_of(some)
        except OSError:
            self._left = []  # the next look tries again
        self._spent += self._clock.monotonic() - began
        self._due = self._clock.monotonic() + min(REST * self._spent, LONGEST_REST_SECONDS)

    def _list(self, policy: ResolvedPolicy, facts: HostFacts) -> list[TcpSession]:
        """Return the sessions at listeners that only the far end may open.

        Raises:
            OSError: the kernel can't tell.
        """
        sockets = {as_live_session(session): session for session in self._port.list_sessions()}
        numbers = {link.name: link.index for link in facts.links}
        found = [
            sockets[session]
            for session, interface in lockout.sessions_shut_in(policy, facts, sockets)
            if self._port.link_towards(sockets[session]) in {None, numbers.get(interface)}
        ]
        there = {session.identity for session in found}
        self._known = {identity: known for identity, known in self._known.items() if identity in there}
        return found

    def _restore_of(self, sessions: Sequence[TcpSession]) -> None:
        """Restore those of some sessions that are forgotten.

        Raises:
            OSError: the kernel can't tell, or refused.
        """
        found = self._port.find([answer_of(as_live_session(session)) for session in sessions])
        restored = 0
        for session, tracked in zip(sessions, found, strict=True):
            known = self._known.get(session.identity)
            if tracked is not None and tracked.opened is Direction.EGRESS and not tracked.is_translated:
                self._known[session.identity] = tracked  # by an answer, it is found the other way round
            elif tracked is None and known is not None:
                restored += self._port.restore(session, known)
        if restored:
            self._log.info("sessions_restored", sessions=restored)
