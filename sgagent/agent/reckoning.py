"""Deal, when rules are enforced for the first time, with sessions that were open before (§6.3, §7.4).

What conntrack followed is judged again by the kernel. What it did not follow, it takes for a session that
whoever sends the next packet opens; so the sessions at local listeners that the policy forbids are ended
here, and each is named first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from sgagent.agent.reconciler import Step
from sgagent.agent.steplog import EventLog
from sgagent.core.errors import NotPermittedError
from sgagent.core.lockout import CutSession, LiveSession, sessions_cut
from sgagent.core.model import Family, Mode
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
            log.warning("session_would_be_cut", **describe_cut(cut))
            continue
        ending = _ending(sockets[cut.session], destroy)
        log.warning("session_cut", ending=ending, **describe_cut(cut))


def _ending(session: TcpSession, destroy: Callable[[TcpSession], Ending]) -> str:
    """End a session and return what came of it, in a word, or why it could not be ended."""
    try:
        return destroy(session).value
    except (OSError, NotPermittedError) as error:
        return str(error)


def as_live_session(session: TcpSession) -> LiveSession:
    """Return what the core needs to know of a session."""
    return LiveSession(
        family=session.family,
        local_address=session.local_address,
        local_port=session.local_port,
        peer_address=session.peer_address,
        peer_port=session.peer_port,
    )


def describe_cut(cut: CutSession) -> dict[str, object]:
    """Return a session and why it is cut, as keys of a log line."""
    kind = ipaddress.IPv4Address if cut.session.family is Family.IPV4 else ipaddress.IPv6Address
    return {
        "interface": cut.interface,
        "peer": f"{kind(cut.session.peer_address)}",
        "peer_port": cut.session.peer_port,
        "local": f"{kind(cut.session.local_address)}",
        "local_port": cut.session.local_port,
        "decided_by": cut.decision.decided_by.value,
        "rule_id": cut.decision.rule.rule_id if cut.decision.rule else None,
    }
