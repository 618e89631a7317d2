"""The client of the control socket, and the active definitions: of the agent, else of the state directory."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TypeVar

from sgagent.agent.clock import time_left
from sgagent.agent.control import requests
from sgagent.agent.control.protocol import (
    LONGEST_ANSWER,
    SOCKET_NAME,
    MalformedRequestError,
    Refusals,
    decode_answer,
    encode_question,
)
from sgagent.agent.definitions import KnownLinks
from sgagent.agent.manual_override import ModeFile, ModeOverrides
from sgagent.agent.posture import BOUND_STATES
from sgagent.agent.state.directory import StateDirectory
from sgagent.cli.output import format_json, problem_text, warn
from sgagent.core.errors import NotPermittedError, SourceUnavailableError, count, printable
from sgagent.core.expected_links import ExpectedLink
from sgagent.documents import DocumentFile, parse_documents
from sgagent.json_model import to_json
from sgagent.ports import Delivery
from sgagent.settings import Settings, StateSettings

PATIENCE_SECONDS = 15.0
"""For each part of an answer; more than the agent gives itself for all of it."""

ORDER_PATIENCE_SECONDS = 150.0
"""The same for a command, which the agent's loop carries out."""

_CHUNK = 1 << 16
_TIME = struct.Struct("@ll")
"""Seconds and microseconds."""

_Answer = TypeVar("_Answer", bound=requests.ControlAnswer)


class NoAgentError(SourceUnavailableError):
    """Say that no agent runs on this host, or none with this configuration."""


def ask(settings: Settings, query: requests.Query, kind: type[_Answer]) -> _Answer:
    """Return the running agent's answer to a query or a command.

    Args:
        settings: say where its socket is.
        query: what to ask, or to do.
        kind: of the answer to such a query.

    Raises:
        NoAgentError: no agent is running.
        SourceUnavailableError: it does not answer, or not as it should.
        NotPermittedError: the caller may not ask, or not this.
        UsageError: the query makes no sense to the agent.
        DocumentError: the documents of a command have errors; nothing was changed.
        KernelRefusedError: the kernel refused a command; the previous rules stay active.
    """
    path = settings.state.runtime_directory / SOCKET_NAME
    patience = ORDER_PATIENCE_SECONDS if isinstance(query, requests.ControlCommand) else PATIENCE_SECONDS
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            # Python's own time limit does not wait for a place in the listener's queue; the kernel's does.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIME.pack(int(patience), 0))
            connection.connect(str(path))
            connection.settimeout(patience)
            with contextlib.suppress(BrokenPipeError):  # the agent may refuse without reading the query
                connection.sendall(encode_question(query))
            line = _read_line(connection)
        answer = decode_answer(query, line)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoAgentError(f"no agent is running here ({path}): {how_to_start(settings)}") from error
    except PermissionError as error:
        raise NotPermittedError(
            f"{path}: only root, the agent's user and the socket's group may ask"
        ) from error
    except (OSError, MalformedRequestError) as error:
        raise SourceUnavailableError(f"{path}: the agent does not answer: {error}") from error
    if isinstance(answer, Refusals):
        raise answer.exception()
    assert isinstance(answer, kind)  # noqa: S101 - as the query was; for the type checker
    return answer


_RUNTIME_DIRECTORY = StateSettings().runtime_directory
"""Of the unit's agent."""


def how_to_start(settings: Settings, root: Path = Path("/")) -> str:
    """Return the command that starts an agent: the service manager's where it has our unit and is asked."""
    from sgagent.host.service_unit import UNIT_FOLDERS  # noqa: PLC0415 - where an agent runs, no need

    has_systemd = (root / "run/systemd/system").is_dir()
    has_unit = any((root / folder / "sgagent.service").exists() for folder in UNIT_FOLDERS)
    if has_systemd and has_unit and settings.state.runtime_directory == _RUNTIME_DIRECTORY:
        return (
            "start it with 'systemctl start sgagent'; 'systemctl status sgagent' says why it is not running"
        )
    return "start one with 'sgagent run'"


def _read_line(connection: socket.socket) -> bytes:
    """Return the line that the agent sends."""
    with connection.makefile("rb", _CHUNK) as received:
        line = received.readline(LONGEST_ANSWER + 1)
    if len(line) > LONGEST_ANSWER:
        raise MalformedRequestError(f"an answer has at most {LONGEST_ANSWER} bytes")
    if not line.endswith(b"\n"):
        raise MalformedRequestError("the answer is incomplete" if line else "it is busy, or has stopped")
    return line


