"""Every packet of every example is decided as its file says, by the specification and by what is compiled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.compiler.compilation import Compiled, compile_
from sgagent.core.clauses import DecidedBy
from sgagent.core.counter_keys import RuleCounter
from sgagent.core.errors import Severity
from sgagent.core.evaluate import Packet, Tracking, evaluate
from sgagent.core.model import Direction, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.policy_test.scenario import ExpectedPacket, ExpectedReply, disagreement
from tests.corpus import Example, examples
from tests.tracer import Session, Tuple, Walk, WirePacket, trace

EXAMPLES = examples()
LAYOUT = MarkLayout(0xFFFF0000)
_UNFOLLOWED = (130, 131, 132, 133, 134, 135, 136, 143)
"""ICMPv6 types that conntrack does not follow."""

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
every_packet = pytest.mark.parametrize(
    ("example", "expected"),
    [
        pytest.param(example, expected, id=f"{example.name}: {expected.name}")
        for example in EXAMPLES
        for expected in example.scenario.packets
    ],
)
every_reply = pytest.mark.parametrize(
    ("example", "reply"),
    [
        pytest.param(example, reply, id=f"{example.name}: {reply.name}")
        for example in EXAMPLES
        for reply in example.scenario.replies
    ],
)


@every_example
def test_its_documents_are_clean(example: Example) -> None:
    """An example is free of errors, and of warnings but for the one that it is about."""
    found = [*example.parse()[1], *example.resolve().problems]
    assert not [problem for problem in found if problem.severity is Severity.ERROR]
    expected = ["priority_above_100"] if example.name.endswith("legacy-priority") else []
    assert len(found) == len(expected), found


@every_packet
def test_the_specification_decides_as_its_file_says(example: Example, expected: ExpectedPacket) -> None:
    """``evaluate`` comes to the verdict, by the step and the rule that the file names."""
    assert disagreement(expected.expected, evaluate(example.policy(), expected.packet)) is None


@every_packet
def test_the_compiled_table_decides_as_its_file_says(example: Example, expected: ExpectedPacket) -> None:
    """A walk through the compiled table ends in the verdict, and counts the rule that the file names."""
    compiled = compiled_of(example.policy())
    walk = walked(compiled, expected.packet, session_of(expected.packet))
    assert walk.accepted is (expected.expected.verdict is Policy.ACCEPT)
    keys = [compiled.counters[name] for name in walk.counted]
    rules = [key.rule_id for key in keys if isinstance(key, RuleCounter)]
    assert rules == ([expected.expected.rule_id] if expected.expected.decided_by is DecidedBy.RULE else [])


@every_reply
def test_an_answer_follows_its_session(example: Example, reply: ExpectedReply) -> None:
    """A session that was accepted lets its answers pass, in the specification and in the compiled table."""
    policy = example.policy()
    opener = reply.opener.packet
    decision = evaluate(policy, replace(opener, tracking=Tracking.ALLOWED))
    assert disagreement(reply.expected, decision) is None
    compiled, session = compiled_of(policy), session_of(opener)
    assert walked(compiled, opener, session).accepted
    assert walked(compiled, opener, session, is_reply=True).accepted


def compiled_of(policy: ResolvedPolicy) -> Compiled:
    """Return the table of a policy, as on a host that enforces it for the first time."""
    return compile_(policy, LAYOUT, first_state(policy.remembering, LAYOUT))


def walked(compiled: Compiled, packet: Packet, session: Session, *, is_reply: bool = False) -> Walk:
    """Walk the packet that opens a session, or its answer, through the table."""
    unfollowed = packet.protocol == 58 and packet.icmp_type in _UNFOLLOWED
    goes_in = (packet.direction is Direction.INGRESS) is not is_reply
    ends = (packet.source, packet.destination, packet.source_port, packet.destination_port)
    if is_reply:
        ends = (packet.destination, packet.source, packet.destination_port, packet.source_port)
    on_wire = WirePacket(
        hook="prerouting" if goes_in else "postrouting",
        interface=packet.interface,
        family=packet.family,
        source=ends[0],
        destination=ends[1],
        protocol=packet.protocol,
        source_port=ends[2],
        destination_port=ends[3],
        icmp_type=packet.icmp_type,
        hop_limit=64 if packet.hop_limit is None else packet.hop_limit,
        state="untracked" if unfollowed else "established" if is_reply else "new",
        packet_direction="reply" if is_reply else "original",
    )
    return trace(compiled.ruleset, on_wire, None if unfollowed else session)


def session_of(packet: Packet) -> Session:
    """Return what conntrack keeps of the session that a packet opens, without NAT."""
    ports = packet.source_port or 0, packet.destination_port or 0
    return Session(
        protocol=packet.protocol,
        original=Tuple(
            source=packet.source,
            destination=packet.destination,
            source_port=ports[0],
            destination_port=ports[1],
        ),
        reply=Tuple(
            source=packet.destination,
            destination=packet.source,
            source_port=ports[1],
            destination_port=ports[0],
        ),
    )
