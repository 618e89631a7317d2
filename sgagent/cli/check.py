"""``sgagent check``: validate documents and configuration, and report all problems at once."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from sgagent.cli import inputs
from sgagent.cli.check_input import CheckInput, name_foreign_documents, passed_over
from sgagent.cli.configuration import load_settings
from sgagent.cli.guardrails import Keeper, add_guardrails_argument
from sgagent.cli.main import DEFAULT_CONFIGURATION, add_option
from sgagent.cli.output import Colour, painted, problem_as_json, problem_text
from sgagent.core.cloud_quotas import CloudLimit, QuotaUse, quota_uses
from sgagent.core.errors import (
    DocumentError,
    Origin,
    Problem,
    Severity,
    SourceUnavailableError,
    count,
    in_order,
    printable,
)
from sgagent.core.guardrails import named
from sgagent.core.link_topology import FindingCode, findings
from sgagent.core.lockout import as_keys, sessions_cut
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Resolution, Scope
from sgagent.core.rule_values import FAMILY_NAMES, has_ended, instant_text
from sgagent.documents import DocumentFile, RefusedDocumentsError
from sgagent.host.links import NetlinkHost, read_forwarding
from sgagent.host.service_unit import LOGS_DIRECTORY, added_paths
from sgagent.ports import Delivery
from sgagent.settings import RefusedSettingsError, Settings
from sgagent.settings.sources import FileSourceSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    inputs.add_policy_arguments(parser)
    inputs.add_dns_argument(parser)
    add_guardrails_argument(parser)
    output = parser.add_mutually_exclusive_group()
    add_option(output, "--json", "print the problems as JSON")
    add_option(parser, "--cloud", "also show how much of the cloud's quotas is used, as the cloud counts")
    add_option(output, "--sarif", "print a SARIF log, for code hosts")


def run(options: argparse.Namespace) -> int:
    """Print every problem of the whole (§8.3); the exit code says whether the documents would be refused."""
    reading = CheckInput(snapshot=Snapshot(version=""))
    try:
        settings = load_settings(options)
        problems, found, reading = _look(settings, options)
        policy = found.policy if found else None
        problems += _forwarding_warnings(policy, options.config or DEFAULT_CONFIGURATION)
        problems += _unbinding_warnings(policy, settings, options)
        problems += _warnings_of_links(policy, options.config or DEFAULT_CONFIGURATION)
        problems += flow_log_errors(settings, options.config or DEFAULT_CONFIGURATION)
    except RefusedSettingsError as error:
        settings, policy, found = error.readable, None, None
        problems = (*error.problems, *_problems_of_documents(error, options))
    problems = in_order(problems)
    if options.strict or settings.enforcement.strict:
        problems = tuple(replace(problem, severity=Severity.ERROR) for problem in problems)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    cut = () if policy is None else inputs.preview_cuts(partial(sessions_cut, policy))
    uses = tuple(quota_uses(reading.snapshot)) if options.cloud else ()
    if options.json:
        cloud = {"cloud": list(map(_quota_as_json, uses))} if options.cloud else {}
        report = {
            "ok": not errors,
            **cloud,
            "read": reading.as_json(),
            "sessions_cut": [as_keys(session) for session in cut],
            "guardrails": [asdict(named(one)) for one in (found.violations if found else ())],
            "problems": [
                {"severity": problem.severity.value, **problem_as_json(problem), "remedy": problem.remedy}
                for problem in problems
            ],
        }
        print(json.dumps(report, indent=2))
    elif options.sarif:
        print(json.dumps(_as_sarif(problems), indent=2))
    else:
        word = painted("refused", Colour.RED) if errors else painted("ok", Colour.GREEN)
        counts = f"{count(errors, 'error')}, {count(len(problems) - errors, 'warning')}"
        verdict = f"{word}: {counts if problems else 'nothing wrong'}"
        advice = "(add an accept rule or a fail-safe entry for it before you enforce this)"
        warnings = (f"warning: this policy would cut {session} {advice}" for session in cut)
        notes = [f"passed over {one.path}: {one.reason}" for one in reading.passed_over if one.is_for_people]
        said = [reading.line()] if sys.stdout.isatty() else []
        for line in (*problems, *warnings, *map(printable, (*notes, *said, *_quota_lines(uses))), verdict):
            print(problem_text(line, sys.stdout))
    return 2 if errors else 0


def _look(
    settings: Settings, options: argparse.Namespace
) -> tuple[tuple[Problem, ...], Resolution | None, CheckInput]:
    """Return the documents' problems, their resolution, unless form is wrong, and the documents read."""
    delivered = Delivery(snapshot=Snapshot(version=""))

    def read() -> Delivery:
        nonlocal delivered
        try:
            delivered = inputs.fetch(settings, options.definitions, inputs.UNNAMED)
        except RefusedDocumentsError as error:
            delivered = Delivery(snapshot=error.readable, documents=error.documents)
            raise
        return delivered

    resolution: Resolution | None = None
    problems: tuple[Problem, ...]
    try:
        keep = Keeper.of(settings, options).everywhere
        resolution = inputs.read_policy(settings, options, scope=Scope.EVERYTHING, keep=keep, read=read)
        problems = resolution.problems
    except DocumentError as error:
        problems = error.problems
    reading = _reading(settings, options, delivered, resolution.policy if resolution else None)
    problems = _naming_foreign(problems, reading.documents)
    beyond = _over_quota(delivered.snapshot, {one.code for one in problems})
    return (*problems, *_ended(delivered.snapshot, settings), *beyond), resolution, reading


