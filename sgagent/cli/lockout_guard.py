"""The guard of commands that change the policy in force: they refuse to lock their user out (§7.4).

``apply`` and ``mode`` can also try a change for some time, and say before what it will cost.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from sgagent.agent.control import requests
from sgagent.agent.posture import BOUND_STATES
from sgagent.agent.sessions import as_live_session, on_the_wire
from sgagent.cli import inputs
from sgagent.cli.main import option_adder
from sgagent.core.binding import HostFacts
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import DocumentError, UsageError, printable
from sgagent.core.lockout import LiveSession, NamedCut, SessionKind, named, sessions_newly_cut
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.dataplane.conntrack import find_sessions
from sgagent.dataplane.live_sessions import TcpSession, list_sockets
from sgagent.documents import DocumentFile, parse_documents
from sgagent.host.links import NetlinkHost
from sgagent.host.processes import sockets_of_logins
from sgagent.ports import Delivery
from sgagent.settings import Settings

WAYS_OUT = "use --confirm-within 60s for a trial, or --yes"


def add_guard_arguments(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the options of commands that may lock their user out; ``text`` explains ``--yes``."""
    add = option_adder(parser)
    add(
        "--confirm-within TIME",
        "go back after this time, like 60s, 5m or 1h, unless 'sgagent confirm' runs before",
    )
    add("--yes", text)


def trial_seconds(options: argparse.Namespace) -> float | None:
    """Return how long a trial is to last; None is no trial.

    Raises:
        UsageError: the option makes no sense.
    """
    return None if options.confirm_within is None else parse_duration(options.confirm_within)


def parse_duration(text: str) -> float:
    """Return the seconds that a text like ``60s``, ``5m`` or ``1h`` means.

    Raises:
        UsageError: it means none, or too many.
    """
    seconds = float(inputs.parse_short_time(text) or 0)
    if not requests.SHORTEST_TRIAL_SECONDS <= seconds <= requests.LONGEST_TRIAL_SECONDS:
        raise UsageError(f"--confirm-within {text}: expected a time like 60s, 5m or 1h, from 1s to 24h")
    return seconds


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
        lines = [f"this would cut the session that you are in, {one}" for one in cut]
        advice = f"nothing was changed: add an accept rule or a fail-safe entry for it, or {ways_out}"
        raise UsageError("\n".join((*lines, advice)))


def own_sessions_cut(policy: ResolvedPolicy, facts: HostFacts) -> tuple[NamedCut, ...]:
    """Return the sessions in which this command runs that the policy would cut."""
    try:
        live = list_sockets().at_listeners
    except OSError:
        live = ()  # a kernel that can't tell: what the SSH server said has to do
    own = on_the_wire(own_sessions(live, sockets_of_logins(), os.environ), find_sessions)
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
    return tuple(dict.fromkeys((*by_socket, *_by_environment(environment, live))))


def _by_environment(environment: Mapping[str, str], live: Collection[TcpSession]) -> Iterator[LiveSession]:
    """Yield the session that ``SSH_CONNECTION`` names, and those that match ``SSH_CLIENT``.

    The first has both ends, the second the far end and the local port. Other programs may have set them.
    """
    with suppress(ValueError):
        peer, peer_port, local, local_port = environment.get("SSH_CONNECTION", "").split()
        far, near = Endpoint.at(peer, int(peer_port)), Endpoint.at(local, int(local_port))
        yield LiveSession(
            family=near.address.family,
            local_address=near.address.first,
            local_port=near.port,
            peer_address=far.address.first,
            peer_port=far.port,
            kind=SessionKind.MANAGEMENT,
        )
    with suppress(ValueError):
        peer, peer_port, local_port = environment.get("SSH_CLIENT", "").split()
        far = Endpoint.at(peer, int(peer_port))
        ends = (far.address.family, far.address.first, far.port, int(local_port))
        for session in live:
            if ends == (session.family, session.peer_address, session.peer_port, session.local_port):
                yield as_live_session(session, SessionKind.MANAGEMENT)


def links_unbound(policy: ResolvedPolicy, status: requests.StatusAnswer) -> tuple[str, ...]:
    """Return the links that the agent has bound and that nothing would filter under a policy."""
    names = (one.name for one in status.interfaces if one.state in BOUND_STATES)
    return tuple(name for name in names if policy.judge(name) is None)


def refuse_to_lock_out(policy: ResolvedPolicy, status: requests.StatusAnswer, ways_out: str) -> None:
    """Refuse a policy that would cut this command's session, or that leaves open links that are bound now.

    Args:
        policy: the policy to enforce.
        status: of the agent.
        ways_out: options that override the refusal, for the message.

    Raises:
        UsageError: it would.
    """
    if names := links_unbound(policy, status):
        raise UsageError(
            f"this would open {', '.join(sorted(names))}, which these documents do not bind any more"
            " (has a MAC or an address changed?)\n"
            f"nothing was changed: correct network_interfaces, or {ways_out}"
        )
    refuse_to_cut_own_session(policy, NetlinkHost().facts(), ways_out)


def announce_trial(
    options: argparse.Namespace,
    what: str,
    back: str,
    policy: ResolvedPolicy | None,
    notes: Iterable[str] = (),
) -> None:
    """Print a trial's effect and how to keep it, before it may cut the terminal that shows this.

    Args:
        options: of the command line.
        what: is on trial, and for how long, as ``trying groups.d for 60 seconds``.
        back: what happens at its end, as ``then going back to …``.
        policy: that is tried; None where none is in force yet.
        notes: more lines.
    """
    stream = sys.stderr if options.json else sys.stdout
    cuts = own_sessions_cut(policy, NetlinkHost().facts()) if policy else ()
    print("\n".join(map(printable, trial_lines(what, back, cuts, notes))), file=stream, flush=True)
    if stream.isatty():
        threading.Event().wait(_TERMINAL_SECONDS)


_TERMINAL_SECONDS = 0.2
"""Until an SSH server has read the terminal and sent what it read."""


def trial_lines(what: str, back: str, cuts: Iterable[NamedCut], notes: Iterable[str] = ()) -> Iterator[str]:
    """Yield the lines for a person before a trial.

    Args:
        what: is on trial, and for how long.
        back: what happens at its end.
        cuts: the sessions in which the command runs that the trial cuts.
        notes: more lines.
    """
    yield f"{what}, {back}"
    yield from notes
    for cut in cuts:
        yield f"this cuts the session that you are in until then: {cut}"
    yield "to keep it, run 'sgagent confirm' in that time, here or in a new session;"
    yield "if this session stops answering, wait: the agent goes back by itself"


ModeOf = Callable[[ResolvedInterface], Mode]
"""Returns the mode of an interface."""


def modes_now(status: requests.StatusAnswer) -> ModeOf:
    """Return the modes of the agent: one that was ordered at run time is not in the configuration."""
    modes = {link.name: link.mode for link in status.interfaces}
    return lambda judge: modes.get(judge.name) or judge.mode


def policy_in_modes(
    files: tuple[DocumentFile, ...], settings: Settings, mode_of: ModeOf
) -> ResolvedPolicy | None:
    """Return the policy of documents on this host, in some modes; None if they have errors."""
    try:
        snapshot, _ = parse_documents(files, settings.limits)
    except DocumentError:
        return None
    delivery, dns = Delivery(snapshot=snapshot), inputs.dns_answers(settings)
    resolution = inputs.resolve_for_host(settings, delivery, (), dns=dns)
    if resolution.errors:
        return None
    return resolution.policy.with_judges(lambda one: replace(one, mode=mode_of(one)))
