"""Proofs in the background: after each change, another process proves the table that the kernel lists.

That process has no privilege, and ends when there was nothing to prove for a while. The applier lists the
table by a process of its own. So neither a listing nor a proof is in the way of the next change, but for one
case: changes that never pause.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sgagent.agent.prover import ProofRequest, Prover, ProverLostError
from sgagent.agent.status import Durations, ProofReport
from sgagent.agent.step import EventLog, Step, StepEnd
from sgagent.agent.threads import running_thread
from sgagent.core.errors import SgagentError
from sgagent.core.guardrails import ResolvedGuardrail
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.retry import RetryDelay
from sgagent.nft.marks import EnforcementState, MarkLayout
from sgagent.verify import Outcome

QUIET_SECONDS = 0.5
"""After the last change; the table is listed then, so that a row of changes is proved once."""

LONGEST_WAIT_SECONDS = 10.0
"""After a change, where others follow without such a pause; the table is listed between two of them then."""

LONGEST_HOLD_SECONDS = 0.5
"""That a step waits for such a listing, once in the time above, and only if the newest one took less."""

IDLE_SECONDS = 15.0
"""Without anything to prove, after which the process that proves ends and frees its memory."""

FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS = 1.0, 300.0
"""Until a process that proves is started in the place of one that ended."""


@dataclass(eq=False)
class Verification:
    """Have each change of the table proved, from a thread of its own, while it runs."""

    open_listing: Callable[[], socket.socket]
    """Has the table listed; may be called from any thread."""

    layout: MarkLayout
    """Our bits of the mark."""

    event_log: EventLog
    wake: Callable[[], object] = lambda: None
    """Called when there is another :attr:`newest`, from the thread that proves."""

    quiet_seconds: float = QUIET_SECONDS
    """After the last change."""

    longest_seconds: float = LONGEST_WAIT_SECONDS
    """After a change that others follow."""

    idle_seconds: float = IDLE_SECONDS
    """After a proof, until the process that proves ends."""

    def __post_init__(self) -> None:
        """Prove nothing yet."""
        self.durations = Durations()
        """How long proofs took. May be read from any thread."""

        self._report: tuple[int, ProofReport] | None = None
        """The newest proof's change and report."""

        self._prover: Prover | None = None
        self._restart = RetryDelay(FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS)
        self._listing_seconds = 0.0
        """That the newest listing took."""

        self._change = self._proved = 0
        """The newest change of the table, and the newest one that needs no further proof."""

        self._is_unknown = False
        """Whether the policy of the table is not known, since a step did not come to its end."""

        self._version: str | None = None
        """The snapshot in force."""

        self._policy: ResolvedPolicy | None = None
        self._state: EnforcementState | None = None
        """The policy of the table since that change."""

        self._guardrails: tuple[ResolvedGuardrail, ...] = ()
        """What must hold on it."""

        self._is_stepping = self._is_over = False
        self._holds_steps = False
        """Whether the next step waits for a listing."""

        self._changed = threading.Condition()

    def running(self) -> contextlib.AbstractContextManager[None]:
        """Prove until the context is left."""
        return running_thread("verification", self._work, self._end)

    def _end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
            if self._prover is not None:
                self._prover.kill()

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Count no listing that comes while the agent is in a step, which may change the table."""
        with self._changed:
            self._changed.wait_for(lambda: not self._holds_steps, LONGEST_HOLD_SECONDS)
            self._is_stepping, self._holds_steps = True, False
            self._changed.notify_all()
        try:
            yield
        except SgagentError:
            self._is_unknown = True
            raise
        finally:
            with self._changed:
                self._is_stepping = False
                self._changed.notify_all()

    def follow(self, step: Step) -> None:
        """Have the table proved, if a step changed it or found it not proved yet; called within it.

        A proof is of a policy. Where another snapshot comes to the same policy on this host, the proof is of
        that one from then on.
        """
        if step.outcome is StepEnd.REFUSED and not step.is_interim:
            return  # no verdict was changed
        if step.policy is None or step.outcome not in (StepEnd.APPLIED, StepEnd.UNCHANGED):
            self._is_unknown = True
            return
        with self._changed:
            subject = step.policy, step.guardrails.statements
            is_another = subject != (self._policy, self._guardrails)
            if self._is_unknown or step.outcome is StepEnd.APPLIED or is_another:
                self._change += 1
            self._is_unknown = False
            self._policy, self._guardrails = subject
            self._state = step.state or self._state
            self._version = step.version or self._version
            if self._report is not None:
                change, report = self._report
                self._report = change, replace(report, version=self._version)

    @property
    def newest(self) -> ProofReport | None:
        """Return the report of the proof of the table in force; None until that was proved.

        May be called from any thread.
        """
        with self._changed:
            if self._report is None or self._is_unknown or self._report[0] != self._change:
                return None
            return self._report[1]

    def _work(self) -> None:
        """Prove the newest change again and again."""
        while (change := self._wait_for_change()) is not None:
            if change == self._proved:
                self._close_prover()
                continue
            try:
                self._prove(change)
                self._restart.after_success()
            except (ProverLostError, OSError) as error:
                self._close_prover()
                if self._is_over:
                    return
                self.event_log.error("verification_ended", reason=str(error))
                self._report_unknown(change, str(error))
                with self._changed:
                    self._changed.wait_for(lambda: self._is_over, self._restart.after_failure())
        self._close_prover()

    def _close_prover(self) -> None:
        with self._changed:
            prover, self._prover = self._prover, None
        if prover is not None:
            prover.close()

    def _wait_for_change(self) -> int | None:
        """Return the number of the change to prove, after a pause or the longest wait; None at the end.

        The number of the change that was proved says that none came for a while.
        """
        latest = math.inf
        with self._changed:
            while not self._is_over:
                if self._proved == self._change:
                    idle = None if self._prover is None else self.idle_seconds
                    # A step that changes nothing wakes this thread, too.
                    if not self._changed.wait_for(
                        lambda: self._is_over or self._proved != self._change, idle
                    ):
                        return self._proved
                    continue
                now = time.monotonic()
                latest = min(latest, now + self.longest_seconds)
                if self._is_stepping:
                    self._changed.wait()
                elif now >= latest:
                    self._holds_steps = self._listing_seconds < LONGEST_HOLD_SECONDS
                    return self._change
                elif not self._changed.wait(min(self.quiet_seconds, latest - now)) and (
                    now + self.quiet_seconds <= latest
                ):
                    return self._change
        return None

    def _is_needed(self) -> bool:
        return self._is_over or self._proved != self._change

    def _prove(self, change: int) -> None:
        """Prove the table after a change, unless the listing was of another.

        Raises:
            ProverLostError: the process that proves has ended.
            OSError: it can't be started.
        """
        policy, state, guardrails = self._policy, self._state, self._guardrails
        prover = self._prover or Prover()
        with self._changed:
            self._prover = prover
        if policy is None or self._is_over:
            return
        began = time.monotonic()

        def is_of_change() -> bool:
            self._listing_seconds = time.monotonic() - began
            with self._changed:
                self._changed.wait_for(lambda: not self._is_stepping or self._is_over)
                self._release_steps()
                return self._change == change

        try:
            request = ProofRequest(policy=policy, mask=self.layout.mask, state=state, guardrails=guardrails)
            answer = prover.prove(request, self.open_listing(), is_of_change)
        except SgagentError as error:
            self._proved = change
            self._report_unknown(change, str(error))
            return
        finally:
            with self._changed:
                self._release_steps()
        if answer is not None:
            self._proved = change
            report = answer.report
            found = ProofReport(
                outcome=answer.outcome,
                generation=None if state is None else state.generation,
                seconds=report["seconds"],
                at=time.time(),
                cells=report["cells"],
                unsupported=(*report["unsupported"], *report["guardrails_unsupported"]),
                counterexample=report["counterexample"] or next(iter(report["guardrails"]), None),
                description=answer.description,
            )
            self._finish(change, found)

    def _release_steps(self) -> None:
        self._holds_steps = False
        self._changed.notify_all()

    def _report_unknown(self, change: int, reason: str) -> None:
        """Report that a change could not be proved."""
        state = self._state
        found = ProofReport(
            outcome=Outcome.UNKNOWN,
            generation=None if state is None else state.generation,
            seconds=0.0,
            at=time.time(),
            unsupported=(reason,),
            description=(f"unknown: the table in the kernel was not compared with the policy: {reason}",),
        )
        self._finish(change, found)

    def _finish(self, change: int, found: ProofReport) -> None:
        """Report a proof's result, of the snapshot that is in force by then."""
        if found.outcome is Outcome.REFUTED:
            self.event_log.error("table_refuted", packet=found.counterexample, description=found.description)
        elif found.outcome is Outcome.UNKNOWN:
            self.event_log.warning("table_not_verified", reasons=found.unsupported)
        with self._changed:
            self._report = change, replace(found, version=self._version)
            self.durations = self.durations.with_one(found.seconds)
        self.wake()
