"""Proofs in the background: after each change, another process proves the table that the kernel lists.

That process has no privilege. The applier lists the table by a process of its own. So neither a listing nor a
proof is in the way of the next change, but for one case: changes that never pause.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sgagent.agent.clock import RetryDelay
from sgagent.agent.prover import ProofAnswer, ProofRequest, Prover, ProverLostError
from sgagent.agent.status import ProofReport
from sgagent.agent.step import EventLog, Step, StepEnd
from sgagent.core.errors import SgagentError
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.marks import EnforcementState, MarkLayout
from sgagent.verify import Outcome
from sgagent.verify.expectation import SessionMemory
from sgagent.verify.proof import Proof

QUIET_SECONDS = 0.5
"""After the last change; the table is listed then, so that a row of changes is proved once."""

LONGEST_WAIT_SECONDS = 10.0
"""After a change, where others follow without such a pause; the table is listed between two of them then."""

LONGEST_HOLD_SECONDS = 0.5
"""That a step waits for such a listing, once in the time above, and only if the newest one took less."""

FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS = 1.0, 300.0
"""Until a process that proves is started in the place of one that ended."""


@dataclass(slots=True)
class _Wanted:
    """The next proof, and the change of the table that it belongs to."""

    change: int = 0
    policy: ResolvedPolicy | None = None
    state: EnforcementState | None = None
    proved: int = 0
    """The change of which the newest proof was."""

    is_stepping: bool = False
    holds_steps: bool = False
    """Whether the next step waits for a listing."""

    is_over: bool = False
    condition: threading.Condition = field(default_factory=threading.Condition)


class Verification:
    """Have each change of the table proved, from a thread of its own."""

    def __init__(
        self,
        open_listing: Callable[[], socket.socket],
        layout: MarkLayout,
        log: EventLog,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        longest_seconds: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        """Prove nothing yet.

        Args:
            open_listing: has the table listed; may be called from any thread.
            layout: our bits of the mark.
            log: the log.
            quiet_seconds: after the last change.
            longest_seconds: after a change that others follow.
        """
        self._open_listing = open_listing
        self._layout = layout
        self._log = log
        self.newest: ProofReport | None = None
        """What the newest proof came to; None before the first. May be read from any thread."""

        self._quiet_seconds = quiet_seconds
        self._longest_seconds = longest_seconds
        self._prover: Prover | None = None
        self._restart = RetryDelay(FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS)
        self._listing_seconds = 0.0
        """That the newest listing took."""

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
                if self._prover is not None:
                    self._prover.kill()
            thread.join()

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Count no listing that comes while the agent is in a step, which may change the table."""
        wanted = self._wanted
        with wanted.condition:
            wanted.condition.wait_for(lambda: not wanted.holds_steps, LONGEST_HOLD_SECONDS)
            wanted.is_stepping, wanted.holds_steps = True, False
            wanted.condition.notify_all()
        try:
            yield
        finally:
            with wanted.condition:
                wanted.is_stepping = False
                wanted.condition.notify_all()

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
        wanted = self._wanted
        while (change := self._wait_for_change()) is not None:
            try:
                self._prove(change)
                self._restart.after_success()
            except (ProverLostError, OSError) as error:
                self._close_prover()
                if wanted.is_over:
                    return
                self._log.error("verification_ended", reason=str(error))
                self._say_unknown(str(error))
                with wanted.condition:
                    wanted.condition.wait_for(lambda: wanted.is_over, self._restart.after_failure())
        self._close_prover()

    def _close_prover(self) -> None:
        with self._wanted.condition:
            prover, self._prover = self._prover, None
        if prover is not None:
            prover.close()

    def _wait_for_change(self) -> int | None:
        """Return the number of the change to prove, after a pause or the longest wait; None at the end."""
        wanted, latest = self._wanted, math.inf
        with wanted.condition:
            while not wanted.is_over:
                if wanted.proved == wanted.change:
                    wanted.condition.wait()
                    continue
                now = time.monotonic()
                latest = min(latest, now + self._longest_seconds)
                if wanted.is_stepping:
                    wanted.condition.wait()
                elif now >= latest:
                    wanted.holds_steps = self._listing_seconds < LONGEST_HOLD_SECONDS
                    return wanted.change
                elif not wanted.condition.wait(min(self._quiet_seconds, latest - now)) and (
                    now + self._quiet_seconds <= latest
                ):
                    return wanted.change
        return None

    def _prove(self, change: int) -> None:
        """Prove the table after a change; what comes of it counts only if the listing was of no other.

        Raises:
            ProverLostError: the process that proves has ended.
            OSError: it can't be started.
        """
        wanted = self._wanted
        policy, state = wanted.policy, wanted.state
        is_of_change = False
        prover = self._running_prover()
        if policy is None or wanted.is_over:
            return
        began = time.monotonic()

        def listed() -> None:
            nonlocal is_of_change
            self._listing_seconds = time.monotonic() - began
            with wanted.condition:
                wanted.condition.wait_for(lambda: not wanted.is_stepping or wanted.is_over)
                is_of_change = wanted.change == change
                self._release_steps()

        try:
            request = ProofRequest(policy=policy, memory=self._memory(state))
            answer = prover.prove(request, self._open_listing(), listed)
        except SgagentError as error:
            wanted.proved = change
            self._say_unknown(str(error))
            return
        finally:
            with wanted.condition:
                self._release_steps()
        if is_of_change:
            wanted.proved = change
            self._say(answer, state)

    def _running_prover(self) -> Prover:
        """Return the process that proves; start it if there is none."""
        prover = self._prover or Prover()
        with self._wanted.condition:
            self._prover = prover
        return prover

    def _release_steps(self) -> None:
        self._wanted.holds_steps = False
        self._wanted.condition.notify_all()

    def _say_unknown(self, reason: str) -> None:
        """Report that a change could not be proved."""
        proof = Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=(reason,))
        self._say(ProofAnswer.of(proof, 0.0), self._wanted.state)

    def _memory(self, state: EnforcementState | None) -> SessionMemory | None:
        """Return what marks mean; None where this agent does not know, and the table says it."""
        if state is None:
            return None
        return SessionMemory(mask=self._layout.mask, generation=state.generation, slots=state.slots)

    def _say(self, answer: ProofAnswer, state: EnforcementState | None) -> None:
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
