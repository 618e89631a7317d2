"""The program that proves: it reads listings of the table, and compares each with a policy.

It has no privilege, and everything else on the host goes first: for the processor, and where memory is short.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
import signal
import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path

from sgagent.agent.prover import TOKEN, Progress, ProofAnswer, ProofRequest
from sgagent.dataplane.libnftables import DONE
from sgagent.dataplane.privileges import end_with_parent, give_back, name_process
from sgagent.nft.marks import EnforcementState
from sgagent.verify import Outcome
from sgagent.verify.expectation import SessionMemory
from sgagent.verify.guardrails import GuardrailsOnTable, evaluate_guardrails
from sgagent.verify.programs import read_table
from sgagent.verify.proof import Proof, prove
from sgagent.verify.report import as_json, guardrail_lines, guardrails_as_json, lines

_OBJECTS_BETWEEN_COLLECTIONS = 100_000
_LEAST_BYTES = 64 << 20
"""That a proof may have, however little is left."""

_AVAILABLE = re.compile(r"^MemAvailable: +(\d+) kB$", re.MULTILINE)
_BYTES_PER_KIBIBYTE = 1024


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
    connection = Connection(os.dup(channel.fileno()))
    connection.send(Progress.STARTED)
    while True:
        _, descriptors, _, _ = socket.recv_fds(channel, len(TOKEN), 1)
        if not descriptors:
            return
        _limit_memory()
        request: ProofRequest = connection.recv()
        content = _read(descriptors[0])
        connection.send(Progress.LISTED)
        if connection.recv():
            started = time.perf_counter()
            outcome = _outcome(content, request)
            connection.send(_answer(*outcome, time.perf_counter() - started))
            del outcome
        del content, request
        gc.collect()
        give_back()


def _limit_memory() -> None:
    """Let a proof have half of the host's free memory; the rest is for programs that do more than prove."""
    found = _AVAILABLE.search(Path("/proc/meminfo").read_text(encoding="ascii"))
    if found is not None:
        most = max(_LEAST_BYTES, int(found[1]) * _BYTES_PER_KIBIBYTE // 2)
        _, highest = resource.getrlimit(resource.RLIMIT_DATA)
        if highest != resource.RLIM_INFINITY:
            most = min(most, highest)
        resource.setrlimit(resource.RLIMIT_DATA, (most, highest))


def _read(descriptor: int) -> bytes | None:
    """Return a listing; None where memory has no room for it."""
    with socket.socket(fileno=descriptor) as listing, listing.makefile("rb") as whole:
        try:
            return whole.read()
        except MemoryError:
            return None


def _outcome(content: bytes | None, request: ProofRequest) -> tuple[Proof, GuardrailsOnTable]:
    """Return the results of a proof and of guardrails; unknown where that fails, whatever the reason is."""
    try:
        if content is None:
            raise MemoryError  # noqa: TRY301 - as when the proof itself needs too much
        return _prove(content, request)
    except MemoryError:
        most = resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20
        reason = f"the proof needs more than {most} MiB, half of the memory that this host had left"
    except Exception as fault:  # noqa: BLE001 - the outermost frame of a proof: whatever it is, nothing is proved
        reason = f"a fault of the verifier: {type(fault).__name__}: {fault}"
    return _unknown(reason)


def _unknown(reason: str) -> tuple[Proof, GuardrailsOnTable]:
    return Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=(reason,)), GuardrailsOnTable()


def _prove(content: bytes, request: ProofRequest) -> tuple[Proof, GuardrailsOnTable]:
    if content[:1] != DONE:
        reason = content[1:].decode("utf-8", "replace") or "the process that lists has ended"
        return _unknown(f"listing of the table: {reason}")
    memory = _memory(request.state, request.mask)
    table = read_table(content[1:])
    proof = prove(table, request.policy, memory=memory)
    return proof, evaluate_guardrails(table, request.policy, request.guardrails)


def _memory(state: EnforcementState | None, mask: int) -> SessionMemory | None:
    """Return the meaning of marks; None where the agent does not know it, and the table states it."""
    if state is None:
        return None
    return SessionMemory(mask=mask, generation=state.generation, slots=state.slots)


def _answer(proof: Proof, kept: GuardrailsOnTable, seconds: float) -> ProofAnswer:
    """Return a proof as the agent reports it."""
    table = "the table in the kernel"
    return ProofAnswer(
        outcome=kept.outcome_after(proof.outcome),
        report=as_json(proof, seconds) | guardrails_as_json(kept),
        description=(*guardrail_lines(kept, table), *lines(proof, seconds, table)),
    )
