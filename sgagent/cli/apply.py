"""``sgagent apply``: enforce documents through the running agent, permanently or on trial.

Also how ``sgagent compile`` without ``--dry-run`` applies a policy once, without a daemon, and how commands
refuse a policy that would cut the session of who runs them.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from sgagent.agent.clock import time_left
from sgagent.agent.control import requests
from sgagent.agent.control.protocol import encode_fields
from sgagent.agent.sessions import (
    CutPreview,
    SessionPort,
    as_live_session,
    end_forbidden_sessions,
    on_the_wire,
    open_sessions,
)
from sgagent.agent.step import EventLog, Step, StepEnd
from sgagent.cli import inputs
from sgagent.cli.agent_client import ask, await_proof, print_enforced
from sgagent.cli.main import option_adder
from sgagent.cli.output import warn
from sgagent.compiler.enforce import enforce
from sgagent.core.binding import HostFacts
from sgagent.core.errors import DocumentError, KernelRefusedError, Origin, Problem, UsageError, printable
from sgagent.core.lockout import LiveSession, NamedCut, SessionKind, named, sessions_newly_cut
from sgagent.core.policy import Endpoint, ResolvedPolicy
from sgagent.dataplane.conntrack import find_sessions
from sgagent.dataplane.dataplane import LibnftablesDataplane
from sgagent.dataplane.live_sessions import (
    TcpSession,
    destroy,
    list_sockets,
)
from sgagent.documents import DocumentFile, parse_documents
from sgagent.host.links import NetlinkHost
from sgagent.host.processes import sockets_of_logins
from sgagent.nft.marks import MarkLayout, Sessions
from sgagent.ports import Delivery
from sgagent.settings import Settings
from sgagent.verify import Outcome


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


_TRIES = 20
"""How often a change is planned anew before what the kernel says of it is taken for the last word."""

_REFUSALS = 3
"""Refusals of the kernel over the same table after which they are final."""


def apply_once(policy: ResolvedPolicy, settings: Settings, options: argparse.Namespace) -> int:
    """Enforce once, judging live sessions by the new policy; return how many operations that took."""
    with closing(LibnftablesDataplane(owned=False, is_guarded=True)) as dataplane:
        dataplane.refuse_another_owner()
        facts = NetlinkHost().facts()
        if not options.yes:
            refuse_to_cut_own_session(policy, facts)
        is_first = dataplane.observe().ruleset is None
        is_rejudged = settings.enforcement.sessions is Sessions.REJUDGE
        if is_rejudged and not is_first:
            CutPreview(_LateLog(), open_sessions, find_sessions).look(None, policy, facts)
        operations = _bring(policy, settings, dataplane)
    if is_rejudged and is_first:
        step = Step(outcome=StepEnd.APPLIED, policy=policy, facts=facts)
        port = SessionPort(find=find_sessions, destroy=destroy)
        end_forbidden_sessions(step, _LateLog(), port)
    return operations


def _bring(policy: ResolvedPolicy, settings: Settings, dataplane: LibnftablesDataplane) -> int:
    """Bring the kernel to the policy; return how many operations that took.

    Where others change the table meanwhile, like another of these commands, it is looked at again and planned
    for anew: the last one to look leaves a table that is wholly its own.
    """
    layout = MarkLayout(settings.enforcement.mark_mask)
    operations = unchanged = 0
    for tries in range(_TRIES + 1):
        observed = dataplane.observe()
        step = enforce(
            policy,
            observed.ruleset,
            observed.foreign,
            layout,
            sessions=settings.enforcement.sessions,
            flow_logging=settings.flow_log.logging_without_agent,
        )
        if not step.plan:
            break
        if step.clearance:
            dataplane.clear_marks(step.clearance.mask, step.clearance.tests)
        try:
            dataplane.apply(step.plan)
            dataplane.remove(step.plan)
        except KernelRefusedError:
            # Another command may have removed what the fill made, which leaves the table as it was.
            unchanged += dataplane.observe() == observed
            if tries == _TRIES or unchanged == _REFUSALS:
                raise
            continue
        operations += len(step.plan.operations)
        if not step.is_interim and dataplane.is_known:
            break
    return operations


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    inputs.add_definitions_arguments(parser, is_required=True)
    add(
        "--confirm-within TIME",
        "go back after this time, like 60s, 5m or 1h, unless 'sgagent confirm' runs before",
    )
    add("--yes", "apply permanently even if that cuts your own session")
    add("--verified", "wait until the kernel's table is proved; exit with 1 if it is refuted, 3 if unknown")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Send the documents to the agent; they are in force, or nothing was changed."""
    settings = inputs.load_settings(options)
    seconds = None if options.confirm_within is None else parse_duration(options.confirm_within)
    if options.verified:
        _require_proofs(settings)
    # An absolute path is what messages of the agent about a document should name.
    files = inputs.read_files(settings, inputs.required_definitions(options).absolute())
    documents = tuple(map(_sent, files))
    if seconds is not None or not options.yes:
        status = ask(settings, requests.StatusQuestion(), requests.StatusAnswer)
        policy = _policy(files, settings, status)
        if policy is not None:  # else the documents have errors: the agent refuses them, and says why
            if seconds is None:
                ways_out = "use --confirm-within 60s for a trial, or --yes"
                refuse_to_cut_own_session(policy, NetlinkHost().facts(), ways_out)
            elif status.pending is None:  # else the agent refuses a second trial
                _announce_trial(options, seconds, policy, status.snapshot_version)
    order = requests.ApplyOrder(documents=documents, confirm_within=seconds)
    answer = ask(settings, order, requests.EnforcedAnswer)
    if options.verified:
        return _print_proved(settings, answer, as_json=options.json)
    print_enforced(answer, as_json=options.json)
    return 0


