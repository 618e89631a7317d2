"""``sgagent lint``: find dangerous, ineffective or redundant rules, and suggest fixes; as SARIF, too."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

from sgagent import __version__
from sgagent.agent.control.hits import HitsAnswer, HitsQuery
from sgagent.agent.names.resolver import DnsAnswers
from sgagent.analysis.cells import MOST_CELLS
from sgagent.analysis.lint.findings import CODES, Finding, FindingSeverity
from sgagent.analysis.lint.registry import CHECKS, lint, steps
from sgagent.analysis.lint.subject import Check, LintSubject, LiveHost, make_subject
from sgagent.cli import inputs
from sgagent.cli.agent_client import NoAgentError, ask
from sgagent.cli.configuration import load_settings
from sgagent.cli.fixes import Fixed, FixWriter, PlacedReplacement, Wanted, fix_documents
from sgagent.cli.main import add_option, option_adder
from sgagent.cli.output import problem_text, progress, warn
from sgagent.core.binding import HostFacts, bind
from sgagent.core.counter_keys import HitStep, HitTimes, RuleCounter
from sgagent.core.errors import Origin, UsageError, count, printable
from sgagent.core.model import Family, Snapshot
from sgagent.core.policy import ResolvedInterface
from sgagent.core.resolve import Exemptions, dns_names
from sgagent.dataplane.live_sessions import list_listeners
from sgagent.documents.parse import with_key_lines
from sgagent.host.links import NetlinkHost, has_links_behind, read_forwarding
from sgagent.ports import Delivery
from sgagent.settings import Settings
from sgagent.settings.sources import FileSourceSettings, SeveralSources

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {FindingSeverity.ERROR: "error", FindingSeverity.WARNING: "warning", FindingSeverity.NOTICE: "note"}


def as_sarif(
    findings: Iterable[Finding], checks: Mapping[str, Check], root: Path, fixes: FixWriter | None = None
) -> dict[str, object]:
    """Return a SARIF log of one run.

    Args:
        findings: the results.
        checks: all checks by code, which are the rules of the log.
        root: files below it are named relative to it, as code hosts want them.
        fixes: writes what findings suggest; None leaves it out.
    """
    numbers = {code: number for number, code in enumerate(checks)}
    rules = [
        {
            "id": check.code,
            "shortDescription": {"text": f"{check.summary[:1].upper()}{check.summary[1:]}."},
            "defaultConfiguration": {"level": _LEVELS[check.severity]},
        }
        for check in checks.values()
    ]
    driver = {"name": "sgagent", "version": __version__, "rules": rules}
    results = [_result(finding, numbers[finding.code], root, fixes) for finding in findings]
    run = {"tool": {"driver": driver}, "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Finding, number: int, root: Path, fixes: FixWriter | None) -> dict[str, object]:
    where = f" on {', '.join(finding.interfaces)}" if finding.interfaces else ""
    result: dict[str, object] = {
        "ruleId": finding.code,
        "ruleIndex": number,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.subject}{where}: {finding.message}. Remedy: {finding.remedy}."},
        "partialFingerprints": {"finding/v1": _fingerprint(finding)},
    }
    if finding.origin.file:
        result["locations"] = [_location(finding.origin, root)]
    if finding.fix is not None and fixes is not None:
        result["properties"] = {"fix": fixes.as_json(finding.fix)}
        changes = fixes.changes(finding.fix)
        if changes:
            files = [_artifact_change(name, found, root) for name, found in changes.items()]
            text = {"text": fixes.words(finding.fix)}
            result["fixes"] = [{"description": text, "artifactChanges": files}]
    return result


def _artifact_change(name: str, changes: Iterable[PlacedReplacement], root: Path) -> dict[str, object]:
    replaced = [
        {
            "deletedRegion": {
                "startLine": one.start[0],
                "startColumn": one.start[1],
                "endLine": one.end[0],
                "endColumn": one.end[1],
            },
            "insertedContent": {"text": one.text},
        }
        for one in changes
    ]
    return {"artifactLocation": {"uri": _uri(name, root)}, "replacements": replaced}


def _uri(name: str, root: Path) -> str:
    path = Path(name)
    if path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    return path.as_uri() if path.is_absolute() else quote(bytes(path))


def _location(origin: Origin, root: Path) -> dict[str, object]:
    physical: dict[str, object] = {"artifactLocation": {"uri": _uri(origin.file, root)}}
    if origin.line:
        physical["region"] = {"startLine": origin.line}
    return {"physicalLocation": physical}


def _fingerprint(finding: Finding) -> str:
    """Return the fingerprint of a finding, the same whatever its line is."""
    parts = (
        finding.code,
        finding.security_group_id or "",
        *finding.rule_ids,
        finding.object_id or "",
        *finding.interfaces,
    )
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    inputs.add_policy_arguments(parser)
    inputs.add_dns_argument(parser)
    text = "also find rules without a hit for this long, like 30d, by the agent's counters"
    add("--unused SPAN", text, type=inputs.span)
    add("--disable CODE[,CODE…]", "skip checks; repeatable", action="append", default=[])
    text = "make the edits that change no verdict; with codes, those of these checks, after their plan"
    add("--fix CODE", text, metavar="CODE[,CODE…]")
    add("--exit-code", "exit with 1 if anything is found")
    add("--exhaustive", "compare rules however long it takes")
    output = parser.add_mutually_exclusive_group()
    add_option(output, "--json", "print one JSON object")
    add_option(output, "--sarif", "print a SARIF log, for code hosts")


def run(options: argparse.Namespace) -> int:
    """Print the findings; the exit code says on request whether there are any."""
    settings = load_settings(options)
    disabled = frozenset((*settings.lint.disable, *_codes("--disable", options.disable)))
    delivery = inputs.fetch(settings, options.definitions)
    look_at = _subject_maker(settings, delivery, options)
    subject = look_at(delivery.snapshot)
    others = (problem for problem in subject.problems if problem.code not in _FOUND_BY_LINT)
    own = with_key_lines(others, delivery.documents, settings.limits)
    inputs.accept_or_refuse((*delivery.problems, *own), settings, options)
    fixed: Fixed | None = None
    if options.fix is not None:
        codes = frozenset(_codes("--fix", [options.fix])) if options.fix else None
        _require_files(settings, options)
        fixed = fix_documents(settings, delivery, look_at, Wanted(codes=codes, disabled=disabled))
        delivery, subject = fixed.delivery, look_at(fixed.delivery.snapshot)
    with progress("running checks", steps(subject)) as advance:
        findings = lint(subject, disabled, advance)
    for text in subject.unfinished:
        warn(text)
    fixes = FixWriter(subject, delivery)
    if options.json:
        print(json.dumps(as_json(findings, disabled, fixes) | (fixed.as_json() if fixed else {})))
    elif options.sarif:
        print(json.dumps(as_sarif(findings, CHECKS, Path.cwd(), fixes), indent=2))
    else:
        printed = (*(fixed.lines() if fixed else ()), *lines(findings))
        print("\n".join(problem_text(printable(line), sys.stdout) for line in printed))
    return 1 if options.exit_code and findings else 0


def _require_files(settings: Settings, options: argparse.Namespace) -> None:
    """Raise where definitions don't come from files, which can be edited."""
    source = settings.source
    sources = source.sources if isinstance(source, SeveralSources) else (source,)
    others = [one.kind.value for one in sources if not isinstance(one, FileSourceSettings)]
    if options.definitions is None and others:
        raise UsageError(
            f"--fix: a source of type {others[0]} can't be edited: fix the files, and publish them"
        )


