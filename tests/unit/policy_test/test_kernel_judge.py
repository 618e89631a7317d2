"""What the kernel did is understood by the counters that moved, and held against the specification."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.compiler.compilation import Compiled, compile_
from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Decision, Packet
from sgagent.core.model import Direction, Family, Policy
from sgagent.nft import names
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.policy_test.kernel_judge import ObservedPacket, outcome
from sgagent.policy_test.scenario import ExpectedDecision, LeftOut, PacketOutcome, PacketResult
from tests.corpus import Example, examples

LAYOUT = MarkLayout(0xFFFF0000)
(WEB,) = (example for example in examples() if example.name == "three-tier/web")
ABUSER = next(entry for entry in WEB.scenario.packets if entry.name.startswith("an abuser"))


def compiled_of(example: Example) -> Compiled:
    """Return the table of an example."""
    policy = example.policy()
    return compile_(policy, LAYOUT, first_state([one.name for one in policy.interfaces], LAYOUT))


def observed(*counted: str, passed: bool) -> PacketOutcome:
    """Return what is made of the abuser's packet."""
    return outcome(WEB.policy(), compiled_of(WEB), ABUSER, ObservedPacket(passed=passed, counted=counted))


def test_the_counter_says_what_decided() -> None:
    """The rule whose counter moved is the one that the file expects, and nothing is suspect."""
    found = observed(names.rule_chain("eth0", "sgr-web-abuse"), passed=False)
    assert isinstance(found.answer, Decision)
    assert found.answer.rule is not None
    assert (found.answer.rule.rule_id, found.result) == ("sgr-web-abuse", PacketResult.PASSED)
    assert found.suspicion == ""


@pytest.mark.parametrize(
    ("counter", "decided_by"),
    (
        (names.inner_chain("eth0"), DecidedBy.INNER),
        (names.default_chain(Direction.EGRESS, "eth0"), DecidedBy.DEFAULT),
        (names.invalid_chain(Direction.INGRESS, "eth0"), DecidedBy.INVALID),
        (names.step_chain("platform", Direction.EGRESS, "eth0"), DecidedBy.ALWAYS),
        ("of another table", DecidedBy.SESSION),
    ),
)
def test_every_step_is_told_by_its_counter(counter: str, decided_by: DecidedBy) -> None:
    """What moves none of them is a session, or what no group can block."""
    found = observed(counter, passed=True)
    assert isinstance(found.answer, Decision)
    assert (found.answer.verdict, found.answer.decided_by) == (Policy.ACCEPT, decided_by)


def test_a_kernel_that_does_otherwise_is_our_fault() -> None:
    """The outcome says what the kernel did, and that the specification says something else."""
    found = observed(names.default_chain(Direction.INGRESS, "eth0"), passed=True)
    assert found.answer == Decision(verdict=Policy.ACCEPT, decided_by=DecidedBy.DEFAULT)
    assert found.result is PacketResult.FAILED
    assert found.suspicion == "this is a fault of sgagent, as the specification says drop by sgr-web-abuse"


@pytest.mark.parametrize(
    ("icmp_type", "result"),
    ((137, PacketResult.LEFT_OUT), (151, PacketResult.LEFT_OUT), (128, PacketResult.FAILED)),
)
def test_what_only_some_kernels_call_invalid_is_left_out(icmp_type: int, result: PacketResult) -> None:
    """A redirect is no fault of sgagent; a ping that is invalid is."""
    message = Packet(
        interface="eth0",
        direction=Direction.INGRESS,
        family=Family.IPV6,
        source=0x20010DB8 << 96,
        destination=0x20010DB9 << 96,
        protocol=58,
        icmp_type=icmp_type,
    )
    entry = replace(ABUSER, packet=message, expected=ExpectedDecision(verdict=Policy.ACCEPT))
    invalid = ObservedPacket(passed=False, counted=(names.invalid_chain(Direction.INGRESS, "eth0"),))
    found = outcome(WEB.policy(), compiled_of(WEB), entry, invalid)
    assert found.result is result
    assert ("fault of sgagent" in found.suspicion) is (result is PacketResult.FAILED)


def test_what_passes_uncounted_is_what_no_group_is_asked_about() -> None:
    """A packet that should be dropped and passes without a count is told as such."""
    found = observed(passed=True)
    assert isinstance(found.answer, Decision)
    assert (found.answer.decided_by, found.result) == (DecidedBy.SESSION, PacketResult.FAILED)


def test_what_was_not_sent_is_left_out() -> None:
    """It neither passes nor fails."""
    reason = LeftOut(reason="the kernel sends no such packet")
    found = outcome(WEB.policy(), compiled_of(WEB), ABUSER, reason)
    assert found.result is PacketResult.LEFT_OUT
