"""``sgagent test``: run packet tests against policies, and report as a test runner does."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never
from xml.etree import ElementTree as ET  # it writes here, and reads nothing

from sgagent.cli.inputs import accept_or_refuse, fetch, latest_time, load_settings, read_bounded
from sgagent.cli.output import Colour, painted, progress
from sgagent.core.binding import HostFacts, bind
from sgagent.core.errors import DocumentError, Problem, UsageError, printable
from sgagent.core.evaluate import DecidedBy, Decision, Packet
from sgagent.core.model import Protocol, address_text
from sgagent.core.policy import ResolvedPolicy, ResolvedRule
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import Limits
from sgagent.nft.marks import MarkLayout
from sgagent.policy_test.kernel_judge import judge_by_kernel
from sgagent.policy_test.scenario import (
    ExpectedDecision,
    ExpectedPacket,
    ExpectedReply,
    ExpectedTraffic,
    LeftOut,
    PacketOutcome,
    PacketResult,
    Scenario,
    decide_by_specification,
    parse_packets,
)
from sgagent.ports import Delivery
from sgagent.settings import Settings
from sgagent.settings.sources import FileSourceSettings
from sgagent.sources.files.reader import is_document_name


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
        address_text(packet.family, address) for address in (packet.source, packet.destination)
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


USUAL_NAME = "packets.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        type=Path,
        help=f"a file of packets, or a directory with {USUAL_NAME} anywhere in it (default: {USUAL_NAME}"
        " beside the definitions); the last may be a file or directory of documents, as --definitions",
    )
    parser.add_argument(
        "--definitions",
        metavar="PATH",
        type=Path,
        help="a file or directory of documents, instead of those that the files of packets name",
    )
    parser.add_argument(
        "--kernel", action="store_true", help="send real packets through the kernel, in a private network"
    )
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    parser.add_argument("--verbose", action="store_true", help="list passed packets too, and what decided")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="also write the results as JUnit XML")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Judge the packets and print what came of it; exit with 1 if anything is not as expected."""
    settings = load_settings(options)
    suites = _suites(settings, options)
    layout = MarkLayout(settings.enforcement.mark_mask) if options.kernel else None
    reports = [_report(suite, layout) for suite in suites]
    if options.junit:
        _write(options.junit, as_junit(reports))
    if options.json:
        print(json.dumps(as_json(reports)))
    else:
        print("\n".join(lines(reports, is_verbose=options.verbose)))
    failed = any(outcome.result is PacketResult.FAILED for report in reports for outcome in report.outcomes)
    return 1 if failed else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suite:
    """A file of packets and the policy that they are judged by."""

    file: Path
    definitions: Path
    scenario: Scenario
    policy: ResolvedPolicy


def _report(suite: _Suite, layout: MarkLayout | None) -> SuiteReport:
    """Judge by the specification or, with a layout for its marks of sessions, have the kernel do so."""
    traffic = suite.scenario.traffic
    doing = "judging packets" if layout is None else "sending packets"
    with progress(f"{suite.file}: {doing}", len(traffic)) as advance:
        if layout is None:
            outcomes = tuple(_outcomes_by_specification(suite.policy, traffic, advance))
        else:
            outcomes = judge_by_kernel(suite.policy, traffic, layout, advance)
    return SuiteReport(file=str(suite.file), definitions=str(suite.definitions), outcomes=outcomes)


def _outcomes_by_specification(
    policy: ResolvedPolicy, traffic: Iterable[ExpectedTraffic], tick: Callable[[], None]
) -> Iterator[PacketOutcome]:
    for entry in traffic:
        yield PacketOutcome(entry=entry, answer=decide_by_specification(policy, entry))
        tick()


def _suites(settings: Settings, options: argparse.Namespace) -> list[_Suite]:
    """Read the packet files and the policies that they test.

    Raises:
        UsageError: a path does not exist or can't be read.
        DocumentError: packet files, or the definitions that they name, have errors; lists all of them.
    """
    paths, definitions = _told_apart(options.paths, options.definitions)
    scenarios = _scenarios(tuple(_files(paths, definitions, settings)))
    reader = _Reader(settings, definitions)
    suites = [reader.suite(file, scenario) for file, scenario in scenarios]
    accept_or_refuse(dict.fromkeys(reader.problems), settings, options)
    return suites