_FOUND_BY_LINT = {"unknown_object", "unknown_object_in_drop"}
"""Problems that are findings of checks, too."""


def _codes(option: str, arguments: Iterable[str]) -> Iterator[str]:
    """Yield the codes of checks that an option names.

    Raises:
        UsageError: there is no such check.
    """
    for code in (code for argument in arguments for code in argument.split(",")):
        if code not in CODES:
            raise UsageError(f"{option} {code}: no check has this code (one of {', '.join(CODES)})")
        yield code


def _subject_maker(
    settings: Settings, delivery: Delivery, options: argparse.Namespace
) -> Callable[[Snapshot], LintSubject]:
    """Return the maker of the subject of checks of definitions: those that were read, or edited ones."""
    by_hand = inputs.hand_bindings(options.interface)
    dns = inputs.dns_answers(settings, options)
    bound = bind(delivery.snapshot, by_hand or settings.interfaces, HostFacts(), automatically=False)
    return partial(
        make_subject,
        exemptions=Exemptions(platform=settings.platform, failsafe=settings.failsafe),
        by_hand=bound.all,
        only_by_hand=bool(by_hand),
        most_rules=settings.lint.most_rules,
        offices=settings.lint.offices,
        host=_live_host(settings, delivery, options, dns),
        at=inputs.latest_time(settings),
        names=dns.of(dns_names(delivery.snapshot), HostFacts()).addresses,
        most_cells=None if options.exhaustive else MOST_CELLS,
    )


