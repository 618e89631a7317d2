"""Hold what becomes of packets against what was expected of them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import assert_never

from sgagent.core.evaluate import Decision, Tracking, as_opener, evaluate
from sgagent.core.model import Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.packets.scenario import ExpectedPacket, ExpectedReply, ExpectedTraffic, disagreement


class Result(enum.Enum):
    """What came of one expectation."""

    PASSED = "passed"
    FAILED = "failed"
    LEFT_OUT = "left_out"
    """The judge could not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A packet that a judge can't be asked about."""

    reason: str
    """Why, as a clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a packet, beside what was expected of it."""

    entry: ExpectedTraffic
    answer: Decision | LeftOut
    suspicion: str = ""
    """Why the judge itself may be wrong, as a clause."""

    @property
    def fault(self) -> str | None:
        """Return how what became of it differs from what was expected; None where it does not."""
        if isinstance(self.answer, LeftOut):
            return None
        return disagreement(self.entry.expected, self.answer)

    @property
    def result(self) -> Result:
        """Return what came of the expectation."""
        if isinstance(self.answer, LeftOut):
            return Result.LEFT_OUT
        return Result.PASSED if self.fault is None else Result.FAILED


def specified(policy: ResolvedPolicy, entry: ExpectedTraffic) -> Decision:
    """Return what becomes of a packet by the specification.

    The answer to a packet that is dropped has no session: it is dropped by what dropped the packet.
    """
    match entry:
        case ExpectedPacket():
            return evaluate(policy, as_opener(entry.packet))
        case ExpectedReply():
            opener = as_opener(entry.opener.packet)
            opened = evaluate(policy, opener)
            if opened.verdict is Policy.DROP:
                return opened
            return evaluate(policy, replace(opener, tracking=Tracking.ALLOWED))
        case _:
            assert_never(entry)
