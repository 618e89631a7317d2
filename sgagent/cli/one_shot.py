"""Applying a policy once, without a daemon: ``sgagent compile`` without ``--dry-run``."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing

from sgagent.agent.sessions import Foresight, as_live_session, end_forbidden_sessions, open_sessions
from sgagent.agent.step import Step, StepEnd
from sgagent.agent.step_log import EventLog
from sgagent.compiler.enforce import enforce
from sgagent.compiler.marks import MarkLayout
from sgagent.core.binding import HostFacts
from sgagent.core.errors import KernelRefusedError, UsageError
from sgagent.core.lockout import LiveSession, NamedCut, SessionKind, named, sessions_newly_cut
from sgagent.core.model import Sessions
from sgagent.core.policy import Endpoint, ResolvedPolicy
from sgagent.dataplane.dataplane import LibnftablesDataplane
from sgagent.dataplane.sockets import TcpSession, destroy, list_sockets, sessions_at_listeners
from sgagent.host.links import NetlinkHost
from sgagent.host.processes import sockets_of_logins
from sgagent.settings import Settings


def refuse_to_cut_own_session(policy: ResolvedPolicy, facts: HostFacts, ways_out: str = "say --yes") -> None:
    """Refuse a policy that would cut the session in which this command runs.

    Sessions are found through the environment variables that an SSH server sets, and through the sockets of
    the login servers among the parents of this process. A shell in ``tmux`` or ``screen`` has the variables
    of the session that opened it.

    Args:
        policy: the policy to enforce.
        facts: the links.
        ways_out: options that override the refusal, for the message.

    Raises:
        UsageError: the policy would cut it; names the session, its interface and the deciding rule.
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
        callers: inodes of the sockets of the login servers among the command's parents.
        environment: of the command.
    """
    by_socket = (as_live_session(s, SessionKind.MANAGEMENT) for s in live if s.inode in callers)
    by_environment = (*_by_connection(environment), *_by_client(environment, live))
    return tuple(dict.fromkeys((*by_socket, *by_environment)))


def _by_connection(environment: Mapping[str, str]) -> Iterator[LiveSession]:
    """Yield the session that ``SSH_CONNECTION`` names with both ends."""
    match environment.get("SSH_CONNECTION", "").split():
        case [peer, peer_port, local, local_port] if peer_port.isdecimal() and local_port.isdecimal():
            try:
                far, near = Endpoint.at(peer, int(peer_port)), Endpoint.at(local, int(local_port))
            except ValueError:
                return  # another program has set the variable
            yield LiveSession(
                family=near.address.family,
                local_address=near.address.first,
                local_port=near.port,
                peer_address=far.address.first,
                peer_port=far.port,
                kind=SessionKind.MANAGEMENT,
            )


def _by_client(environment: Mapping[str, str], live: Collection[TcpSession]) -> Iterator[LiveSession]:
    """Yield the sessions that match ``SSH_CLIENT``, which names the far end and the local port."""
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


_TRIES = 20
"""How often a change is planned anew before what the kernel says of it is taken for the last word."""

_REFUSALS = 3
"""Refusals of the kernel over the same table after which they are final."""


def apply_once(policy: ResolvedPolicy, settings: Settings, options: argparse.Namespace) -> None:
    """Enforce once, judging live sessions by the new policy, and say what was done."""
    with closing(LibnftablesDataplane(owned=False)) as dataplane:
        dataplane.refuse_another_owner()
        facts = NetlinkHost().facts()
        if not options.yes:
            refuse_to_cut_own_session(policy, facts)
        is_first = dataplane.observe().ruleset is None
        is_rejudged = settings.enforcement.sessions is Sessions.REJUDGE
        if is_rejudged and not is_first:
            Foresight(_LateLog(), open_sessions).look(None, policy, facts)
        operations = _bring(policy, settings, dataplane)
    if is_rejudged and is_first:
        step = Step(outcome=StepEnd.APPLIED, policy=policy, facts=facts)
        end_forbidden_sessions(step, _LateLog(), sessions_at_listeners, destroy)
    names = [interface.name for interface in policy.interfaces]
    if options.output == "json":
        outcome = "applied" if operations else "unchanged"
        print(json.dumps({"outcome": outcome, "interfaces": names, "operations": operations}))
    else:
        print(_summary(names, operations))


def _bring(policy: ResolvedPolicy, settings: Settings, dataplane: LibnftablesDataplane) -> int:
    """Bring the kernel to the policy; return how many operations that took.

    Where others change the table meanwhile, like another of these commands, it is looked at again and planned
    for anew: the last one to look leaves a table that is wholly its own.
    """
    layout, operations = MarkLayout(settings.enforcement.mark_mask), 0
    unchanged = 0
    for is_last in (*(False,) * _TRIES, True):
        observed = dataplane.observe()
        step = enforce(
            policy,
            observed.ruleset,
            observed.foreign,
            layout,
            sessions=settings.enforcement.sessions,
            flow_logging=settings.flow_log.logging_without_agent,
        )
        if step.plan and step.clearance:
            dataplane.clear_marks(step.clearance.mask, step.clearance.tests)
        if not step.plan:
            break
        try:
            dataplane.apply(step.plan)
            dataplane.remove(step.plan)
        except KernelRefusedError:
            # Another command may have removed what the fill made, which leaves the table as it was.
            unchanged += dataplane.observe() == observed
            if is_last or unchanged == _REFUSALS:
                raise
            continue
        operations += len(step.plan.operations)
        if not step.is_interim and dataplane.is_known:
            break
    return operations


def _summary(names: list[str], operations: int) -> str:
    interfaces = ", ".join(names) or "no interface"
    if not operations:
        return f"unchanged: {interfaces}"
    return f"applied: {interfaces} ({operations} operation{'s' * (operations != 1)})"


class _LateLog:
    """A log that is opened when there is something to say: most often there is not, and it takes a moment."""

    def info(self, event: str, **keys: object) -> object:
        """Log a normal event."""
        return _opened().info(event, **keys)

    def warning(self, event: str, **keys: object) -> object:
        """Log an event that needs attention."""
        return _opened().warning(event, **keys)

    def error(self, event: str, **keys: object) -> object:
        """Log an error."""
        return _opened().error(event, **keys)


def _opened() -> EventLog:
    import structlog  # noqa: PLC0415 - see above

    from sgagent.agent.log import configure_log  # noqa: PLC0415 - see above

    configure_log()
    log: EventLog = structlog.get_logger()
    return log
