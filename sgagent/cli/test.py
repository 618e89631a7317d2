"""``sgagent test``: run packet tests against policies, and report as a test runner does."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from xml.etree import ElementTree as ET  # it writes here, and reads nothing

from sgagent.cli import inputs
from sgagent.cli.configuration import load_settings
from sgagent.cli.guardrails import Keeper, add_guardrails_argument
from sgagent.cli.main import option_adder
from sgagent.cli.output import Colour, decision_as_json, painted, progress
from sgagent.core.binding import HostFacts, bind
from sgagent.core.clauses import DecidedBy
from sgagent.core.errors import DocumentError, Problem, UsageError, printable
from sgagent.core.evaluate import Decision
from sgagent.core.model import Protocol, address_text
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import Limits
from sgagent.nft.marks import MarkLayout
from sgagent.policy_test.kernel_judge import judge_by_kernel
from sgagent.policy_test.scenario import (
    ExpectedDecision,
    ExpectedReply,
    ExpectedTraffic,
    LeftOut,
    PacketOutcome,
    PacketResult,
    Scenario,
    decide_by_specification,
    parse_packets,
)
from sgagent.settings import Settings
from sgagent.settings.sources import FileSourceSettings
from sgagent.sources.files.reader import is_document_name

USUAL_NAME = "packets.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    add(
        "paths PATH",
        f"a file of packets, or a directory with {USUAL_NAME} anywhere in it (default: {USUAL_NAME}"
        " beside the definitions); the last may be a file or directory of documents, as --definitions",
        nargs="*",
    )
    add(
        "--definitions PATH",
        "a file or directory of documents, instead of those that the files of packets name",
        action="append",
    )
    add_guardrails_argument(parser)
    add("--kernel", "send real packets through the kernel, in a private network")
    add("--strict", "treat warnings as errors")
    add("--verbose", "list passed packets too, and what decided")
    add("--junit FILE", "also write the results as JUnit XML")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Run the tests and print their results; exit with 1 if one failed."""
    settings = load_settings(options)
    suites = _read_suites(settings, options)
    layout = MarkLayout(settings.enforcement.mark_mask) if options.kernel else None
    suites = [_run_suite(suite, layout) for suite in suites]
    if options.junit:
        _write_junit(options.junit, suites)
    if options.json:
        print(json.dumps(_as_json(suites)))
    else:
        print("\n".join(_lines(suites, is_verbose=options.verbose)))
    return 1 if _results(suites)[PacketResult.FAILED] else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suite:
    """A file of packets, and the policy that they test."""

    file: Path
    definitions: Path
    scenario: Scenario
    policy: ResolvedPolicy
    outcomes: tuple[PacketOutcome, ...] = ()
    """Empty until the tests have run."""


def _read_suites(settings: Settings, options: argparse.Namespace) -> list[_Suite]:
    """Read the packet files and the policies that they test; read definitions that several name once.

    Raises:
        UsageError: a path does not exist or can't be read.
        DocumentError: packet files, or the definitions that they name, have errors; lists all of them.
    """
    paths, named = options.paths, options.definitions
    if named is None and paths and _holds_documents(paths[-1]):
        *paths, named = paths
    fetch, keeper = cache(partial(inputs.fetch, settings)), Keeper.of(settings, options)
    exemptions = Exemptions(platform=settings.platform, failsafe=settings.failsafe)
    suites: list[_Suite] = []
    problems: list[Problem] = []
    places: dict[Path, Path] = {}
    for file, scenario in _read_scenarios(paths or [_default_file(named, settings)]):
        definitions = named or file.parent / scenario.definitions
        definitions = places.setdefault(definitions.resolve(), definitions)  # the first of several ways
        try:
            delivery = fetch(definitions)
        except UsageError as error:
            raise UsageError(f"{'--definitions' if named else f'{file}: definitions'}: {error}") from error
        bound = bind(delivery.snapshot, scenario.bindings, HostFacts(), automatically=False)
        at = scenario.at or inputs.latest_time(settings)
        resolution = resolve(delivery.snapshot, bound, exemptions, at=at, names=scenario.names)
        resolution = keeper.here(resolution, delivery, scenario.names)
        problems += (*delivery.problems, *resolution.problems)
        policy = resolution.policy.identifying(scenario.links)
        suites.append(_Suite(file=file, definitions=definitions, scenario=scenario, policy=policy))
    inputs.accept_or_refuse(problems, settings, options)
    return suites