def _ended(snapshot: Snapshot, settings: Settings) -> Iterator[Problem]:
    """Yield a warning for each rule that has ended (§12.4)."""
    at = inputs.latest_time(settings)
    for group in snapshot.security_groups:
        for rule in group.rules:
            if rule.expires is not None and has_ended(rule, at):
                message = f"rule {rule.rule_id} has ended and does not exist any more"
                ended, remedy = instant_text(rule.expires), "remove it, or give it a later end"
                yield Problem.warning(rule.origin.at("expires"), "expired_rule", ended, message, remedy)


def _reading(
    settings: Settings, options: argparse.Namespace, delivered: Delivery, policy: ResolvedPolicy | None
) -> CheckInput:
    place = options.definitions or (
        settings.source.path if isinstance(settings.source, FileSourceSettings) else None
    )
    links: tuple[str, ...] = ()
    with suppress(OSError):
        links = tuple(link.name for link in NetlinkHost().facts().links)
    bound = policy.bound if policy else ()
    return CheckInput(
        snapshot=delivered.snapshot,
        documents=delivered.documents,
        passed_over=passed_over(place),
        binds=tuple(name for name in links if policy and policy.judge(name) in bound),
    )


def _naming_foreign(problems: Iterable[Problem], documents: Iterable[DocumentFile]) -> tuple[Problem, ...]:
    """Return problems; a file in a foreign format has one, which names the format."""
    foreign = {one.path: one.reason for one in name_foreign_documents(documents)}
    wrong = {one.origin.file for one in problems if one.severity is Severity.ERROR} & foreign.keys()
    named = (
        Problem.error(Origin(file=name), "foreign_format", None, "not a document of sgagent", foreign[name])
        for name in sorted(wrong)
    )
    return (*named, *(one for one in problems if one.origin.file not in wrong))


def _as_sarif(problems: Iterable[Problem]) -> dict[str, object]:
    """Return the problems as a SARIF log; their codes are its rules."""
    from sgagent.analysis.lint.findings import Finding, FindingSeverity  # noqa: PLC0415 - few ask for it
    from sgagent.analysis.lint.subject import Check  # noqa: PLC0415 - likewise
    from sgagent.cli.lint import as_sarif  # noqa: PLC0415 - likewise

    findings = [
        Finding(
            code=problem.code,
            severity=FindingSeverity(problem.severity.value),
            message=problem.message,
            remedy=problem.remedy,
            object_id=problem.value or problem.origin.path,
            origin=problem.origin,
        )
        for problem in problems
    ]
    checks = {
        one.code: Check(
            code=one.code, severity=one.severity, summary=one.code.replace("_", " "), find=lambda _: ()
        )
        for one in findings
    }
    return as_sarif(findings, checks, Path.cwd())


def _problems_of_documents(error: RefusedSettingsError, options: argparse.Namespace) -> tuple[Problem, ...]:
    """Return the documents' problems, as far as a configuration with errors lets them be found."""
    settings = error.readable
    if not error.spares(["interface"]):
        settings = replace(settings, interfaces=())
    if options.definitions is None and not error.spares(["source", "signature", "limits"]):
        return ()
    with suppress(SourceUnavailableError):
        return _look(settings, options)[0]
    return ()


def _unbinding_warnings(
    policy: ResolvedPolicy | None, settings: Settings, options: argparse.Namespace
) -> tuple[Problem, ...]:
    """Return a warning for each link of this host that was bound, and that nothing would filter."""
    places = (settings.state.directory, settings.state.runtime_directory)
    if policy is None or options.interface or not any(os.access(place, os.F_OK) for place in places):
        return ()
    from sgagent.cli.agent_client import bound_before  # noqa: PLC0415 - not where no agent runs or ran

    there = {link.name for link in NetlinkHost().facts().links}
    origin = Origin(file=str(options.definitions or settings.source.place), path="network_interfaces")
    remedy = "correct mac_address or addresses of its network interface"
    return tuple(
        Problem.warning(
            origin,
            "unbinds_link",
            None,
            f"{name} of this host, bound before{f' as {before}' if before else ''}, would be open",
            remedy,
        )
        for name, before in sorted(bound_before(settings).items())
        if name in there and policy.judge(name) is None
    )


