"""Say what is expected of a policy, as values."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.errors import Origin
from sgagent.core.evaluate import DecidedBy, Decision, Packet
from sgagent.core.host_facts import HandBinding
from sgagent.core.model import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What must become of a packet, and by what; None is not looked at."""

    verdict: Policy
    decided_by: DecidedBy | None = None
    rule_id: str | None = None
    security_group_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedPacket:
    """A packet that opens a session, and what must become of it."""

    name: str
    """Unique in its file."""

    packet: Packet
    expected: Judgement
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedReply:
    """The answer to a packet, through the interface that it came by, and what must become of it (§6.1)."""

    name: str
    opener: ExpectedPacket
    expected: Judgement
    origin: Origin


ExpectedTraffic = ExpectedPacket | ExpectedReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One host, what is bound on it, and packets to judge in order."""

    definitions: str
    """Where the documents are, relative to the file of the scenario."""

    bindings: tuple[HandBinding, ...]
    """Sorted by interface."""

    traffic: tuple[ExpectedTraffic, ...]

    @property
    def packets(self) -> tuple[ExpectedPacket, ...]:
        """Return the packets that open sessions."""
        return tuple(entry for entry in self.traffic if isinstance(entry, ExpectedPacket))

    @property
    def replies(self) -> tuple[ExpectedReply, ...]:
        """Return the packets that answer others."""
        return tuple(entry for entry in self.traffic if isinstance(entry, ExpectedReply))


def disagreement(expected: Judgement, decision: Decision) -> str | None:
    """Return how a decision differs from what was expected, as a clause; None where it does not."""
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
