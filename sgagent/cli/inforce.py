"""Find out which definitions are enforced on this host now: by asking the agent, else from what it kept."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sgagent.agent.asking.questions import DocumentsAnswer, DocumentsQuestion, StatusAnswer, StatusQuestion
from sgagent.agent.choosing.modes import ModeFile, ModeOverrides
from sgagent.agent.keeping.state import StateDirectory
from sgagent.cli.liveagent import NoAgentError, ask
from sgagent.core.errors import NotPermittedError, SourceUnavailableError
from sgagent.documents import DocumentFile, parse_documents
from sgagent.ports import Delivery
from sgagent.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What is enforced."""

    origin: str
    """Where that is known from, in words."""

    delivery: Delivery | None = None
    """None where nothing is enforced."""


def enforced_now(settings: Settings) -> InForce:
    """Return the definitions that are enforced on this host.

    Raises:
        SourceUnavailableError: an agent runs and does not answer.
        NotPermittedError: the caller may not ask, or not read what was kept.
        DocumentError: what was kept can't be understood by this version.
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
        delivery=_delivery(settings, files, answer.snapshot_version),
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
        delivery=_delivery(settings, kept.documents, kept.version),
    )


def _delivery(settings: Settings, files: tuple[DocumentFile, ...], version: str) -> Delivery:
    snapshot, problems = parse_documents(files, settings.limits, version)
    return Delivery(snapshot=snapshot, problems=problems, documents=files)