def _holds_documents(path: Path) -> bool:
    """Return whether a path holds definitions rather than packets."""
    if path.is_dir():
        has_documents = any(is_document_name(entry.name) for entry in path.iterdir())
        return has_documents and next(path.rglob(USUAL_NAME), None) is None
    text = inputs.read_bounded(path, Limits().document_bytes) if path.is_file() else b""
    return _PACKETS.search(text) is None and _OBJECTS.search(text) is not None


_PACKETS = re.compile(rb"""^[\s{]*["']?packets["']?\s*:""", re.MULTILINE)
_OBJECTS = re.compile(
    rb"""^[\s{\[]*["']?(security_groups|network_interfaces|prefix_lists|port_lists|RequestId)["']?\s*:""",
    re.MULTILINE,
)
"""Keys that packet files, and documents, have at the top."""


def _default_file(definitions: Path | None, settings: Settings) -> Path:
    """Return the packet file beside the definitions.

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


def _read_scenarios(paths: Iterable[Path]) -> list[tuple[Path, Scenario]]:
    """Read packet files, in order; collect the errors of all files before raising."""
    scenarios: list[tuple[Path, Scenario]] = []
    problems: list[Problem] = []
    for file in tuple(_packet_files(paths)):
        try:
            too_many = Limits().document_bytes + 1  # so many show the parser that it is too large
            content = inputs.read_bounded(file, too_many, "the packets")
            scenarios.append((file, parse_packets(content, str(file))))
        except DocumentError as error:
            problems.extend(error.problems)
    if problems:
        raise DocumentError(problems)
    return scenarios


def _packet_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the paths, and instead of a directory the packet files in it."""
    for path in paths:
        found = sorted(path.rglob(USUAL_NAME)) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path}: there is no {USUAL_NAME} in this directory")
        yield from found


def _run_suite(suite: _Suite, layout: MarkLayout | None) -> _Suite:
    """Judge the packets by the specification; with a layout for its marks, have the kernel judge them."""
    policy, traffic = suite.policy, suite.scenario.traffic
    doing = "judging packets" if layout is None else "sending packets"
    with progress(f"{suite.file}: {doing}", len(traffic)) as advance:
        if layout is not None:
            outcomes = judge_by_kernel(policy, traffic, layout, advance)
        else:
            found = []
            for entry in traffic:
                found.append(PacketOutcome(entry=entry, answer=decide_by_specification(policy, entry)))
                advance()
            outcomes = tuple(found)
    return replace(suite, outcomes=outcomes)


def _results(suites: Iterable[_Suite]) -> Counter[PacketResult]:
    """Count the results of all packets."""
    return Counter(outcome.result for suite in suites for outcome in suite.outcomes)


def _lines(suites: Sequence[_Suite], *, is_verbose: bool) -> Iterator[str]:
    """Yield the lines for people: each file with its failures, and the sum at the end."""
    for suite in suites:
        yield printable(f"{suite.file}: ") + _counts([suite])
        for outcome in suite.outcomes:
            if is_verbose or outcome.result is not PacketResult.PASSED:
                yield from _outcome_lines(outcome)
    if len(suites) > 1 or is_verbose:
        yield from ("", _counts(suites))


_WORDS = {
    PacketResult.FAILED: ("failed", Colour.RED),
    PacketResult.PASSED: ("passed", Colour.GREEN),
    PacketResult.LEFT_OUT: ("left out", Colour.YELLOW),
}
"""The worst first."""


def _counts(suites: Iterable[_Suite]) -> str:
    """Return how many packets failed, passed and were left out; that none passed only if none failed."""
    results = _results(suites)
    return ", ".join(
        painted(f"{results[result]} {word}", colour)
        for result, (word, colour) in _WORDS.items()
        if results[result] or (result is PacketResult.PASSED and not results[PacketResult.FAILED])
    )


def _outcome_lines(outcome: PacketOutcome) -> Iterator[str]:
    """Yield the result of a packet; of one that failed, also the packet and where it is written."""
    entry, is_failed = outcome.entry, outcome.result is PacketResult.FAILED
    word, colour = _WORDS[outcome.result]
    result = painted(word.upper() if is_failed else word, colour)
    yield f"  {result} " + printable(f"{entry.name}: {_detail(outcome)}")
    if is_failed:
        line = f":{entry.origin.line}" if entry.origin.line else ""
        yield printable(f"    {_traffic_text(entry)} ({entry.origin.file}{line})")


