"""Show what lint finds in the definitions in force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sgagent.agent.time_text import clock_time, count
from sgagent.agent.web.inspection import Found, Inspected, NotFound
from sgagent.agent.web.markup import Element, tag
from sgagent.agent.web.shell import Section
from sgagent.analysis.lint.findings import Finding, FindingSeverity
from sgagent.core.errors import Origin

MOST_FINDINGS = 100
"""That are shown; the heaviest come first."""


def findings_section(inspected: Inspected) -> Section:
    """Return the findings, each with its reason, remedy and place."""
    return Section("findings", "Findings", tuple(_content(inspected)))


def _content(inspected: Inspected) -> Iterator[Element]:
    match inspected:
        case NotFound(reason):
            yield tag("p", reason)
        case Found(findings=findings, at=at):
            yield tag("p", _sum(findings))
            yield tag("ol", *map(_finding, findings[:MOST_FINDINGS]), class_="findings")
            if len(findings) > MOST_FINDINGS:
                yield tag("p", f"… and {len(findings) - MOST_FINDINGS} more, which sgagent lint prints.")
            yield tag("p", f"Looked for at {clock_time(at)}.", class_="quiet")


def _sum(findings: tuple[Finding, ...]) -> str:
    counts = Counter(finding.severity for finding in findings)
    parts = (count(counts[severity], severity.value) for severity in FindingSeverity if counts[severity])
    return ", ".join(parts) or "Nothing was found."


def _finding(finding: Finding) -> Element:
    where = f", on {', '.join(finding.interfaces)}" if finding.interfaces else ""
    return tag(
        "li",
        tag(
            "p",
            tag("span", finding.severity.value, class_=f"badge {finding.severity.value}"),
            " ",
            tag("strong", finding.subject),
            f"{where} ",
            tag("code", finding.code),
        ),
        tag("p", f"Why: {finding.message}."),
        tag("p", f"What to do: {finding.remedy}."),
        _place(finding.origin),
    )


def _place(origin: Origin) -> Element | None:
    return tag("p", f"{origin.file}:{origin.line}", class_="quiet") if origin.line else None
