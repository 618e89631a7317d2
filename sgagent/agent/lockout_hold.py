"""The hold of a change that would cut a login (§7.4).

A new version of the source that would cut a live login waits for ``sgagent apply``, or until its time is up.
The version that waits, and its time, are stored, so that neither a restart nor a reboot enforces it early.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import syslog
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from sgagent.agent.clock import time_left
from sgagent.agent.definitions import Definitions
from sgagent.agent.manual_override import HeldChangeStatus, is_running
from sgagent.agent.sessions import MOST_LOOKED_AT, FindAll, ListSessions, on_the_wire
from sgagent.agent.state.directory import SealedFile, Terms, fault_of
from sgagent.core.binding import HostFacts
from sgagent.core.errors import printable
from sgagent.core.lockout import (
    CutSession,
    LiveSession,
    NamedCut,
    SessionKind,
    dearest,
    named,
    sessions_newly_cut,
)
from sgagent.core.policy import ResolvedPolicy
from sgagent.json_model import from_json, to_json
from sgagent.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldChange:
    """A version of the source that is not enforced yet, since it would cut logins."""

    version: str
    terms: Terms
    sessions: tuple[LiveSession, ...]
    cuts: tuple[NamedCut, ...] = ()
    """The same in words."""

    def status(self, monotonic: float) -> HeldChangeStatus:
        """Return the held change's status at a time."""
        left = max(0.0, self.terms.deadline - monotonic)
        return HeldChangeStatus(version=self.version, seconds_left=left, sessions=self.cuts)


@dataclass(frozen=True, slots=True)
class _Body:
    """The file's content below its checksum."""

    version: str
    terms: Terms
    sessions: tuple[LiveSession, ...]


@dataclass(eq=False, kw_only=True)
class LockoutHold:
    """Decide which versions wait, and remember the one that does."""

    seconds: float
    """How long a version waits; 0 holds nothing."""

    directory: Path
    """The state directory."""

    clock: Clock
    boot_id: str
    list_sessions: ListSessions
    find: FindAll
    """Finds conntrack's entries of sessions."""

    tell: Callable[[str], None] = field(default=lambda _: None)
    """Tells who is logged in of a version that begins to wait. Must neither block nor raise."""

    def __post_init__(self) -> None:
        """Read the change that an earlier agent held; after a reboot, it waits for the whole time again."""
        self._file = SealedFile(self.directory / "held-change.json", "file of a held change")
        self.held: HeldChange | None = None
        self.fault: str | None = None
        body, self.fault = self._file.load(partial(from_json, _Body))
        if body is None:
            return
        is_same_boot = is_running(body.terms, self.boot_id, body.terms.began)
        terms = body.terms if is_same_boot else self._terms()
        self.held = HeldChange(version=body.version, terms=terms, sessions=body.sessions)
        self._keep()

    @property
    def is_on(self) -> bool:
        """Return whether the configuration wants changes to wait."""
        return self.seconds > 0

    def has_to_wait(
        self, version: str, old: ResolvedPolicy | None, new: ResolvedPolicy, facts: HostFacts
    ) -> bool:
        """Return whether a version of the source is not to be enforced yet.

        Once it waits, the end of the login that it would cut changes nothing: the next one would be refused.

        Args:
            version: of the source.
            old: the policy that stays in force meanwhile; None if that is none, or unknown.
            new: that of the version.
            facts: the links.
        """
        known = self.held.sessions if self.held is not None and self.held.version == version else ()
        cuts = sessions_newly_cut(old, new, facts, dict.fromkeys((*known, *self._logins())))
        if not cuts:
            self.forget()
            return False
        held = self._begin_or_go_on(version, cuts)
        return self.clock.monotonic() < held.terms.deadline

    def _logins(self) -> tuple[LiveSession, ...]:
        try:
            sessions = self.list_sessions()
        except OSError:
            return ()  # as the preview of cuts logs
        logins = (one for one in sessions if one.kind is SessionKind.MANAGEMENT)
        return on_the_wire(dearest(logins, MOST_LOOKED_AT), self.find)

    def _begin_or_go_on(self, version: str, cuts: tuple[CutSession, ...]) -> HeldChange:
        before = self.held
        is_begun = before is None or before.version != version
        terms = self._terms() if before is None or is_begun else before.terms
        sessions = tuple(cut.session for cut in cuts)
        held = HeldChange(version=version, terms=terms, sessions=sessions, cuts=tuple(map(named, cuts)))
        self.held = held
        if before is None or is_begun or before.sessions != sessions or self.fault:
            self._keep()
        if is_begun:
            self.tell(_announcement(held, self.seconds))
        return held

    def follow(self, definitions: Definitions) -> None:
        """Forget a version that the source no longer says, or that is in force or held back by a command."""
        newest = definitions.fetched.newest
        if self.held is None or newest is None or definitions.proposal is not None:
            return
        version = newest.snapshot.version
        if version != self.held.version or version in (definitions.committed_version, definitions.held_back):
            self.forget()

    def begin_again(self) -> None:
        """Have a version that waits wait for the whole time again, after a trial that nobody confirmed."""
        if self.held is not None:
            self.held = replace(self.held, terms=self._terms())
            self._keep()

    def forget(self) -> None:
        """Hold nothing any more."""
        if self.held is not None:
            self.held = None
            self.fault = fault_of(self._file.remove, "the end of a held change could not be saved")

    def _terms(self) -> Terms:
        now = self.clock.monotonic()
        return Terms(boot_id=self.boot_id, began=now, deadline=now + self.seconds)

    def _keep(self) -> None:
        held = self.held
        assert held is not None  # noqa: S101 - for the type checker
        body = to_json(_Body(held.version, held.terms, held.sessions))
        self.fault = fault_of(partial(self._file.save, body), "the held change could not be saved")


_MOST_TOLD = 5


def _announcement(held: HeldChange, seconds: float) -> str:
    """Return the text for terminals."""
    more = len(held.cuts) - _MOST_TOLD
    cuts = [*map(str, held.cuts[:_MOST_TOLD]), *([f"{more} more"] if more > 0 else ())]
    lines = (
        f"sgagent holds {held.version}, a change of the policy that would cut",
        *(f"  {cut}" for cut in cuts),
        f"It is enforced in {time_left(seconds)}, or by 'sgagent apply'.",
    )
    return "\n".join(map(printable, lines))


_WALL_SECONDS = 10.0
"""For wall(1), which a terminal that is stopped can block."""


def broadcast(text: str) -> None:
    """Have a message written to all terminals; a failure is nobody's, and nothing waits for it."""
    with suppress(RuntimeError):  # no thread is free
        threading.Thread(target=_write, args=(text,), name="broadcast", daemon=True).start()


def _write(text: str) -> None:
    """Write a message through the journal where that is the log, else by wall(1).

    The unit's process may write to no terminal; journald forwards messages of the highest level to all.
    """
    program = shutil.which("wall")
    if program is None or "JOURNAL_STREAM" in os.environ:
        syslog.openlog("sgagent")
        syslog.syslog(syslog.LOG_EMERG | syslog.LOG_DAEMON, text)
        return
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(  # noqa: S603 - the argument is a program
            [program], input=text.encode(), capture_output=True, timeout=_WALL_SECONDS, check=False
        )
