"""Packets that a policy is tested by: what must pass, what must not, and what decides.

The format is described in ``docs/packets.md``. One corpus of it serves several judges: the specification, a
tracer of the compiled ruleset, and the kernel.
"""

from sgagent.packets.outcome import LeftOut, Outcome, Result, specified
from sgagent.packets.parse import parse_packets
from sgagent.packets.scenario import (
    ExpectedPacket,
    ExpectedReply,
    ExpectedTraffic,
    Judgement,
    Scenario,
    disagreement,
)

__all__ = [
    "ExpectedPacket",
    "ExpectedReply",
    "ExpectedTraffic",
    "Judgement",
    "LeftOut",
    "Outcome",
    "Result",
    "Scenario",
    "disagreement",
    "parse_packets",
    "specified",
]
