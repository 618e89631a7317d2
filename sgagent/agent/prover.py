"""The process that proves, as the agent sees it.

It is a program of its own, :mod:`sgagent.agent.proof_program`, without privilege. So the agent, which has
threads and must not fork itself, can start another one if it was killed, and imports nothing of what proves.
"""

from __future__ import annotations

import enum
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sgagent.core.guardrails import ResolvedGuardrail
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.marks import EnforcementState
from sgagent.sources.own_program import start_program
from sgagent.verify import Outcome

TOKEN = b"L"
"""Comes with the descriptor of a listing."""

_PROGRAM = """
import sys; sys.path[:] = {path!r}
from sgagent.agent.proof_program import main; main(int(sys.argv[1]))
"""


class Progress(enum.Enum):
    """The messages of the process before it answers."""

    STARTED = "started"
    LISTED = "listed"
    """The table was listed; the agent says next whether that is the table to prove."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRequest:
    """The policy that the table has to enforce."""

    policy: ResolvedPolicy
    mask: int
    """Our bits of the mark."""

    state: EnforcementState | None
    """What they mean; None: as the table states it."""

    guardrails: tuple[ResolvedGuardrail, ...] = ()
    """What must hold on the table, whatever the policy is (§13.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofAnswer:
    """The result of a proof."""

    outcome: Outcome
    """Refuted also where the table does what the policy says, and breaks a guardrail."""

    report: dict[str, Any]
    description: tuple[str, ...]


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
        self._channel, self._process = start_program(_PROGRAM.format(path=sys.path))
        self._connection = Connection(os.dup(self._channel.fileno()))
        try:
            self._connection.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise ProverLostError("the process that proves can't be started") from error

    def prove(
        self, request: ProofRequest, listing: socket.socket, is_meant: Callable[[], bool]
    ) -> ProofAnswer | None:
        """Return the result of a proof; None where the listing is of another table than the one to prove.

        Args:
            request: what the table has to do.
            listing: where the listing of the table comes from; it is closed.
            is_meant: called when all of it has come; says whether it is of the table to prove.

        Raises:
            ProverLostError: the process has ended.
        """
        try:
            with listing:
                socket.send_fds(self._channel, [TOKEN], [listing.fileno()])
            self._connection.send(request)
            self._connection.recv()  # all is listed
            is_right = is_meant()
            self._connection.send(is_right)
            return self._connection.recv() if is_right else None
        except (EOFError, OSError) as error:
            raise ProverLostError("the process that proves has ended") from error

    def kill(self) -> None:
        """End the process, whatever it does; may be called from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End the process and release its sockets."""
        self.kill()
        self._process.wait()
        self._connection.close()
        self._channel.close()