def _require_proofs(settings: Settings) -> None:
    """Raise UsageError if the agent proves nothing."""
    if not ask(settings, requests.StatusQuestion(), requests.StatusAnswer).is_verifying:
        raise UsageError("--verified: the agent proves no change, as it runs with verify.after_apply = false")


def _print_proved(settings: Settings, answer: requests.EnforcedAnswer, *, as_json: bool) -> int:
    """Print what was done, and what its proof came to; return the exit code of ``sgagent verify``."""
    from sgagent.cli.verify import EXIT_CODES  # noqa: PLC0415 - it needs what only proofs do

    if not as_json:
        print_enforced(answer, as_json=False)
        sys.stdout.flush()
    status = await_proof(settings, answer.version)
    proof = status.verified if status else None
    if as_json:
        print_enforced(answer, as_json=True, more={"verified": proof and encode_fields(proof)})
    elif status is None or proof is None:
        warn("the table was not proved in time, or is no longer in force: 'sgagent status' shows what is")
    else:
        print("\n".join(map(printable, status.verified_in_words)))
    return EXIT_CODES[Outcome(proof.outcome) if proof else Outcome.UNKNOWN]


def parse_duration(text: str) -> float:
    """Return the seconds that a text like ``60s``, ``5m`` or ``1h`` means.

    Raises:
        UsageError: it means none, or too many.
    """
    seconds = float(inputs.parse_short_time(text) or 0)
    if not requests.SHORTEST_TRIAL_SECONDS <= seconds <= requests.LONGEST_TRIAL_SECONDS:
        raise UsageError(f"--confirm-within {text}: expected a time like 60s, 5m or 1h, from 1s to 24h")
    return seconds


def _announce_trial(
    options: argparse.Namespace, seconds: float, policy: ResolvedPolicy, version: str | None
) -> None:
    """Print what a trial will do and how to keep it, before it may cut the terminal that this is read in."""
    stream = sys.stderr if options.json else sys.stdout
    cuts = own_sessions_cut(policy, NetlinkHost().facts())
    lines = trial_lines(options.definitions, seconds, version or "nothing, as before", cuts)
    print("\n".join(map(printable, lines)), file=stream, flush=True)
    if stream.isatty():
        threading.Event().wait(_TERMINAL_SECONDS)


_TERMINAL_SECONDS = 0.2
"""Until an SSH server has read the terminal and sent what it read."""


def trial_lines(path: Path, seconds: float, before: str, cuts: Iterable[NamedCut]) -> Iterator[str]:
    """Yield what a person has to know before a trial.

    Args:
        path: of the documents.
        seconds: how long the trial lasts.
        before: what is in force when it has ended.
        cuts: the sessions in which the command runs that the documents forbid.
    """
    yield f"trying {path} for {time_left(seconds)}, then going back to {before}"
    for cut in cuts:
        yield f"this cuts the session that you are in until then: {cut}"
    yield "to keep it, run 'sgagent confirm' in that time, here or in a new session;"
    yield "if this session stops answering, wait: the agent goes back by itself"


def _policy(
    files: tuple[DocumentFile, ...], settings: Settings, status: requests.StatusAnswer
) -> ResolvedPolicy | None:
    """Return what documents come to on this host, in the modes of the agent; None if they have errors."""
    try:
        snapshot, _ = parse_documents(files, settings.limits)
    except DocumentError:
        return None
    delivery, dns = Delivery(snapshot=snapshot), inputs.dns_answers(settings)
    resolution = inputs.resolve_for_host(settings, delivery, (), dns=dns)
    if resolution.errors:
        return None
    # A mode that was ordered at run time is not in the configuration.
    modes = {link.name: link.mode for link in status.interfaces}
    return resolution.policy.with_judges(lambda one: replace(one, mode=modes.get(one.name) or one.mode))


def _sent(file: DocumentFile) -> requests.Document:
    """Return a document for the agent.

    Raises:
        DocumentError: it is no text.
    """
    try:
        return requests.Document(name=file.name, content=file.content.decode())
    except UnicodeDecodeError as error:
        line = file.content.count(b"\n", 0, error.start) + 1
        origin = Origin(file=file.name, line=line)
        problem = Problem.error(origin, "not_utf8", None, "not UTF-8", "save the file as UTF-8")
        raise DocumentError([problem]) from error