def _detail(outcome: PacketOutcome) -> str:
    """Return the decision on a packet; if the test failed, also the expected decision."""
    decision, expected = outcome.answer, outcome.entry.expected
    if isinstance(decision, LeftOut):
        return decision.reason
    if outcome.result is PacketResult.PASSED:
        return _decision_text(decision)
    text = f"expected {_expectation_text(expected)}, got {_decision_text(decision)}"
    if any(rule.rule_id == expected.rule_id for rule in decision.shadowed):
        text += f"; {expected.rule_id} matches too, but comes later"
    return f"{text}; {outcome.suspicion}" if outcome.suspicion else text


def _expectation_text(expected: ExpectedDecision) -> str:
    """Return the expected decision, as far as the test names it."""
    by = expected.rule_id or (_step_text(expected.decided_by) if expected.decided_by else "")
    group = expected.security_group_id
    return expected.verdict.value + (f" by {by}" if by else "") + (f" of {group}" if group else "")


def _decision_text(decision: Decision) -> str:
    """Return the verdict and the rule, else the step, that decided."""
    by, rule = _step_text(decision.decided_by), decision.rule
    if rule:
        where = f"priority {rule.priority}, object {rule.peer.name}"
        by = f"{rule.rule_id} of {rule.security_group_id} ({where})"
    return f"{decision.verdict.value} by {by}"


def _step_text(decided_by: DecidedBy) -> str:
    return "a rule" if decided_by is DecidedBy.RULE else decided_by.value


def _traffic_text(entry: ExpectedTraffic) -> str:
    """Return the sent packet in words."""
    if isinstance(entry, ExpectedReply):
        return f"the answer to {_traffic_text(entry.opener)}"
    packet = entry.packet
    source, destination = (
        address_text(packet.family, address) + ("" if port is None else f" port {port}")
        for address, port in (
            (packet.source, packet.source_port),
            (packet.destination, packet.destination_port),
        )
    )
    kind = "" if packet.icmp_type is None else f" type {packet.icmp_type}"
    what = f"{packet.direction.value} {Protocol(packet.protocol)}{kind}"
    return f"{what} from {source} to {destination} on {packet.interface}"


def _as_json(suites: Sequence[_Suite]) -> dict[str, object]:
    """Return the results as the object that scripts read."""
    results = _results(suites)
    return {
        **{result.value: results[result] for result in PacketResult},
        "files": [
            {
                "file": str(suite.file),
                "definitions": str(suite.definitions),
                "tests": [_outcome_json(outcome) for outcome in suite.outcomes],
            }
            for suite in suites
        ],
    }


def _outcome_json(outcome: PacketOutcome) -> dict[str, object]:
    entry, expected, decision, got = outcome.entry, outcome.entry.expected, outcome.answer, None
    if not isinstance(decision, LeftOut):
        shadowed = [rule.rule_id for rule in decision.shadowed]
        got = decision_as_json(decision) | {"shadowed": shadowed}
    return {
        "name": entry.name,
        "line": entry.origin.line or None,
        "result": outcome.result.value,
        "packet": _traffic_text(entry),
        "expected": {
            "verdict": expected.verdict.value,
            "decided_by": expected.decided_by.value if expected.decided_by else None,
            "rule_id": expected.rule_id,
            "security_group_id": expected.security_group_id,
        },
        "got": got,
        "detail": _detail(outcome),
    }


def _write_junit(path: Path, suites: Sequence[_Suite]) -> None:
    """Write the results as JUnit XML; a file of packets is a suite, and each packet a case.

    Raises:
        UsageError: the file can't be written.
    """
    root = ET.Element("testsuites", {"name": "sgagent test", **_junit_counts(suites)})
    for suite in suites:
        file = printable(str(suite.file))
        element = ET.SubElement(root, "testsuite", {"name": file, **_junit_counts([suite])})
        for outcome in suite.outcomes:
            name, line = printable(outcome.entry.name), str(outcome.entry.origin.line)
            case = ET.SubElement(element, "testcase", classname=file, name=name, file=file, line=line)
            message = printable(_detail(outcome))
            if outcome.result is PacketResult.FAILED:
                failure = ET.SubElement(case, "failure", type="disagreement", message=message)
                failure.text = printable(_traffic_text(outcome.entry))
            elif outcome.result is PacketResult.LEFT_OUT:
                ET.SubElement(case, "skipped", message=message)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--junit {printable(str(path))}: can't be written: {error.strerror}") from error


def _junit_counts(suites: Sequence[_Suite]) -> dict[str, str]:
    results = _results(suites)
    return {
        "tests": str(results.total()),
        "failures": str(results[PacketResult.FAILED]),
        "errors": "0",
        "skipped": str(results[PacketResult.LEFT_OUT]),
    }