Interrupted = Callable[[], bool]


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupted]:
    """Leave the context silently at Ctrl-C; yield a function that returns whether it was pressed.

    The handler records the interrupt and raises it, because Python discards an exception in a destructor.
    """
    interruptions = list[int]()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        interruptions.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield lambda: bool(interruptions)
    except KeyboardInterrupt:
        pass  # Ctrl-C is the normal end
    finally:
        signal.signal(signal.SIGINT, before)


def pause(seconds: float) -> None:
    """Wait, but only as long as standard output has a reader.

    Raises:
        BrokenPipeError: the reader has gone; without this, only the next line that is written would show it.
    """
    poll = select.poll()
    poll.register(sys.stdout, 0)  # an error or a hang-up is always reported
    if poll.poll(1000 * seconds):
        raise BrokenPipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The definitions in force."""

    origin: str
    """Where that is known from, in words."""

    documents: tuple[DocumentFile, ...] | None = None
    """None where nothing is enforced."""

    version: str = ""
    """The source's version of the documents."""

    enforced_at: float | None = None
    """When an agent that has ended enforced them first, in seconds since the epoch; None if not known."""

    def parse(self, settings: Settings) -> Delivery | None:
        """Return the definitions; None where nothing is enforced."""
        if self.documents is None:
            return None
        snapshot, problems = parse_documents(self.documents, settings.limits, self.version)
        return Delivery(snapshot=snapshot, problems=problems, documents=self.documents)


def enforced_now(settings: Settings) -> InForce:
    """Return the definitions that are enforced on this host.

    Raises:
        SourceUnavailableError: an agent runs and does not answer.
        NotPermittedError: the caller may not ask, or not read what was kept.
    """
    try:
        answer = ask(settings, requests.DocumentsQuery(), requests.DocumentsAnswer)
    except NoAgentError:
        return _kept(settings)
    if answer.snapshot_version is None:
        return InForce(origin="the running agent, which enforces no snapshot")
    return InForce(
        origin=f"the running agent (snapshot {answer.snapshot_version})",
        documents=files_of(answer),
        version=answer.snapshot_version,
    )


def is_agent_running(settings: Settings) -> bool:
    """Return whether an agent runs on this host, whether it answers or not."""
    try:
        ask(settings, requests.StatusQuery(), requests.StatusAnswer)
    except NoAgentError:
        return False
    except (NotPermittedError, SourceUnavailableError):
        return True
    return True


def modes_of_host(settings: Settings) -> ModeOverrides:
    """Return the modes that ``sgagent mode`` set on this host; warn if they are not known (§9.1).

    The running agent knows them; if none runs, the state directory has those that hold at the next start.
    """
    found, fault = ModeOverrides(), None
    try:
        answer = ask(settings, requests.StatusQuery(), requests.StatusAnswer)
    except NoAgentError:
        found, fault = ModeFile(settings.state.directory).load()
    except (NotPermittedError, SourceUnavailableError) as error:
        fault = str(error)
    else:
        # The override for every interface comes first, as it replaces all that were set before it.
        for override in sorted(answer.mode_overrides, key=lambda one: one.interface or ""):
            found = found.switched(override.interface, override.mode)
    if fault is not None:
        warn(
            "the overrides of 'sgagent mode' can't be read, so the modes of the configuration are used"
            f" (ask as root): {fault}"
        )
    return found


def expected_links(settings: Settings, in_table: Container[str]) -> tuple[ExpectedLink, ...]:
    """Return on which links the agent has network interfaces, also those not found yet (§9.3).

    An agent that ended kept where it found them. Whether its table has a link that is gone depends on what
    came first, the end of the link or of the table's last change: only those in the table count.

    Args:
        settings: say where its socket is, and what it kept.
        in_table: names of links in the table.
    """
    try:
        answer = ask(settings, requests.StatusQuery(), requests.StatusAnswer)
    except NoAgentError:
        kept, _ = StateDirectory(settings.state.directory).load()
        known = KnownLinks.left(kept.links if kept else (), settings.interfaces)
        return tuple(link for link in known.missed if link.interface in in_table)
    except (NotPermittedError, SourceUnavailableError):
        return ()
    return tuple(
        ExpectedLink(interface=one.name, network_interface_id=one.network_interface_id)
        for one in answer.interfaces
        if one.network_interface_id is not None
    )


