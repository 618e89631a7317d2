"""``sgagent apply``: enforce documents through the running agent, permanently or on trial."""

from __future__ import annotations

import argparse
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from sgagent.agent.control.requests import (
    LONGEST_TRIAL_SECONDS,
    SHORTEST_TRIAL_SECONDS,
    ApplyOrder,
    Document,
    EnforcedAnswer,
    StatusAnswer,
    StatusQuestion,
)
from sgagent.agent.time_text import time_left
from sgagent.cli.active_policy import print_enforced
from sgagent.cli.agent_client import ask, order
from sgagent.cli.inputs import (
    add_definitions_arguments,
    load_settings,
    required_definitions,
    resolve_for_host,
)
from sgagent.cli.one_shot import own_sessions_cut, refuse_to_cut_own_session
from sgagent.core.errors import (
    DocumentError,
    Origin,
    Problem,
    Severity,
    SourceUnavailableError,
    UsageError,
    printable,
)
from sgagent.core.lockout import NamedCut
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile, parse_documents
from sgagent.host.links import NetlinkHost
from sgagent.ports import Delivery
from sgagent.settings import Settings
from sgagent.sources.files.source import FileSource

_DURATION = re.compile(r"([0-9]+)(s|m|h|)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_definitions_arguments(parser, is_required=True)
    parser.add_argument(
        "--confirm-within",
        metavar="TIME",
        help="go back after this time, like 60s, 5m or 1h, unless 'sgagent confirm' comes",
    )
    parser.add_argument(
        "--yes", action="store_true", help="apply permanently even if that cuts your own session"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Send the documents to the agent; they are in force, or nothing was changed."""
    settings = load_settings(options)
    seconds = None if options.confirm_within is None else parse_duration(options.confirm_within)
    files = _read(required_definitions(options), settings)
    documents = tuple(map(_sent, files))
    if seconds is not None:
        _announce_trial(options, seconds, files, settings)
    elif not options.yes:
        _refuse_to_cut_own_session(files, settings)
    answer = order(settings, ApplyOrder(documents=documents, confirm_within=seconds), EnforcedAnswer)
    print_enforced(answer, as_json=options.json)
    return 0


def parse_duration(text: str) -> float:
    """Return the seconds that a text like ``60s``, ``5m`` or ``1h`` means.

    Raises:
        UsageError: it means none, or too many.
    """
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not SHORTEST_TRIAL_SECONDS <= seconds <= LONGEST_TRIAL_SECONDS:
        raise UsageError(f"--confirm-within {text}: expected a time like 60s, 5m or 1h, from 1s to 24h")
    return seconds


def _read(path: Path, settings: Settings) -> tuple[DocumentFile, ...]:
    """Return the documents, under the names that messages about them should have.

    Raises:
        UsageError: there is nothing, or it can't be read.
        DocumentError: they are no regular files, or too large.
    """
    try:
        return FileSource(Path.cwd() / path, settings.limits).read_documents()
    except SourceUnavailableError as error:
        raise UsageError(str(error)) from error


def _announce_trial(
    options: argparse.Namespace, seconds: float, files: tuple[DocumentFile, ...], settings: Settings
) -> None:
    """Print what a trial will do and how to keep it, before it may cut the terminal that this is read in.

    Raises:
        SourceUnavailableError: no agent answers.
    """
    status = ask(settings, StatusQuestion(), StatusAnswer)
    policy = _policy(files, settings, status)
    if policy is None or status.pending is not None:
        return  # the agent refuses the order, and says why
    stream = sys.stderr if options.json else sys.stdout
    cuts = own_sessions_cut(policy, NetlinkHost().facts())
    announcement = "\n".join(
        map(
            printable,
            trial_lines(options.definitions, seconds, status.snapshot_version or "nothing, as before", cuts),
        )
    )
    print(announcement, file=stream, flush=True)
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


def _refuse_to_cut_own_session(files: tuple[DocumentFile, ...], settings: Settings) -> None:
    """Look whether the session in which this command runs would live; errors are the agent's to tell.

    Raises:
        UsageError: it would not.
        SourceUnavailableError: no agent answers.
    """
    policy = _policy(files, settings, ask(settings, StatusQuestion(), StatusAnswer))
    if policy is not None:
        facts = NetlinkHost().facts()
        refuse_to_cut_own_session(policy, facts, "say --confirm-within 60s to try it, or --yes")


def _policy(
    files: tuple[DocumentFile, ...], settings: Settings, status: StatusAnswer
) -> ResolvedPolicy | None:
    """Return what documents come to on this host, in the modes of the agent; None if they have errors."""
    try:
        snapshot, _ = parse_documents(files, settings.limits)
    except DocumentError:
        return None
    resolution = resolve_for_host(settings, Delivery(snapshot=snapshot), ())
    if resolution.errors:
        return None
    modes = {link.name: link.mode for link in status.interfaces}
    as_it_runs = (
        replace(judge, mode=modes.get(judge.name) or judge.mode) for judge in resolution.policy.interfaces
    )  # an order given at run time is not in the configuration
    return replace(resolution.policy, interfaces=tuple(as_it_runs))


def _sent(file: DocumentFile) -> Document:
    """Return a document for the agent.

    Raises:
        DocumentError: it is no text.
    """
    try:
        return Document(name=file.name, content=file.content.decode())
    except UnicodeDecodeError as error:
        line = file.content.count(b"\n", 0, error.start) + 1
        problem = Problem(
            severity=Severity.ERROR,
            code="not_utf8",
            origin=Origin(file=file.name, line=line),
            message="not UTF-8",
            remedy="save the file as UTF-8",
        )
        raise DocumentError([problem]) from error
