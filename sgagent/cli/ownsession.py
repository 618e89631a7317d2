"""Refuse to cut the session that a command is typed in, unless told so (§7.4)."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping

from sgagent.agent.sessions.cuts import NamedCut, named
from sgagent.agent.sessions.opensessions import as_live_session
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import UsageError
from sgagent.core.host import HostFacts
from sgagent.core.lockout import LiveSession, SessionKind, sessions_newly_cut
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.sockets import TcpSession, list_sockets
from sgagent.host.processes import sockets_of_logins


def refuse_to_cut_own_session(policy: ResolvedPolicy, facts: HostFacts, ways_out: str = "say --yes") -> None:
    """Look whether the session in which this command runs would live under a policy.

    Sessions are found by what an SSH server tells its shell, and by the sockets of the login servers that
    called this one. A shell in ``tmux`` or ``screen`` is told of the session in which it was opened.

    Args:
        policy: what is to be enforced.
        facts: the links.
        ways_out: options with which the command goes on all the same, for the message.

    Raises:
        UsageError: it would not; names the session, its interface and what forbids it.
    """
    cut = own_sessions_cut(policy, facts)
    if cut:
        raise UsageError(
            "\n".join(
                (
                    *(f"this would cut the session that you are in, {one}" for one in cut),
                    f"nothing was changed: add an accept rule or a fail-safe entry for it, or {ways_out}",
                )
            )
        )


def own_sessions_cut(policy: ResolvedPolicy, facts: HostFacts) -> tuple[NamedCut, ...]:
    """Return the sessions in which this command runs that the policy would cut."""
    try:
        live = list_sockets().at_listeners
    except OSError:
        live = ()  # a kernel that can't tell: what the SSH server said has to do
    own = own_sessions(live, sockets_of_logins(), os.environ)
    return tuple(map(named, sessions_newly_cut(None, policy, facts, own)))


def own_sessions(
    live: Collection[TcpSession], callers: Collection[int], environment: Mapping[str, str]
) -> tuple[LiveSession, ...]:
    """Return the sessions in which a command runs, each once.

    Args:
        live: the sessions at this host's listeners.
        callers: inodes of the sockets of the login servers that called it.
        environment: of the command.
    """
    held = (as_live_session(s, SessionKind.MANAGEMENT) for s in live if s.inode in callers)
    told = (*_by_connection(environment), *_by_client(environment, live))
    return tuple(dict.fromkeys((*held, *told)))


def _by_connection(environment: Mapping[str, str]) -> Iterator[LiveSession]:
    """Yield the session of which an SSH server has told both ends."""
    match environment.get("SSH_CONNECTION", "").split():
        case [peer, peer_port, local, local_port] if peer_port.isdecimal() and local_port.isdecimal():
            try:
                far, near = Endpoint.at(peer, int(peer_port)), Endpoint.at(local, int(local_port))
            except ValueError:
                return  # it is somebody else's variable
            yield LiveSession(
                family=near.address.family,
                local_address=near.address.first,
                local_port=near.port,
                peer_address=far.address.first,
                peer_port=far.port,
                kind=SessionKind.MANAGEMENT,
            )


def _by_client(environment: Mapping[str, str], live: Collection[TcpSession]) -> Iterator[LiveSession]:
    """Yield the session of which a server has told the far end, and the near end's port."""
    match environment.get("SSH_CLIENT", "").split():
        case [peer, peer_port, local_port] if peer_port.isdecimal() and local_port.isdecimal():
            try:
                far = Endpoint.at(peer, int(peer_port))
            except ValueError:
                return
            for session in live:
                ends = (session.family, session.peer_address, session.peer_port, session.local_port)
                if ends == (far.address.family, far.address.first, far.port, int(local_port)):
                    yield as_live_session(session, SessionKind.MANAGEMENT)