def _told_apart(paths: Sequence[Path], definitions: Path | None) -> tuple[Sequence[Path], Path | None]:
    """Return the paths of packets, and the definitions, which may be the last of the paths."""
    if definitions is None and paths and _holds_documents(paths[-1]):
        return paths[:-1], paths[-1]
    return paths, definitions


def _holds_documents(path: Path) -> bool:
    """Return whether a path holds definitions rather than packets."""
    if path.is_dir():
        return next(path.rglob(USUAL_NAME), None) is None and any(
            is_document_name(entry.name) for entry in path.iterdir()
        )
    if not path.is_file():
        return False
    text = read_bounded(path, Limits().document_bytes, "it")
    return _PACKETS.search(text) is None and _OBJECTS.search(text) is not None


_PACKETS = re.compile(rb"""^[\s{]*["']?packets["']?\s*:""", re.MULTILINE)
_OBJECTS = re.compile(
    rb"""^[\s{\[]*["']?(security_groups|network_interfaces|prefix_lists|port_lists|RequestId)["']?\s*:""",
    re.MULTILINE,
)
"""Keys that packet files, and documents, have at the top."""


def _files(paths: Sequence[Path], definitions: Path | None, settings: Settings) -> Iterator[Path]:
    """Yield the files of packets that are meant, in order."""
    for path in paths or [_beside(definitions, settings)]:
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.rglob(USUAL_NAME))
        if not found:
            raise UsageError(f"{path}: there is no {USUAL_NAME} in this directory")
        yield from found


def _beside(definitions: Path | None, settings: Settings) -> Path:
    """Return the default packet file, which lies beside the definitions.

    Raises:
        UsageError: the definitions are not on this host, or nothing is beside them.
    """
    if definitions is None and isinstance(settings.source, FileSourceSettings):
        definitions = settings.source.path
    if definitions is None:
        raise UsageError("the definitions are not on this host: name a file of packets")
    beside = definitions.absolute().parent / USUAL_NAME
    if not beside.exists():
        raise UsageError(f"{beside}: there is no such file: name a file of packets")
    return beside


def _scenarios(files: Iterable[Path]) -> list[tuple[Path, Scenario]]:
    """Read the packet files; collect the errors of all files before raising."""
    scenarios: list[tuple[Path, Scenario]] = []
    problems: list[Problem] = []
    for file in files:
        try:
            content = read_bounded(file, Limits().document_bytes + 1, "the packets")
            scenarios.append((file, parse_packets(content, str(file))))
        except DocumentError as error:
            problems.extend(error.problems)
    if problems:
        raise DocumentError(problems)
    return scenarios


class _Reader:
    """Reads definitions, each once, and keeps what is wrong with them."""

    def __init__(self, settings: Settings, definitions: Path | None) -> None:
        self.problems: list[Problem] = []
        self._settings = settings
        self._definitions = definitions
        self._deliveries: dict[Path, Delivery] = {}

    def suite(self, file: Path, scenario: Scenario) -> _Suite:
        """Return a file of packets with the policy that its definitions come to on what it binds."""
        definitions = self._definitions or file.parent / scenario.definitions
        if definitions not in self._deliveries:
            self._deliveries[definitions] = self._fetch(definitions, file)
        delivery = self._deliveries[definitions]
        bound = bind(delivery.snapshot, scenario.bindings, HostFacts(), automatically=False)
        exemptions = Exemptions(platform=self._settings.platform, failsafe=self._settings.failsafe)
        at = scenario.at or latest_time(self._settings)
        resolution = resolve(delivery.snapshot, bound, exemptions, at=at, names=scenario.names)
        self.problems += (*delivery.problems, *resolution.problems)
        policy = resolution.policy.identifying(scenario.links)
        return _Suite(file=file, definitions=definitions, scenario=scenario, policy=policy)

    def _fetch(self, definitions: Path, file: Path) -> Delivery:
        try:
            return fetch(self._settings, definitions)
        except UsageError as error:
            where = "--definitions" if self._definitions else f"{file}: definitions"
            raise UsageError(f"{where}: {error}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--junit {printable(str(path))}: can't be written: {error.strerror}") from error
