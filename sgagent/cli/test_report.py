"""The report of packet tests: as a test runner prints it, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never
from xml.etree import ElementTree as ET  # it writes here, and reads nothing

from sgagent.analysis.flow_text import address_text
from sgagent.cli.output import Colour, painted
from sgagent.core.errors import printable
from sgagent.core.evaluate import DecidedBy, Decision, Packet
from sgagent.core.model import Protocol
from sgagent.core.policy import ResolvedRule
from sgagent.policy_test.scenario import (
    ExpectedDecision,
    ExpectedPacket,
    ExpectedReply,
    ExpectedTraffic,
    LeftOut,
    PacketOutcome,
    PacketResult,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteReport:
    """What came of one file of packets."""

    file: str
    definitions: str
    outcomes: tuple[PacketOutcome, ...]

    def count(self, result: PacketResult) -> int:
        """Return how many expectations came to this."""
        return sum(outcome.result is result for outcome in self.outcomes)


def lines(reports: Sequence[SuiteReport], *, is_verbose: bool) -> Iterator[str]:
    """Yield what people read: each file with what failed in it, and the sum at the end.

    Args:
        reports: of each file.
        is_verbose: whether what passed is named, too.
    """
    for report in reports:
        yield printable(f"{report.file}: ") + _counts([report])
        for outcome in report.outcomes:
            if is_verbose or outcome.result is not PacketResult.PASSED:
                yield from _outcome_lines(outcome)
    if len(reports) > 1 or is_verbose:
        yield ""
        yield _counts(reports)


def _counts(reports: Iterable[SuiteReport]) -> str:
    """Return how many failed, passed and were left out, the worst first."""
    counts = Counter(outcome.result for report in reports for outcome in report.outcomes)
    parts = [
        painted(f"{counts[result]} {word}", colour)
        for result, word, colour in _WORDS
        if counts[result] or (result is PacketResult.PASSED and not counts[PacketResult.FAILED])
    ]
    return ", ".join(parts)


_WORDS = (
    (PacketResult.FAILED, "failed", Colour.RED),
    (PacketResult.PASSED, "passed", Colour.GREEN),
    (PacketResult.LEFT_OUT, "left out", Colour.YELLOW),
)


def _outcome_lines(outcome: PacketOutcome) -> Iterator[str]:
    word, colour = next((word, colour) for result, word, colour in _WORDS if result is outcome.result)
    place = f":{outcome.entry.origin.line}" if outcome.entry.origin.line else ""
    shown = word.upper() if outcome.result is PacketResult.FAILED else word
    yield f"  {painted(shown, colour)} " + printable(f"{outcome.entry.name}: {detail(outcome)}")
    if outcome.result is PacketResult.FAILED:
        yield printable(f"    {packet_text(outcome.entry)} ({outcome.entry.origin.file}{place})")


def detail(outcome: PacketOutcome) -> str:
    """Return the verdict for a packet; if the test failed, also the expected verdict."""
    match outcome.answer:
        case LeftOut():
            return outcome.answer.reason
        case Decision():
            got = decision_text(outcome.answer)
        case _:
            assert_never(outcome.answer)
    if outcome.result is PacketResult.PASSED:
        return got
    text = f"expected {expectation_text(outcome.entry.expected)}, got {got}"
    behind = [rule for rule in outcome.answer.shadowed if rule.rule_id == outcome.entry.expected.rule_id]
    if behind:
        text += f"; {behind[0].rule_id} matches too, but comes later"
    return f"{text}; {outcome.suspicion}" if outcome.suspicion else text


def expectation_text(expected: ExpectedDecision) -> str:
    """Return what was expected, as far as it was said."""
    words = expected.verdict.value
    if expected.rule_id:
        words += f" by {expected.rule_id}"
    elif expected.decided_by:
        words += f" by {_step(expected.decided_by)}"
    return words + (f" of {expected.security_group_id}" if expected.security_group_id else "")


def decision_text(decision: Decision) -> str:
    """Return a verdict and what it comes from."""
    by = _rule_text(decision.rule) if decision.rule else _step(decision.decided_by)
    return f"{decision.verdict.value} by {by}"


def _rule_text(rule: ResolvedRule) -> str:
    where = f"priority {rule.priority}, object {rule.peer.name}"
    return f"{rule.rule_id} of {rule.security_group_id} ({where})"


def _step(decided_by: DecidedBy) -> str:
    """Return a step with an article where English wants one: ``default``, ``a rule``."""
    return {DecidedBy.RULE: "a rule"}.get(decided_by, decided_by.value)


def packet_text(entry: ExpectedTraffic) -> str:
    """Return what is sent."""
    match entry:
        case ExpectedPacket():
            return _packet_text(entry.packet)
        case ExpectedReply():
            return f"the answer to {_packet_text(entry.opener.packet)}"
        case _:
            assert_never(entry)


def _packet_text(packet: Packet) -> str:
    source, destination = (
        address_text(address, packet.family) for address in (packet.source, packet.destination)
    )
    if packet.source_port is not None:
        source += f" port {packet.source_port}"
    if packet.destination_port is not None:
        destination += f" port {packet.destination_port}"
    protocol = str(Protocol(packet.protocol))
    kind = "" if packet.icmp_type is None else f" type {packet.icmp_type}"
    return f"{packet.direction.value} {protocol}{kind} from {source} to {destination} on {packet.interface}"


def as_json(reports: Sequence[SuiteReport]) -> dict[str, object]:
    """Return the results as the object that scripts read."""
    return {
        **{result.value: sum(report.count(result) for report in reports) for result in PacketResult},
        "files": [
            {
                "file": report.file,
                "definitions": report.definitions,
                "tests": [_outcome_json(outcome) for outcome in report.outcomes],
            }
            for report in reports
        ],
    }


def _outcome_json(outcome: PacketOutcome) -> dict[str, object]:
    entry, expected = outcome.entry, outcome.entry.expected
    return {
        "name": entry.name,
        "line": entry.origin.line or None,
        "result": outcome.result.value,
        "packet": packet_text(entry),
        "expected": {
            "verdict": expected.verdict.value,
            "decided_by": expected.decided_by.value if expected.decided_by else None,
            "rule_id": expected.rule_id,
            "security_group_id": expected.security_group_id,
        },
        "got": None if isinstance(outcome.answer, LeftOut) else _decision_json(outcome.answer),
        "detail": detail(outcome),
    }


def _decision_json(decision: Decision) -> dict[str, object]:
    rule = decision.rule
    return {
        "verdict": decision.verdict.value,
        "decided_by": decision.decided_by.value,
        "rule_id": rule.rule_id if rule else None,
        "security_group_id": rule.security_group_id if rule else None,
        "priority": rule.priority if rule else None,
        "shadowed": [shadowed.rule_id for shadowed in decision.shadowed],
    }


def as_junit(reports: Sequence[SuiteReport]) -> str:
    """Return the results; a file of packets is a suite, and each packet a case."""
    root = ET.Element("testsuites", {"name": "sgagent test", **_suite_counts(reports)})
    for report in reports:
        suite = ET.SubElement(root, "testsuite", {"name": printable(report.file), **_suite_counts([report])})
        for outcome in report.outcomes:
            _add_case(suite, report, outcome)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite_counts(reports: Sequence[SuiteReport]) -> dict[str, str]:
    return {
        "tests": str(sum(len(report.outcomes) for report in reports)),
        "failures": str(sum(report.count(PacketResult.FAILED) for report in reports)),
        "errors": "0",
        "skipped": str(sum(report.count(PacketResult.LEFT_OUT) for report in reports)),
    }


def _add_case(suite: ET.Element, report: SuiteReport, outcome: PacketOutcome) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=printable(report.file),
        name=printable(outcome.entry.name),
        file=printable(report.file),
        line=str(outcome.entry.origin.line),
    )
    message = printable(detail(outcome))
    match outcome.result:
        case PacketResult.FAILED:
            failure = ET.SubElement(case, "failure", type="disagreement", message=message)
            failure.text = printable(packet_text(outcome.entry))
        case PacketResult.LEFT_OUT:
            ET.SubElement(case, "skipped", message=message)
        case PacketResult.PASSED:
            pass
        case _:
            assert_never(outcome.result)
