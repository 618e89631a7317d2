"""Preview of session cuts: log the open sessions that a policy will cut, before it is applied (§7.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sgagent.agent.open_sessions import ListSessions, as_live_session
from sgagent.agent.session_cuts import NamedCut, as_keys, named
from sgagent.agent.step import Step
from sgagent.agent.step_log import EventLog
from sgagent.core.binding import HostFacts
from sgagent.core.errors import NotPermittedError
from sgagent.core.lockout import LiveSession, dearest, sessions_cut, sessions_newly_cut
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.sockets import Ending, TcpSession

MOST_LOOKED_AT = 100
"""Sessions that are judged before an apply; each is held against all rules of its port, maybe very many."""

MOST_NAMED = 20
"""In the log, one by one; of the others their number."""


class Foresight:
    """Look at the open sessions before each apply that may cut some."""

    def __init__(self, log: EventLog, list_sessions: ListSessions) -> None:
        """Take the log, and what lists sessions."""
        self._log = log
        self._list_sessions = list_sessions
        self._logged: frozenset[NamedCut] = frozenset()
        self._fault: str | None = None

    def look(self, old: ResolvedPolicy | None, new: ResolvedPolicy, facts: HostFacts) -> tuple[NamedCut, ...]:
        """Log and return the sessions that the old policy allows and the new one does not.

        The policy is applied in any case. Of very many sessions, some at busy ports are not checked. Cuts
        that were logged for an apply that the kernel refused are not logged again.

        Args:
            old: the policy in force; None if it is unknown.
            new: the policy to apply.
            facts: the links.
        """
        sessions = dearest(self._listed(), MOST_LOOKED_AT)
        cut = tuple(map(named, sessions_newly_cut(old, new, facts, sessions)))
        unsaid = [one for one in cut if one not in self._logged]
        for one in unsaid[:MOST_NAMED]:
            self._log.warning("session_cut_foreseen", **as_keys(one))
        if len(unsaid) > MOST_NAMED:
            self._log.warning("more_cuts_foreseen", sessions=len(unsaid))
        self._logged = frozenset(cut)
        return cut

    def _listed(self) -> tuple[LiveSession, ...]:
        """Return the open sessions; none where the kernel can't tell, which is logged once."""
        fault: str | None = None
        sessions: tuple[LiveSession, ...] = ()
        try:
            sessions = tuple(self._list_sessions())
        except OSError as error:
            fault = str(error)
        if fault and fault != self._fault:
            self._log.warning("sessions_not_listed", reason=fault)
        self._fault = fault
        return sessions


def end_forbidden_sessions(
    step: Step,
    log: EventLog,
    list_sessions: Callable[[], Iterable[TcpSession]],
    destroy: Callable[[TcpSession], Ending],
) -> None:
    """Name the open TCP sessions that the policy forbids, and end them.

    Args:
        step: the step that made the table.
        log: where they are named.
        list_sessions: lists the sessions at local listeners.
        destroy: ends one.
    """
    if step.policy is None:
        return
    try:
        sockets = {as_live_session(session): session for session in list_sessions()}
    except OSError as error:
        log.warning("sessions_not_listed", reason=str(error))
        return
    for cut in sessions_cut(step.policy, step.facts, sockets):
        interface = step.policy.interface(cut.interface) or step.policy.unbound
        if interface is None or interface.mode is Mode.OBSERVE:
            log.warning("session_would_be_cut", **as_keys(named(cut)))
            continue
        ending = _ending(sockets[cut.session], destroy)
        log.warning("session_cut", ending=ending, **as_keys(named(cut)))


def _ending(session: TcpSession, destroy: Callable[[TcpSession], Ending]) -> str:
    """End a session and return what came of it, in a word, or why it could not be ended."""
    try:
        return destroy(session).value
    except (OSError, NotPermittedError) as error:
        return str(error)
