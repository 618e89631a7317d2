"""The process that proves, as the agent sees it, and what it does.

It is a program of its own, without privilege. So the agent, which has threads and must not fork itself, can
start another one if it was killed.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.libnftables import DONE
from sgagent.dataplane.privileges import end_with_parent, give_back, name_process
from sgagent.verify import Outcome
from sgagent.verify.expectation import SessionMemory
from sgagent.verify.programs import read_table
from sgagent.verify.proof import Proof, prove
from sgagent.verify.report import as_json, lines

_TOKEN = b"L"
_PROGRAM = "import sys; sys.path[:] = {path!r}; from sgagent.agent.prover import main; main({channel})"
_OBJECTS_BETWEEN_COLLECTIONS = 100_000


class _Progress(enum.Enum):
    """What the process says before it answers."""

    STARTED = "started"
    LISTED = "listed"
    """The table was listed; later changes don't count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRequest:
    """What the table has to do."""

    policy: ResolvedPolicy
    memory: SessionMemory | None
    """None: as the table states it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofAnswer:
    """What came of it."""

    report: dict[str, Any]
    description: tuple[str, ...]

    @classmethod
    def of(cls, proof: Proof, seconds: float) -> ProofAnswer:
        """Return a proof as the agent reports it."""
        described = tuple(lines(proof, seconds, "the table in the kernel"))
        return cls(report=as_json(proof, seconds), description=described)


class ProverLostError(Exception):
    """Say that the process that proves has ended."""


class Prover:
    """The process that proves, as the agent sees it; it ends with the thread that starts it."""

    def __init__(self) -> None:
        """Start the process, and wait until it can be asked.

        Raises:
            ProverLostError: it has ended.
            OSError: none could be started.
        """
        self._channel, theirs = socket.socketpair()
        with theirs:
            program = _PROGRAM.format(path=sys.path, channel=theirs.fileno())
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this program's own interpreter and modules
                    [sys.executable, "-I", "-c", program],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except OSError:
                self._channel.close()
                raise
        self._connection = Connection(os.dup(self._channel.fileno()))
        try:
            self._connection.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise ProverLostError("the process that proves can't be started") from error

    def prove(self, request: ProofRequest, listing: socket.socket, listed: Callable[[], None]) -> ProofAnswer:
        """Return what came of a proof.

        Args:
            request: what the table has to do.
            listing: where the listing of the table comes from; it is closed.
            listed: called when all of it has come.

        Raises:
            ProverLostError: the process has ended.
        """
        try:
            with listing:
                socket.send_fds(self._channel, [_TOKEN], [listing.fileno()])
            self._connection.send(request)
            while (said := self._connection.recv()) is _Progress.LISTED:
                listed()
        except (EOFError, OSError) as error:
            raise ProverLostError("the process that proves has ended") from error
        answer: ProofAnswer = said
        return answer

    def kill(self) -> None:
        """End the process, whatever it does; may be called from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End the process and release what belongs to it."""
        self.kill()
        self._process.wait()
        self._connection.close()
        self._channel.close()


def main(channel: int) -> None:
    """Prove until the agent is gone.

    Args:
        channel: the descriptor of a socket to the agent.
    """
    end_with_parent()
    name_process("sgagent-prover")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they reach the whole service, and the agent ends this process
    with contextlib.suppress(OSError):  # the unit may forbid it
        os.nice(19)
    with contextlib.suppress(OSError):  # where memory runs out, this process goes before all others
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 100)
    with socket.socket(fileno=channel) as opened, contextlib.suppress(EOFError, ConnectionError):
        _serve(opened)


def _serve(channel: socket.socket) -> None:
    connection, previous = Connection(os.dup(channel.fileno())), None
    connection.send(_Progress.STARTED)
    while True:
        _, descriptors, _, _ = socket.recv_fds(channel, len(_TOKEN), 1)
        if not descriptors:
            return
        request: ProofRequest = connection.recv()
        with socket.socket(fileno=descriptors[0]) as listing, listing.makefile("rb") as whole:
            content = whole.read()
        connection.send(_Progress.LISTED)
        started = time.perf_counter()
        try:
            proof = _prove(content, request, previous)
        except Exception as fault:  # noqa: BLE001 - the outermost frame of a proof: whatever it is, nothing is proved
            reason = f"a fault of the verifier: {type(fault).__name__}: {fault}"
            proof = Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=(reason,))
        connection.send(ProofAnswer.of(proof, time.perf_counter() - started))
        previous = proof if proof.outcome is Outcome.PROVED else None
        del content, request, proof
        gc.collect()
        give_back()


def _prove(content: bytes, request: ProofRequest, previous: Proof | None) -> Proof:
    if content[:1] != DONE:
        reason = content[1:].decode("utf-8", "replace") or "the process that lists has ended"
        return Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=(f"listing of the table: {reason}",))
    return prove(read_table(content[1:]), request.policy, memory=request.memory, previous=previous)
