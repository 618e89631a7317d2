"""Deal, when rules are enforced for the first time, with sessions that were open before (§6.3, §7.4).

What conntrack followed is judged again by the kernel. What it did not follow, it takes for a session that
whoever sends the next packet opens; so the sessions at local listeners that the policy forbids are ended
here, and each is named first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sgagent.agent.sessions.cuts import as_keys, named
from sgagent.agent.sessions.opensessions import as_live_session
from sgagent.agent.step import Step
from sgagent.agent.telling.steplog import EventLog
from sgagent.core.errors import NotPermittedError
from sgagent.core.lockout import sessions_cut
from sgagent.core.model import Mode
from sgagent.dataplane.sockets import Ending, TcpSession


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
