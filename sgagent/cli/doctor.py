"""``sgagent doctor``: influences on this host that can bypass, break or be broken by the policy."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator

from sgagent.agent.control import requests
from sgagent.agent.examination import Examination
from sgagent.analysis.doctor.findings import (
    Blindness,
    Diagnosis,
    DoctorFinding,
    DoctorSeverity,
    NotSeen,
)
from sgagent.analysis.doctor.policy_fact import BoundLink, PolicyFact, policy_fact
from sgagent.cli import agent_client, inputs, platform_report
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import option_adder
from sgagent.cli.output import Colour, format_json, painted, warn
from sgagent.core.binding import HostFacts
from sgagent.core.errors import DocumentError, SgagentError, printable
from sgagent.core.policy import InvalidPackets
from sgagent.dataplane.libnftables import NotPossible, Refused, check_text
from sgagent.dataplane.privileges import NET_ADMIN, capabilities
from sgagent.dataplane.table_dump import read_ruleset
from sgagent.host.links import NetlinkHost
from sgagent.host.processes import sockets_of_agents
from sgagent.nft.marks import MarkLayout
from sgagent.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    inputs.add_definitions_arguments(parser)
    inputs.add_interface_argument(parser)
    add("--json", "print one JSON object")
    add("--exit-code", "exit with 1 if anything is found")
    add(
        "--platform", "print versions and what this kernel can do instead, to be sent back from untried hosts"
    )


def run(options: argparse.Namespace) -> int:
    """Print the findings; the parts that could not be looked at go to standard error."""
    if options.platform:
        report = platform_report.platform_report()
        print(platform_report.as_json(report) if options.json else platform_report.as_text(report))
        return int(options.exit_code and report.can_run is not True)
    settings = load_settings(options)
    facts = NetlinkHost().facts()
    policy, blind = _policy(settings, options, facts)
    diagnosis = _examination(settings).diagnose(policy, facts)
    seen = None if _is_privileged() or options.definitions or options.interface else _of_agent(settings)
    if seen is not None:
        diagnosis, blind = diagnosis.joined(seen), ()  # it knows the policy
    not_seen = (*blind, *diagnosis.not_seen)
    if options.json:
        print(format_json(as_json(diagnosis.findings, not_seen), indent=2))
    else:
        bound = "" if seen else "; bound: " + (", ".join(link.name for link in policy.bound) or "no link")
        verdict = _verdict(diagnosis.findings, is_whole=not not_seen) + bound
        print("\n".join((*_lines(diagnosis.findings), printable(verdict))))
    for one in not_seen:
        warn(f"not looked at: {one.reason}")
    return int(options.exit_code and bool(diagnosis.findings))


def _policy(
    settings: Settings, options: argparse.Namespace, facts: HostFacts
) -> tuple[PolicyFact, tuple[NotSeen, ...]]:
    """Return the policy's facts: of the given definitions, else of those in force, else configured.

    Where they can't be read, the links that the configuration binds count, and that is said.
    """
    mask = MarkLayout(settings.enforcement.mark_mask).used_mask
    try:
        given = options.definitions is not None
        delivery = None if given else agent_client.enforced_now(settings).parse(settings)
        delivery = delivery or inputs.fetch(settings, options.definitions, inputs.UNNAMED)
        resolution = inputs.resolve_for_host(settings, delivery, options.interface)
        return policy_fact(resolution.policy, facts, mask), ()
    except (SgagentError, OSError) as error:
        reason = str(error) if not isinstance(error, DocumentError) else "the definitions have errors"
        by_hand = inputs.hand_bindings(options.interface) or settings.interfaces
        names = (
            BoundLink(name=hand.interface, evaluates_invalid=hand.invalid is InvalidPackets.EVALUATE)
            for hand in by_hand
            if hand.pattern is None
        )
        reason = f"links that the definitions bind: {reason.splitlines()[0] if reason else error}"
        return PolicyFact(bound=tuple(names), mark_mask=mask), (
            NotSeen(what=Blindness.POLICY, reason=reason),
        )


def _examination(settings: Settings) -> Examination:
    return Examination(
        settings=settings,
        read_rules=read_ruleset,
        own_sockets=sockets_of_agents,
        owns_tables=_owns_tables,
    )


def _owns_tables() -> bool | None:
    """Return whether kernel and nft know tables that outlive their owner; None where neither can be asked."""
    found = check_text(_PERSISTENT)
    return None if isinstance(found, NotPossible) else not isinstance(found, Refused)


_PERSISTENT = "table inet sgagent {\n\tflags persist\n}\n"


def _is_privileged() -> bool:
    return bool(capabilities()["Eff"] >> NET_ADMIN & 1)


def _of_agent(settings: Settings) -> Diagnosis | None:
    """Return a running agent's diagnosis; None where none answers."""
    try:
        return agent_client.ask(settings, requests.DoctorQuery(), Diagnosis)
    except SgagentError:
        return None


def as_json(findings: tuple[DoctorFinding, ...], not_seen: tuple[NotSeen, ...]) -> dict[str, object]:
    """Return the findings as the object that scripts read."""
    return {
        "findings": [
            {
                "code": one.code.value,
                "severity": one.severity.value,
                "link": one.link,
                "table": one.table,
                "chain": one.chain,
                "evidence": one.evidence,
                "effect": one.effect,
                "remedy": one.remedy,
            }
            for one in findings
        ],
        "not_seen": [{"what": one.what.value, "reason": one.reason} for one in not_seen],
    }


_COLOURS = {DoctorSeverity.HIGH: Colour.RED, DoctorSeverity.MEDIUM: Colour.YELLOW}


def _lines(findings: Iterable[DoctorFinding]) -> Iterator[str]:
    for one in findings:
        place = " ".join(part for part in (one.table, one.chain) if part)
        where = ", ".join(part for part in (place, one.link) if part) or "this host"
        yield f"{_severity_text(one.severity)}: {printable(where)} [{one.code.value}]"
        yield from (f"  {printable(text)}" for text in (one.evidence, one.effect, f"→ {one.remedy}"))
        yield ""


def _verdict(findings: Iterable[DoctorFinding], *, is_whole: bool) -> str:
    counts = Counter(one.severity for one in findings)
    parts = [f"{counts[severity]} {severity.value}" for severity in DoctorSeverity if counts[severity]]
    return ", ".join(parts) or ("nothing found" if is_whole else "nothing found in what could be looked at")


def _severity_text(severity: DoctorSeverity) -> str:
    colour = _COLOURS.get(severity)
    return painted(severity.value, colour) if colour else severity.value
