"""Proofs in the background: after each change, another process proves the table that the kernel lists.

The agent forks that process before it has any thread, without privilege. The applier lists the table by a
process of its own. So neither a listing nor a proof is in the way of the next change.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from sgagent.agent.status import ProofReport
from sgagent.agent.step import EventLog, Step, StepEnd
from sgagent.core.errors import SgagentError
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.privileges import end_with_parent, name_process
from sgagent.dataplane.privsep import give_back
from sgagent.dataplane.table import LISTED
from sgagent.nft.marks import EnforcementState, MarkLayout
from sgagent.verify import Outcome
from sgagent.verify.expectation import SessionMemory
from sgagent.verify.listing import read_listing
from sgagent.verify.proof import Proof, prove
from sgagent.verify.report import as_json, lines

QUIET_SECONDS = 0.5
"""After the last change; the table is listed then, so that a row of changes is proved once."""

LONGEST_WAIT_SECONDS = 10.0
"""After a change, where others follow without such a pause; the table is listed between two of them then."""

_TOKEN = b"L"
_PIECE = 1 << 20


class _Progress(enum.Enum):
    """What the process says before it answers."""

    LISTED = "listed"
    """The table was listed; later changes don't count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What the table has to do."""

    policy: ResolvedPolicy
    memory: SessionMemory | None
    """None: as the table states it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What came of it."""

    report: dict[str, Any]
    description: tuple[str, ...]


class ProverLostError(Exception):
    """Say that the process that proves has ended."""


class Prover:
    """The process that proves, as the agent sees it."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        """Take the process and the way to it."""
        self._pid = pid
        self._channel = channel
        self._connection = Connection(os.dup(channel.fileno()))

    def prove(self, question: _Question, listing: socket.socket, listed: Callable[[], None]) -> _Answer:
        """Return what came of a proof.

        Args:
            question: what the table has to do.
            listing: where the listing of the table comes from.
            listed: called when all of it has come.

        Raises:
            ProverLostError: the process has ended.
        """
        try:
            socket.send_fds(self._channel, [_TOKEN], [listing.fileno()])
            listing.close()
            self._connection.send(question)
            while (said := self._connection.recv()) is _Progress.LISTED:
                listed()
        except (EOFError, OSError) as error:
            raise ProverLostError("the process that proves has ended") from error
        answer: _Answer = said
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._channel.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def fork_prover() -> Prover:
    """Fork the process that proves; to be called before this process has a second thread."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _be_prover(theirs)
    theirs.close()
    return Prover(pid, ours)


def _be_prover(channel: socket.socket) -> NoReturn:
    """Prove until the agent is gone."""
    code = 1
    try:
        end_with_parent()
        name_process("sgagent-prover")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(
                number, signal.SIG_IGN
            )  # they reach the whole service, and the agent ends this process
        with contextlib.suppress(OSError):  # the unit may forbid it
            os.nice(19)
        with contextlib.suppress(OSError):  # where memory runs out, this process goes before all others
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        _keep_open(channel.fileno())
        with contextlib.suppress(EOFError, ConnectionError):
            _serve(channel)
        code = 0
    finally:
        os._exit(code)