def bound_before(settings: Settings) -> Mapping[str, str | None]:
    """Return the links of this host that the agent has or had bound, and as which network interface.

    An agent that ended kept those that it found by MAC or address. Nothing is known to who may not ask.
    """
    try:
        answer = ask(settings, requests.StatusQuery(), requests.StatusAnswer)
    except NoAgentError:
        directory = settings.state.directory
        kept = StateDirectory(directory).load()[0] if os.access(directory, os.R_OK | os.X_OK) else None
        return {link.interface: link.network_interface_id for link in kept.links} if kept else {}
    except (NotPermittedError, SourceUnavailableError):
        return {}
    missing = (one for one in answer.first_unbound_expected if one.interface)
    found = {one.interface or "": one.network_interface_id for one in missing}
    bound = (one for one in answer.interfaces if one.state in BOUND_STATES)
    return {**found, **{one.name: one.network_interface_id for one in bound}}


def _kept(settings: Settings) -> InForce:
    """Return the last good definitions that an agent kept which does not run now."""
    directory = settings.state.directory
    if directory.exists() and not os.access(directory, os.R_OK | os.X_OK):
        raise NotPermittedError(
            f"{directory}: the last enforced policy can't be read (run as root, or use --against)"
        )
    kept, faults = StateDirectory(directory).load()
    if kept is None and faults:
        raise SourceUnavailableError("\n".join((*faults, "name documents to compare with (--against)")))
    if kept is None:
        return InForce(origin="nothing: no agent runs here, and none has enforced a policy")
    return InForce(
        origin=f"the last enforced policy (snapshot {kept.version}); no agent is running",
        documents=kept.documents,
        version=kept.version,
        enforced_at=kept.record.enforced_at,
    )


PROOF_SECONDS = 120.0
"""For the proof of a change: the largest tables take a while on a busy host."""

_LOOK_SECONDS = 0.1


def await_proof(settings: Settings, version: str | None) -> requests.StatusAnswer | None:
    """Return the status with the proof of the table in force; None if there is none in time.

    Args:
        settings: say where the agent's socket is.
        version: of the snapshot that has to be in force; there is no proof of it once another one is.
    """
    deadline, pause = time.monotonic() + PROOF_SECONDS, threading.Event()
    while time.monotonic() < deadline:
        status = ask(settings, requests.StatusQuery(), requests.StatusAnswer)
        if status.verified is not None and status.verified.version == version:
            return status
        if status.snapshot_version != version or not status.is_verifying:
            return None
        pause.wait(_LOOK_SECONDS)
    return None


def print_enforced(
    answer: requests.EnforcedAnswer, *, as_json: bool, more: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Print the outcome first, then its costs; problems go to standard error.

    Args:
        answer: what the agent did.
        as_json: as one object.
        more: further fields of that.
    """
    if as_json:
        print(format_json({**to_json(answer), **more}))
        return
    print("\n".join(map(printable, lines(answer))))
    for problem in answer.warnings:
        print(problem_text(problem), file=sys.stderr)
    warn_of_loss(answer)


def files_of(answer: requests.DocumentsAnswer) -> tuple[DocumentFile, ...]:
    """Return the documents of an answer."""
    return tuple(DocumentFile(name=file.name, content=file.content.encode()) for file in answer.documents)


def warn_of_loss(answer: requests.EnforcedAnswer | requests.ModeAnswer | requests.ConfirmAnswer) -> None:
    """Warn if the agent could not keep the change."""
    if answer.fault is not None:
        warn(f"this change is lost when the agent stops: {answer.fault}")


def lines(answer: requests.EnforcedAnswer) -> Iterator[str]:
    """Yield the lines for a person."""
    if answer.version is None:
        yield "nothing is enforced; nothing changed"
    else:
        names = ", ".join(answer.interfaces) or "no interface"
        unchanged = "" if answer.is_changed else " (unchanged)"
        yield f"enforcing {answer.version} on {names}{unchanged}"
    if answer.seconds_left is not None:
        back = answer.goes_back_to or "nothing, as before"
        yield f"goes back to {back} in {time_left(answer.seconds_left)}, unless 'sgagent confirm' runs"
    elif answer.held_back is not None:
        yield f"held until the source delivers another version than {answer.held_back}"
        if answer.remedy is not None:
            yield answer.remedy
    if answer.held_change is not None:
        yield f"{answer.held_change.version} waits, as it would cut"
        yield from (f"  {cut}" for cut in answer.held_change.sessions)
        yield answer.held_change.remedy
    if answer.sessions_cut:
        yield f"cut {count(len(answer.sessions_cut), 'open session')}:"
        yield from (f"  {cut}" for cut in answer.sessions_cut)
