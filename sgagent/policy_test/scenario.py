"""Define packet tests, and the outcome of each.

One file of packets serves several judges: the specification, the kernel, and the tests' tracer of the
compiled ruleset.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import assert_never

from sgagent.core.errors import Origin
from sgagent.core.evaluate import DecidedBy, Decision, Packet, Tracking, as_opener, evaluate
from sgagent.core.host_facts import HandBinding
from sgagent.core.model import Policy
from sgagent.core.policy import ResolvedPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDecision:
    """The verdict that a packet must get, and what must decide it. None accepts any value."""

    verdict: Policy
    decided_by: DecidedBy | None = None
    rule_id: str | None = None
    security_group_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedPacket:
    """A packet that opens a session, and the verdict that it must get."""

    name: str
    """Unique in its file."""

    packet: Packet
    expected: ExpectedDecision
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedReply:
    """The reply to a packet, through the same interface, and the verdict that it must get (§6.1)."""

    name: str
    opener: ExpectedPacket
    expected: ExpectedDecision
    origin: Origin


ExpectedTraffic = ExpectedPacket | ExpectedReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One host, its bindings, and the packets to test in order."""

    definitions: str
    """The path of the documents, relative to the file of packets."""

    bindings: tuple[HandBinding, ...]
    """Sorted by interface."""

    traffic: tuple[ExpectedTraffic, ...]

    @property
    def packets(self) -> tuple[ExpectedPacket, ...]:
        """Return the packets that open sessions."""
        return tuple(entry for entry in self.traffic if isinstance(entry, ExpectedPacket))

    @property
    def replies(self) -> tuple[ExpectedReply, ...]:
        """Return the replies."""
        return tuple(entry for entry in self.traffic if isinstance(entry, ExpectedReply))


def disagreement(expected: ExpectedDecision, decision: Decision) -> str | None:
    """Return how a decision differs from the expected one, as a clause; None if it agrees."""
    rule = decision.rule
    comparisons = (
        ("verdict", expected.verdict.value, decision.verdict.value),
        ("decided_by", expected.decided_by and expected.decided_by.value, decision.decided_by.value),
        ("rule_id", expected.rule_id, rule and rule.rule_id),
        ("security_group_id", expected.security_group_id, rule and rule.security_group_id),
    )
    return next(
        (f"{name} is {seen}, not {due}" for name, due, seen in comparisons if due not in (None, seen)), None
    )


class PacketResult(enum.Enum):
    """The result of one packet test."""

    PASSED = "passed"
    FAILED = "failed"
    LEFT_OUT = "left_out"
    """The judge cannot test such a packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The reason why a judge cannot test a packet."""

    reason: str
    """A clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketOutcome:
    """A judge's decision on a packet, beside the expected one."""

    entry: ExpectedTraffic
    answer: Decision | LeftOut
    suspicion: str = ""
    """Why the judge itself may be wrong, as a clause."""

    @property
    def fault(self) -> str | None:
        """Return how the decision differs from the expected one; None if it agrees."""
        if isinstance(self.answer, LeftOut):
            return None
        return disagreement(self.entry.expected, self.answer)

    @property
    def result(self) -> PacketResult:
        """Return the result of the test."""
        if isinstance(self.answer, LeftOut):
            return PacketResult.LEFT_OUT
        return PacketResult.PASSED if self.fault is None else PacketResult.FAILED


def decide_by_specification(policy: ResolvedPolicy, entry: ExpectedTraffic) -> Decision:
    """Return the specification's decision on a packet.

    A dropped packet opens no session, so its reply gets the same decision.
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
