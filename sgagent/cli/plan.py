"""``sgagent plan``: show what candidate definitions would change against the enforced ones."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from sgagent.agent.names.resolver import DnsAnswers
from sgagent.analysis.compare import compare, links
from sgagent.analysis.flow_text import ObjectNames
from sgagent.cli import inputs
from sgagent.cli.agent_client import enforced_now, modes_of_host
from sgagent.cli.main import option_adder
from sgagent.cli.output import progress, terminal_width
from sgagent.cli.plan_report import PlanReport, as_json, lines
from sgagent.core.binding import HostFacts, bind_everywhere
from sgagent.core.errors import UsageError
from sgagent.core.lockout import sessions_newly_cut
from sgagent.core.memo import Memo
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Resolution, Scope, dns_names, resolve
from sgagent.documents.parse import parse_other_version
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.text import describe
from sgagent.ports import Delivery
from sgagent.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    inputs.add_policy_arguments(parser)
    inputs.add_time_argument(parser)
    inputs.add_dns_argument(parser)
    add("--against PATH", "compare with these documents, instead of what is enforced now")
    add("--everywhere", "for every network interface of the documents, instead of this host's links")
    add("--operations", "also show the kernel's operations (--json always has them)")
    add("--verify", "prove the table of the candidate, too")
    add("--exit-code", "exit with 1 if anything changes")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print what would change; the exit code says on request whether anything does."""
    if options.everywhere and options.interface:
        raise UsageError("--everywhere and --interface exclude each other")
    settings = inputs.load_settings(options)
    scope = _Scope(
        settings=settings,
        interfaces=tuple(options.interface),
        everywhere=options.everywhere,
        at=options.at or inputs.latest_time(settings),
        dns=inputs.dns_answers(settings, options),
    )
    parsed = Memo()
    delivery = inputs.fetch(settings, options.definitions, inputs.UNNAMED, parsed)
    candidate = scope.resolve(delivery)
    inputs.accept_or_refuse(candidate.problems, settings, options)
    origin, enforced = _enforced(delivery, settings, options, parsed)
    old, new = scope.resolve_present(enforced), candidate.policy
    if not scope.everywhere:
        old, new = map(modes_of_host(settings).over, (old, new))
    wants_operations = options.operations or options.json
    report = _report(old, new, scope, origin, delivery.snapshot, wants_operations=wants_operations)
    code, verified = 0, dict[str, object]()
    if options.verify:
        from sgagent.cli.compile import prove_compiled  # noqa: PLC0415 - few ask for a proof

        logging, policy = settings.flow_log.logging, candidate.policy
        code, proof = prove_compiled(policy, settings, logging, is_printed=not options.json)
        verified = {"verified": proof}
    if options.json:
        print(json.dumps(as_json(report) | verified))
    else:
        print("\n".join(lines(report, terminal_width())))
    return code or (1 if options.exit_code and report.changes else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """On which interfaces the two sides are compared."""

    settings: Settings
    interfaces: tuple[str, ...]
    """``--interface`` arguments."""

    everywhere: bool
    at: datetime
    """The latest time, on both sides."""

    dns: DnsAnswers
    """What names stand for, on both sides."""

    memo: Memo = field(default_factory=Memo)
    """Of what was resolved: the sides have most of it in common."""

    def resolve(self, delivery: Delivery) -> Resolution:
        """Return what definitions come to there."""
        if self.everywhere:
            return resolve_everywhere(self.settings, delivery, self.memo, at=self.at, dns=self.dns)
        return inputs.resolve_for_host(
            self.settings, delivery, self.interfaces, memo=self.memo, at=self.at, dns=self.dns
        )

    def resolve_present(self, present: Delivery | None) -> ResolvedPolicy:
        """Return what is in force there; a link whose groups are all unknown to it is not judged yet."""
        if present is None:
            return ResolvedPolicy()
        known = present.snapshot.group_by_id
        meant = [
            argument
            for argument, binding in zip(self.interfaces, inputs.hand_bindings(self.interfaces), strict=True)
            if not binding.security_group_ids or any(group in known for group in binding.security_group_ids)
        ]
        if self.interfaces and not meant:
            return ResolvedPolicy()
        return replace(self, interfaces=tuple(meant)).resolve(present).policy


def resolve_everywhere(
    settings: Settings,
    delivery: Delivery,
    memo: Memo | None = None,
    *,
    at: datetime | None = None,
    dns: DnsAnswers | None = None,
) -> Resolution:
    """Return what definitions come to on every network interface that they name, wherever it is.

    Each is judged as if it were a link of this host, by the name of its id. All errors of meaning count.
    """
    names = dns.of(dns_names(delivery.snapshot), HostFacts()).addresses if dns else None
    resolution = resolve(
        delivery.snapshot,
        bind_everywhere(delivery.snapshot),
        inputs.exemptions(settings),
        default_mode=settings.enforcement.mode,
        source_check=settings.enforcement.source_check,
        scope=Scope.EVERYTHING,
        at=at or inputs.latest_time(settings),
        names=names,
        memo=memo,
    )
    return inputs.with_all_problems(resolution, delivery, settings, Scope.HOST)


def _enforced(
    candidate: Delivery, settings: Settings, options: argparse.Namespace, parsed: Memo
) -> tuple[str, Delivery | None]:
    """Return what the candidate is compared with, in words, and the definitions; None where nothing is.

    Raises:
        DocumentError: they have errors, or this version of sgagent can't read them any more.
    """
    if options.against is None:
        present = enforced_now(settings)
        origin, documents, version = present.origin, present.documents, present.version
    else:
        origin, version = str(options.against), inputs.UNNAMED
        documents = inputs.read_files(settings, options.against)
    if documents is None:
        return origin, None
    snapshot = parse_other_version(documents, candidate.documents, settings.limits, version, parsed)
    return origin, Delivery(snapshot=snapshot, documents=documents)


def _report(
    old: ResolvedPolicy,
    new: ResolvedPolicy,
    scope: _Scope,
    origin: str,
    definitions: Snapshot,
    *,
    wants_operations: bool,
) -> PlanReport:
    with progress("comparing links", links(old, new)) as advance:
        comparison = compare(old, new, tick=advance)
    # To compile takes as long as all the rest, so it is not done only to learn that there is a change.
    operations: tuple[str, ...] | None = None
    if wants_operations or comparison.is_nothing:
        operations = _operations(old, new, scope.settings)
    return PlanReport(
        origin=origin,
        comparison=comparison,
        names=ObjectNames.of(old, new, definitions=definitions, memo=scope.memo),
        sessions=() if scope.everywhere else inputs.preview_cuts(partial(sessions_newly_cut, old, new)),
        operations=operations if wants_operations else None,
        changes=not comparison.is_nothing or bool(operations),
        expiring=new.expiring,
    )


def _operations(old: ResolvedPolicy, new: ResolvedPolicy, settings: Settings) -> tuple[str, ...]:
    """Return the kernel operations that would turn the old policy's table into the new one's."""
    if old == new and old != ResolvedPolicy():
        return ()
    from sgagent.compiler.compilation import compile_  # noqa: PLC0415 - most plans compile nothing
    from sgagent.compiler.enforce import Enforced, enforce  # noqa: PLC0415 - the same

    layout, logging = MarkLayout(settings.enforcement.mark_mask), settings.flow_log.logging
    memo, enforced = Memo(), None
    if old != ResolvedPolicy():
        state = first_state(old.remembering, layout)
        enforced = Enforced(policy=old, ruleset=compile_(old, layout, state, logging, memo).ruleset)
    enforcement = enforce(
        new,
        enforced.ruleset if enforced else None,
        (),
        layout,
        enforced=enforced,
        sessions=settings.enforcement.sessions,
        flow_logging=logging,
        memo=memo,
    )
    return tuple(map(describe, enforcement.plan.operations))