def flow_log_errors(settings: Settings, configuration: Path, root: Path = Path("/")) -> tuple[Problem, ...]:
    """Return an error for a flow log where the service may not write, as its unit says."""
    output = settings.flow_log.output
    state = settings.state
    places = (LOGS_DIRECTORY, state.directory, state.runtime_directory, *added_paths(root))
    if not isinstance(output, Path) or any(output.is_relative_to(place) for place in places):
        return ()
    message = f"the service may write below {LOGS_DIRECTORY} (LogsDirectory= in sgagent.service)"
    remedy = f"name a file there, or add ReadWritePaths={output.parent} by 'systemctl edit sgagent'"
    origin = Origin(file=str(configuration), path="flow_log.output")
    return (Problem.error(origin, "flow_log_outside", str(output), message, remedy),)


def _warnings_of_links(policy: ResolvedPolicy | None, configuration: Path) -> tuple[Problem, ...]:
    """Return warnings of open links above bound ones (§9.6), and of judged frames on bridges (§9.4)."""
    try:
        facts = NetlinkHost().facts()
    except OSError:
        return ()
    if policy is None:
        return ()
    bound = {link.name for link in facts.links if policy.judge(link.name) in policy.bound}
    codes = (FindingCode.LINK_ABOVE, FindingCode.BRIDGED_FRAMES)
    found = [one for one in findings(facts, bound) if one.code in codes]
    if policy.unbound is not None:
        found = [one for one in found if one.code is not FindingCode.LINK_ABOVE]
    origin = Origin(file=str(configuration), path="interface")
    return tuple(
        Problem.warning(origin, one.code.value, one.link, one.message, one.remedy)
        for one in found[:_MOST_LINKS_NAMED]
    )


def _forwarding_warnings(policy: ResolvedPolicy | None, configuration: Path) -> tuple[Problem, ...]:
    """Return a warning if the source check may drop packets that this host forwards (§12.6).

    Whether sources are translated would be in the ruleset, which only root may list.
    """
    judges = policy.bound if policy else ()
    checked = ", ".join(judge.name for judge in judges if judge.own_addresses is not None)
    families = " and ".join(FAMILY_NAMES[family] for family in read_forwarding())
    if not checked or not families:
        return ()
    bound = {judge.name for judge in judges}
    # Guests and containers may be behind a bridge, a veth or a tunnel that is no port.
    behind = [
        link.name
        for link in NetlinkHost().facts().links
        if link.name not in bound and not (link.has_hardware or link.is_loopback or link.master)
    ]
    named = ", ".join(behind[:_MOST_LINKS_NAMED]) + (", …" if behind[_MOST_LINKS_NAMED:] else "")
    message = (
        f"this host forwards {families}; on {checked} the source check drops what guests and containers"
        f" behind the host{f' ({named})' if named else ''} send, unless their source is translated to an"
        " address of the link"
    )
    origin = Origin(file=str(configuration), path="enforcement.source_check")
    remedy = 'translate their sources (masquerade), or set source_check = "off" there'
    return (Problem.warning(origin, "source_check_forwards", None, message, remedy),)


_MOST_LINKS_NAMED = 5


_CODES = {
    CloudLimit.RULES_PER_INTERFACE: "many_rules",
    CloudLimit.GROUPS_PER_INTERFACE: "many_groups",
    CloudLimit.GROUP_OBJECTS_PER_GROUP: "many_group_objects",
    CloudLimit.ADDRESSES_PER_BASIC_GROUP: "many_addresses",
}
_REMEDIES = {
    CloudLimit.RULES_PER_INTERFACE: "name fewer and shorter lists, or fewer objects and ports in one rule",
    CloudLimit.GROUPS_PER_INTERFACE: "attach fewer groups",
    CloudLimit.GROUP_OBJECTS_PER_GROUP: "use prefix lists",
    CloudLimit.ADDRESSES_PER_BASIC_GROUP: "use an advanced group, or several groups",
}
_MOST_SHOWN = 10


def _quota_words(use: QuotaUse) -> str:
    """Return a use in words: ``eni-1: 1100 of 1000 rules per interface``."""
    return f"{use.object_id}: {use.used} of {use.most} {use.limit.value.replace('_', ' ')}"


def _over_quota(snapshot: Snapshot, reported: Container[str]) -> Iterator[Problem]:
    """Yield a warning for each use that the cloud would refuse, without the codes already reported."""
    for use in quota_uses(snapshot):
        code = _CODES[use.limit]
        if use.used > use.most and code not in reported:
            message = f"{_quota_words(use)}, which the cloud would refuse"
            yield Problem.warning(use.origin, code, str(use.used), message, _REMEDIES[use.limit])


def _quota_as_json(use: QuotaUse) -> dict[str, object]:
    """Return a use as the object that scripts read."""
    return {
        "limit": use.limit.value,
        "object_id": use.object_id,
        "used": use.used,
        "most": use.most,
        "ratio": round(use.ratio, 4),
    }


def _quota_lines(uses: Iterable[QuotaUse]) -> list[str]:
    """Return the uses that are nearest to their limits, for people."""
    nearest = sorted(uses, key=lambda use: (-use.ratio, use.limit.value, use.object_id))
    return [f"quota: {_quota_words(use)} ({math.ceil(100 * use.ratio)}%)" for use in nearest[:_MOST_SHOWN]]
