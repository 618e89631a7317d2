"""The definitions that are enforced on this host: from the running agent, else from its state directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.agent.control.protocol import encode_fields
from sgagent.agent.control.requests import (
    DocumentsAnswer,
    DocumentsQuestion,
    EnforcedAnswer,
    StatusAnswer,
    StatusQuestion,
)
from sgagent.agent.manual_override import ModeFile, ModeOverrides
from sgagent.agent.state.directory import StateDirectory
from sgagent.agent.time_text import count, time_left
from sgagent.cli.agent_client import NoAgentError, ask
from sgagent.cli.output import format_json
from sgagent.core.errors import NotPermittedError, SourceUnavailableError, printable
from sgagent.documents import DocumentFile
from sgagent.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What is enforced."""

    origin: str
    """Where that is known from, in words."""

    documents: tuple[DocumentFile, ...] | None = None
    """None where nothing is enforced."""

    version: str = ""
    """What the source calls the documents."""


def enforced_now(settings: Settings) -> InForce:
    """Return the definitions that are enforced on this host.

    Raises:
        SourceUnavailableError: an agent runs and does not answer.
        NotPermittedError: the caller may not ask, or not read what was kept.
    """
    try:
        answer = ask(settings, DocumentsQuestion(), DocumentsAnswer)
    except NoAgentError:
        return _kept(settings)
    if answer.snapshot_version is None:
        return InForce(origin="the running agent, which enforces no snapshot")
    files = tuple(DocumentFile(name=file.name, content=file.content.encode()) for file in answer.documents)
    return InForce(
        origin=f"the running agent (snapshot {answer.snapshot_version})",
        documents=files,
        version=answer.snapshot_version,
    )


def modes_in_force(settings: Settings) -> tuple[ModeOverrides, str | None]:
    """Return the modes that ``sgagent mode`` set on this host, and why they are not known, if so (§9.1).

    The running agent knows them; if none runs, the state directory has those that hold at the next start.
    """
    try:
        answer = ask(settings, StatusQuestion(), StatusAnswer)
    except NoAgentError:
        return ModeFile(settings.state.directory).load()
    except (NotPermittedError, SourceUnavailableError) as error:
        return ModeOverrides(), str(error)
    found = ModeOverrides()
    # The override for every interface comes first, as it replaces all that were set before it.
    for override in sorted(answer.mode_overrides, key=lambda one: one.interface or ""):
        found = found.switched(override.interface, override.mode)
    return found, None


def _kept(settings: Settings) -> InForce:
    """Return what an agent that does not run now kept as its last good definitions."""
    directory = settings.state.directory
    if directory.exists() and not os.access(directory, os.R_OK | os.X_OK):
        raise NotPermittedError(
            f"{directory}: what was enforced last can't be read: ask as root, or name documents by --against"
        )
    kept, faults = StateDirectory(directory).load()
    if kept is None and faults:
        raise SourceUnavailableError("\n".join((*faults, "name documents to compare with by --against")))
    if kept is None:
        return InForce(origin="nothing: no agent runs here, and none kept what it enforced")
    return InForce(
        origin=f"what was enforced last (snapshot {kept.version}); no agent runs now",
        documents=kept.documents,
        version=kept.version,
    )


def print_enforced(answer: EnforcedAnswer, *, as_json: bool) -> None:
    """Print the outcome first, then what it costs; what is wrong goes to standard error."""
    if as_json:
        print(format_json(encode_fields(answer)))
        return
    print("\n".join(map(printable, lines(answer))))
    for problem in answer.warnings:
        print(problem, file=sys.stderr)
    if answer.fault is not None:
        print(printable(f"warning: this will not outlive the agent: {answer.fault}"), file=sys.stderr)


def lines(answer: EnforcedAnswer) -> Iterator[str]:
    """Yield what a person has to know."""
    if answer.version is None:
        yield "nothing is enforced, as before"
    else:
        names = ", ".join(answer.interfaces) or "no interface"
        unchanged = "" if answer.is_changed else " (the kernel held it already)"
        yield f"enforcing {answer.version} on {names}{unchanged}"
    if answer.seconds_left is not None:
        back = answer.goes_back_to or "nothing, as before"
        yield f"goes back to {back} in {time_left(answer.seconds_left)}, unless 'sgagent confirm' comes"
    elif answer.held_back is not None:
        yield f"held until the source delivers another version than {answer.held_back}"
    if answer.sessions_cut:
        yield f"cut {count(len(answer.sessions_cut), 'open session')}:"
        yield from (f"  {cut}" for cut in answer.sessions_cut)
