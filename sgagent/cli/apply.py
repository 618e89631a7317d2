"""``sgagent apply``: enforce documents through the running agent, permanently or on trial.

Also how ``sgagent compile`` without ``--dry-run`` applies a policy once, without a daemon.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from sgagent.agent.clock import time_left
from sgagent.agent.control import requests
from sgagent.agent.sessions import (
    CutPreview,
    SessionPort,
    end_forbidden_sessions,
    open_sessions,
)
from sgagent.agent.step import EventLog, Step, StepEnd
from sgagent.cli import inputs
from sgagent.cli.agent_client import NoAgentError, ask, await_proof, files_of, print_enforced
from sgagent.cli.configuration import load_settings
from sgagent.cli.lockout_guard import (
    WAYS_OUT,
    add_guard_arguments,
    announce_trial,
    links_unbound,
    modes_now,
    policy_in_modes,
    refuse_to_cut_own_session,
    refuse_to_lock_out,
    trial_seconds,
)
from sgagent.cli.main import option_adder
from sgagent.cli.output import warn
from sgagent.compiler.enforce import enforce
from sgagent.core.errors import DocumentError, KernelRefusedError, Origin, Problem, UsageError, printable
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.conntrack import find_sessions
from sgagent.dataplane.dataplane import LibnftablesDataplane
from sgagent.dataplane.live_sessions import destroy
from sgagent.documents import DocumentFile
from sgagent.host.links import NetlinkHost
from sgagent.json_model import to_json
from sgagent.nft.marks import MarkLayout, Sessions
from sgagent.settings import Settings
from sgagent.verify import Outcome

_TRIES = 20
"""How often a change is planned anew before what the kernel says of it is taken for the last word."""

_REFUSALS = 3
"""Refusals of the kernel over the same table after which they are final."""


def apply_once(policy: ResolvedPolicy, settings: Settings, options: argparse.Namespace) -> int:
    """Enforce once, judging live sessions by the new policy; return how many operations that took."""
    with closing(LibnftablesDataplane(owned=False)) as dataplane:
        dataplane.refuse_another_owner()
        facts = NetlinkHost().facts()
        if not options.yes:
            refuse_to_cut_own_session(policy, facts)
        is_first = dataplane.observe().ruleset is None
        is_rejudged = settings.enforcement.sessions is Sessions.REJUDGE
        if is_rejudged and not is_first:
            CutPreview(_LateLog(), open_sessions, find_sessions).cuts(None, policy, facts)
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
    inputs.add_definitions_arguments(
        parser, instead=" (default: the change that waits, see 'sgagent status')"
    )
    add_guard_arguments(parser, "apply permanently even if that cuts your own session or unbinds a link")
    add("--verified", "wait until the kernel's table is proved; exit with 1 if it is refuted, 3 if unknown")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Send the documents to the agent; they are in force, or nothing was changed."""
    settings = load_settings(options)
    seconds = trial_seconds(options)
    if options.verified:
        _require_proofs(settings)
    if options.definitions is None:
        held, files = _held(settings)
        command, name = requests.ApplyCommand(documents=(), confirm_within=seconds, held=held), held
    else:
        # An absolute path is what messages of the agent about a document should name.
        files = inputs.read_files(settings, options.definitions.absolute())
        command = requests.ApplyCommand(documents=tuple(map(_sent, files)), confirm_within=seconds)
        name = str(options.definitions)
    if seconds is not None or not options.yes:
        _guard(options, files, settings, name)
    answer = ask(settings, command, requests.EnforcedAnswer)
    if options.verified:
        return _print_proved(settings, answer, as_json=options.json)
    print_enforced(answer, as_json=options.json)
    return 0


def _held(settings: Settings) -> tuple[str, tuple[DocumentFile, ...]]:
    """Return the version of the source that waits, as it would cut a login, and its documents.

    Raises:
        UsageError: there is none.
    """
    try:
        answer = ask(settings, requests.DocumentsQuery(held=True), requests.DocumentsAnswer)
    except NoAgentError as error:
        raise UsageError(f"PATH is missing: name a file or directory of documents ({error})") from error
    if answer.snapshot_version is None:
        raise UsageError("PATH is missing: name a file or directory of documents, as no change waits")
    return answer.snapshot_version, files_of(answer)


def _guard(
    options: argparse.Namespace, files: tuple[DocumentFile, ...], settings: Settings, name: str
) -> None:
    """Refuse a change that would lock out its user or open a link, or announce a trial.

    Raises:
        UsageError: it would, permanently.
    """
    status = ask(settings, requests.StatusQuery(), requests.StatusAnswer)
    policy = policy_in_modes(files, settings, modes_now(status))
    if policy is None:
        return  # the documents have errors: the agent refuses them, and says why
    seconds = trial_seconds(options)
    if seconds is None:
        refuse_to_lock_out(policy, status, WAYS_OUT)
    elif status.pending is None and status.pending_mode is None:  # else the agent refuses a second trial
        back = f"then going back to {status.snapshot_version or 'nothing, as before'}"
        notes = [
            f"{link} is open until then: no network interface is it" for link in links_unbound(policy, status)
        ]
        announce_trial(options, f"trying {name} for {time_left(seconds)}", back, policy, notes)


def _require_proofs(settings: Settings) -> None:
    """Raise UsageError if the agent proves nothing."""
    if not ask(settings, requests.StatusQuery(), requests.StatusAnswer).is_verifying:
        raise UsageError("--verified: the agent proves no change, as it runs with verify.after_apply = false")


def _print_proved(settings: Settings, answer: requests.EnforcedAnswer, *, as_json: bool) -> int:
    """Print the outcome, and the result of its proof; return the exit code of ``sgagent verify``."""
    from sgagent.cli.verify import EXIT_CODES  # noqa: PLC0415 - it needs what only proofs do

    if not as_json:
        print_enforced(answer, as_json=False)
        sys.stdout.flush()
    status = await_proof(settings, answer.version)
    proof = status.verified if status else None
    if as_json:
        print_enforced(answer, as_json=True, more={"verified": proof and to_json(proof)})
    elif status is None or proof is None:
        warn("the table was not proved in time, or is no longer in force: 'sgagent status' shows what is")
    else:
        print("\n".join(map(printable, status.verified_in_words)))
    return EXIT_CODES[Outcome(proof.outcome) if proof else Outcome.UNKNOWN]


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