def _keep_open(kept: int) -> None:
    """Close every file but standard error and one other: the applier must see when the agent ends."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _serve(channel: socket.socket) -> None:
    connection, previous = Connection(os.dup(channel.fileno())), None
    while True:
        _, descriptors, _, _ = socket.recv_fds(channel, len(_TOKEN), 1)
        if not descriptors:
            return
        question: _Question = connection.recv()
        with socket.socket(fileno=descriptors[0]) as listing:
            content = _read_all(listing)
        connection.send(_Progress.LISTED)
        started = time.perf_counter()
        try:
            proof = _prove(content, question, previous)
        except Exception as fault:  # noqa: BLE001 - the outermost frame of a proof: whatever it is, nothing is proved
            reason = f"a fault of the verifier: {type(fault).__name__}: {fault}"
            proof = Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=(reason,))
        connection.send(_answer(proof, time.perf_counter() - started))
        previous = proof if proof.outcome is Outcome.PROVED else None
        del content, question, proof
        gc.collect()
        give_back()


def _read_all(listing: socket.socket) -> bytes:
    content = bytearray()
    while piece := listing.recv(_PIECE):
        content += piece
    return bytes(content)


def _prove(content: bytes, question: _Question, previous: Proof | None) -> Proof:
    if content[:1] != LISTED:
        reason = content[1:].decode("utf-8", "replace") or "the process that lists has ended"
        return Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=(f"listing of the table: {reason}",))
    text = content[1:].decode("utf-8", "replace")
    table = read_listing(json.loads(text) if text else {"nftables": []})
    return prove(table, question.policy, memory=question.memory, previous=previous)


def _answer(proof: Proof, seconds: float) -> _Answer:
    described = tuple(lines(proof, seconds, "the table in the kernel"))
    return _Answer(report=as_json(proof, seconds), description=described)


@dataclass(slots=True)
class _Wanted:
    """The next proof, and the change of the table that it belongs to."""

    change: int = 0
    policy: ResolvedPolicy | None = None
    state: EnforcementState | None = None
    proved: int = 0
    """The change of which the newest proof was."""

    is_stepping: bool = False
    is_over: bool = False
    condition: threading.Condition = field(default_factory=threading.Condition)


class Verification:
    """Have each change of the table proved, from a thread of its own."""

    def __init__(
        self,
        prover: Prover,
        open_listing: Callable[[], socket.socket],
        layout: MarkLayout,
        log: EventLog,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        longest_seconds: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        """Prove nothing yet.

        Args:
            prover: the process.
            open_listing: has the table listed; may be called from any thread.
            layout: our bits of the mark.
            log: the log.
            quiet_seconds: after the last change.
            longest_seconds: after a change that others follow.
        """
        self._prover = prover
        self._open_listing = open_listing
        self._layout = layout
        self._log = log
        self.newest: ProofReport | None = None
        """What the newest proof came to; None before the first. May be read from any thread."""

        self._quiet_seconds = quiet_seconds
        self._longest_seconds = longest_seconds
        self._wanted = _Wanted()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Prove until the context is left."""
        thread = threading.Thread(target=self._work, name="verification", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._wanted.condition:
                self._wanted.is_over = True
                self._wanted.condition.notify_all()
            self._prover.close()
            thread.join()

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Count no listing that comes while the agent is in a step, which may change the table."""
        self._set_stepping(is_stepping=True)
        try:
            yield
        finally:
            self._set_stepping(is_stepping=False)

    def _set_stepping(self, *, is_stepping: bool) -> None:
        with self._wanted.condition:
            self._wanted.is_stepping = is_stepping
            self._wanted.condition.notify_all()

    def follow(self, step: Step) -> None:
        """Have the table proved, if a step changed it or found what no proof knows yet; called within it."""
        is_in_force = step.outcome in (StepEnd.APPLIED, StepEnd.UNCHANGED)
        if step.policy is None or not is_in_force:
            return
        wanted = self._wanted
        with wanted.condition:
            state = step.state or wanted.state
            if step.outcome is StepEnd.APPLIED or step.policy != wanted.policy:
                wanted.change += 1
            wanted.policy, wanted.state = step.policy, state

    def _work(self) -> None:
        """Prove the newest change again and again."""
        try:
            while (change := self._wait_for_change()) is not None:
                self._prove(change)
        except ProverLostError as error:
            if not self._wanted.is_over:
                self._log.error("verification_ended", reason=str(error))
                self._say_unknown(str(error), self._wanted.change)

    def _wait_for_change(self) -> int | None:
        """Return the number of the change to prove, after a pause or the longest wait; None at the end."""
        wanted, latest = self._wanted, math.inf
        with wanted.condition:
            while not wanted.is_over:
                if wanted.proved == wanted.change or wanted.is_stepping:
                    wanted.condition.wait()
                    continue
                now = time.monotonic()
                latest = min(latest, now + self._longest_seconds)
                pause = min(self._quiet_seconds, latest - now)
                if pause <= 0 or not wanted.condition.wait(pause):
                    return wanted.change
        return None

    def _prove(self, change: int) -> None:
        """Prove the table after a change; what comes of it counts only if the listing was of no other."""
        wanted = self._wanted
        policy, state = wanted.policy, wanted.state
        is_of_change = False

        def listed() -> None:
            nonlocal is_of_change
            with wanted.condition:
                wanted.condition.wait_for(lambda: not wanted.is_stepping or wanted.is_over)
                is_of_change = wanted.change == change

        if policy is None:
            return
        try:
            listing = self._open_listing()
        except (OSError, SgagentError) as error:
            self._say_unknown(str(error), change)
            return
        answer = self._prover.prove(_Question(policy=policy, memory=self._memory(state)), listing, listed)
        if is_of_change:
            wanted.proved = change
            self._say(answer, state)

    def _say_unknown(self, reason: str, change: int) -> None:
        """Report that a change could not be proved."""
        self._wanted.proved = change
        proof = Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=(reason,))
        self._say(_answer(proof, 0.0), self._wanted.state)

    def _memory(self, state: EnforcementState | None) -> SessionMemory | None:
        """Return what marks mean; None where this agent does not know, and the table says it."""
        if state is None:
            return None
        return SessionMemory(mask=self._layout.mask, generation=state.generation, slots=state.slots)

    def _say(self, answer: _Answer, state: EnforcementState | None) -> None:
        report = answer.report
        found = ProofReport(
            outcome=Outcome(report["outcome"]),
            generation=None if state is None else state.generation,
            seconds=report["seconds"],
            at=time.time(),
            cells=report["cells"],
            unsupported=tuple(report["unsupported"]),
            counterexample=report["counterexample"],
            description=answer.description,
        )
        if found.outcome is Outcome.REFUTED:
            self._log.error("table_refuted", packet=found.counterexample, description=found.description)
        elif found.outcome is Outcome.UNKNOWN:
            self._log.warning("table_not_verified", reasons=found.unsupported)
        self.newest = found