def _live_host(
    settings: Settings, delivery: Delivery, options: argparse.Namespace, dns: DnsAnswers
) -> LiveHost:
    """Return the facts of this host while it lives: its links, listening sockets, and the agent's counts.

    Raises:
        NoAgentError: none runs, and ``--unused`` asks for its counts.
    """
    judges: tuple[ResolvedInterface, ...] = ()
    forwarded: tuple[Family, ...] = ()
    with suppress(OSError):
        facts = NetlinkHost().facts()
        forwarded = read_forwarding() if has_links_behind(facts) else ()
        links = {link.name for link in facts.links}
        policy = inputs.resolve_for_host(settings, delivery, options.interface, dns=dns).policy
        judges = policy.judges_of(links)
    ports = None
    try:
        ports = list_listeners() if judges else None
    except OSError as error:
        warn(f"listening sockets can't be listed: {error.strerror}")
    unused = settings.lint.unused if options.unused is None else options.unused
    rules: Mapping[RuleCounter, HitTimes] = {}
    inner: Mapping[str, HitTimes] = {}
    try:
        if unused is not None:
            rules, inner = usages(ask(settings, HitsQuery(), HitsAnswer))
    except NoAgentError as error:
        if options.unused is not None:
            raise
        warn(f"unused rules can't be determined: {error}")
    return LiveHost(
        bound=judges,
        usage=rules,
        inner_usage=inner,
        now=time.time(),
        listeners=ports,
        forwarded=forwarded,
        unused_seconds=unused,
    )


def usages(answer: HitsAnswer) -> tuple[dict[RuleCounter, HitTimes], dict[str, HitTimes]]:
    """Return the agent's counts: of rules, and of fellow members, by interface."""
    rules: dict[RuleCounter, HitTimes] = {}
    inner: dict[str, HitTimes] = {}
    for part in answer.interfaces:
        for hit in part.hits:
            usage = hit.times
            if usage is None:
                continue
            if hit.step is HitStep.INNER:
                inner[part.interface] = usage
            elif hit.step is HitStep.RULE and hit.rule_id is not None and hit.security_group_id is not None:
                counter = RuleCounter(
                    interface=part.interface,
                    security_group_id=hit.security_group_id,
                    rule_id=hit.rule_id,
                    direction=part.direction,
                    policy=hit.verdict,
                )
                rules[counter] = usage
    return rules, inner


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the lines for people: the verdict, then each finding with its reason, remedy and place."""
    findings = tuple(findings)
    yield _verdict(findings)
    for finding in findings:
        where = f", on {', '.join(finding.interfaces)}" if finding.interfaces else ""
        yield ""
        yield f"{finding.severity.value}: {finding.subject}{where} [{finding.code}]"
        yield f"  {finding.message}"
        yield f"  → {finding.remedy}"
        if finding.origin.line:
            yield f"  {finding.origin.file}:{finding.origin.line}"


def _verdict(findings: tuple[Finding, ...]) -> str:
    counts = Counter(finding.severity for finding in findings)
    parts = [count(counts[severity], severity.value) for severity in FindingSeverity if counts[severity]]
    return ", ".join(parts) or "nothing found"


def as_json(
    findings: Iterable[Finding], disabled: Iterable[str], fixes: FixWriter | None = None
) -> dict[str, object]:
    """Return the findings as the object that scripts read."""
    findings = tuple(findings)
    counts = Counter(finding.severity for finding in findings)
    return {
        "errors": counts[FindingSeverity.ERROR],
        "warnings": counts[FindingSeverity.WARNING],
        "notices": counts[FindingSeverity.NOTICE],
        "disabled": sorted(disabled),
        "findings": [
            {
                "severity": finding.severity.value,
                "code": finding.code,
                "security_group_id": finding.security_group_id,
                "rule_id": finding.rule_ids[0] if finding.rule_ids else None,
                "rule_ids": list(finding.rule_ids),
                "not_with": [],
                "object_id": finding.object_id,
                "interfaces": list(finding.interfaces),
                "message": finding.message,
                "remedy": finding.remedy,
                "file": finding.origin.file,
                "line": finding.origin.line or None,
                "path": finding.origin.path,
                **({"fix": fixes.as_json(finding.fix)} if fixes and finding.fix else {}),
            }
            for finding in findings
        ],
    }
