"""The doctor in the agent: it looks at the host from a thread of its own, and again after changes.

A process of the applier reads the ruleset, and this thread looks at it: a tenth of a millisecond for each
rule of others. No step waits for that, and the pauses are much longer than the looks.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sgagent.agent.step import EventLog, Step
from sgagent.agent.threads import running_thread
from sgagent.analysis.doctor.findings import Diagnosis
from sgagent.analysis.doctor.policy_fact import PolicyFact, policy_fact
from sgagent.core.binding import NO_FACTS, HostFacts
from sgagent.dataplane.privileges import give_back

SHORTEST_PAUSE_SECONDS = 30.0
"""Between two looks, if something changed."""

LEAST_REST = 60
"""How many times as long as the last look took the pause is at least."""

LONGEST_PAUSE_SECONDS = 600.0
"""Between two looks, as not everything that matters is announced."""

FRESH_SECONDS, FRESH_RATIO = 0.2, 3
"""How long a look answers others who ask: a moment, and so many times as long as it took."""


@dataclass(eq=False, kw_only=True)
class Doctor:
    """Look for neighbours that bypass or break the policy, from a thread of its own, while it runs."""

    examine: Callable[[PolicyFact, HostFacts], Diagnosis]
    """Looks at the host: :meth:`sgagent.agent.examination.Examination.diagnose`."""

    mark_mask: int
    """Our bits of the session mark."""

    event_log: EventLog
    clock: Callable[[], float] = time.monotonic
    shortest_seconds: float = SHORTEST_PAUSE_SECONDS

    def __post_init__(self) -> None:
        """Look at nothing yet."""
        self.newest: Diagnosis | None = None
        """The newest findings; None before the first look. May be read from any thread."""

        self._subject: tuple[PolicyFact, HostFacts] | None = None
        """The policy and the links, since the first step with a policy."""

        self._fresh_until = 0.0
        self._has_changed = self._is_over = False
        self._changed = threading.Condition()
        self._looking = threading.Lock()

    def running(self) -> AbstractContextManager[None]:
        """Look until the context is left."""
        return running_thread("doctor", self._work, self._end)

    def _end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def follow(self, step: Step) -> None:
        """Look at the host again if a step has another policy or other links."""
        if step.policy is None:
            return
        subject = policy_fact(step.policy, step.facts, self.mark_mask), step.facts
        with self._changed:
            if subject != self._subject:
                self._subject, self._has_changed = subject, True
                self._changed.notify_all()

    def notify(self) -> None:
        """Look at the host again, as another process changed the ruleset; may be called from any thread."""
        with self._changed:
            self._has_changed = True
            self._changed.notify_all()

    def answer(self) -> Diagnosis:
        """Return the present findings; may be called from any thread.

        Findings of a moment ago count, so that repeated questions don't keep the agent busy.
        """
        with self._looking:
            found, is_fresh = self.newest, self.clock() < self._fresh_until
        return found if found is not None and is_fresh else self.poll()

    def poll(self) -> Diagnosis:
        """Examine the host now, and return the findings; may be called from any thread, one at a time."""
        with self._looking:
            began = self.clock()
            policy, facts = self._subject or (PolicyFact(mark_mask=self.mark_mask), NO_FACTS)
            found = self.examine(policy, facts)
            self._tell(found)
            self.newest = found
            now = self.clock()
            self._fresh_until = now + FRESH_SECONDS + FRESH_RATIO * (now - began)
        return found

    def _tell(self, found: Diagnosis) -> None:
        """Log findings that the look before had not."""
        before = set(self.newest.findings) if self.newest else set()
        for one in found.findings:
            if one not in before:
                self.event_log.warning(
                    "neighbour_found",
                    code=one.code.value,
                    severity=one.severity.value,
                    link=one.link,
                    table=one.table,
                    chain=one.chain,
                    evidence=one.evidence,
                )

    def _work(self) -> None:
        """Look after the first step, after changes, and once in a while."""
        looked, rest = -math.inf, self.shortest_seconds
        while self._wait(looked, rest):
            began = self.clock()
            self.poll()
            give_back()
            looked = self.clock()
            rest = max(self.shortest_seconds, LEAST_REST * (looked - began))

    def _wait(self, looked: float, rest: float) -> bool:
        """Wait until the next look is due; return False at the end.

        Args:
            looked: when the last one ended.
            rest: how long the pause after it is at least, in seconds.
        """
        with self._changed:
            while not self._is_over:
                pause = rest if self._has_changed else max(rest, LONGEST_PAUSE_SECONDS)
                left = looked + pause - self.clock()
                if self._subject is not None and left <= 0:
                    self._has_changed = False
                    return True
                self._changed.wait(left if self._subject is not None else None)
        return False
