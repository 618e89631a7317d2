"""Write what came of tests as JUnit's XML, which build servers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never
from xml.etree import ElementTree as ET  # it writes here, and reads nothing

from sgagent.cli.testreport import SuiteReport, detail, packet_text
from sgagent.core.errors import printable
from sgagent.packets import Outcome, Result


def as_junit(reports: Sequence[SuiteReport]) -> str:
    """Return the results; a file of packets is a suite, and each packet a case."""
    root = ET.Element("testsuites", {"name": "sgagent test", **_counts(reports)})
    for report in reports:
        suite = ET.SubElement(root, "testsuite", {"name": printable(report.file), **_counts([report])})
        for outcome in report.outcomes:
            _add_case(suite, report, outcome)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(reports: Sequence[SuiteReport]) -> dict[str, str]:
    return {
        "tests": str(sum(len(report.outcomes) for report in reports)),
        "failures": str(sum(report.count(Result.FAILED) for report in reports)),
        "errors": "0",
        "skipped": str(sum(report.count(Result.LEFT_OUT) for report in reports)),
    }


def _add_case(suite: ET.Element, report: SuiteReport, outcome: Outcome) -> None:
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
        case Result.FAILED:
            failure = ET.SubElement(case, "failure", type="disagreement", message=message)
            failure.text = printable(packet_text(outcome.entry))
        case Result.LEFT_OUT:
            ET.SubElement(case, "skipped", message=message)
        case Result.PASSED:
            pass
        case _:
            assert_never(outcome.result)
