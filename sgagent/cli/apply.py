"""``sgagent apply``: have the running agent enforce these documents, for good or until they are confirmed."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from sgagent.agent.orders import (
    LONGEST_TRIAL_SECONDS,
    SHORTEST_TRIAL_SECONDS,
    ApplyOrder,
    EnforcedAnswer,
    SentDocument,
)
from sgagent.cli.enforced import print_enforced
from sgagent.cli.inputs import load_settings
from sgagent.cli.liveagent import order
from sgagent.core.errors import DocumentError, Origin, Problem, Severity, SourceUnavailableError, UsageError
from sgagent.documents import DocumentFile
from sgagent.settings import Settings
from sgagent.sources.file import FileSource

_DURATION = re.compile(r"([0-9]+)(s|m|h|)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("path", metavar="PATH", type=Path, help="a file or directory of documents")
    parser.add_argument(
        "--confirm-within",
        metavar="TIME",
        help="go back after this time, like 60s, 5m or 1h, unless 'sgagent confirm' comes",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Send the documents to the agent; they are in force, or nothing was changed."""
    settings = load_settings(options)
    seconds = None if options.confirm_within is None else parse_duration(options.confirm_within)
    documents = tuple(map(_sent, _read(options.path, settings)))
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


def _sent(file: DocumentFile) -> SentDocument:
    """Return a document for the agent.

    Raises:
        DocumentError: it is no text.
    """
    try:
        return SentDocument(name=file.name, content=file.content.decode())
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
