"""``sgagent plan``: show the changes of candidate definitions against the enforced ones.

People read the verdict first; scripts read one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from sgagent.agent.names.resolver import DnsAnswers
from sgagent.agent.timed_rules import RecurringRule, recurring_rules
from sgagent.analysis import flow_text
from sgagent.analysis.compare import Comparison, Effect, Fate, FlowChange, RuleChange, compare, links
from sgagent.analysis.flow_text import ObjectNames
from sgagent.cli import inputs
from sgagent.cli.agent_client import enforced_now, modes_of_host
from sgagent.cli.clone import with_other_group
from sgagent.cli.configuration import load_settings
from sgagent.cli.guardrails import Keeper, add_guardrails_argument
from sgagent.cli.main import option_adder
from sgagent.cli.output import progress, terminal_width
from sgagent.core.addresses import joined, without
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.clauses import Clause
from sgagent.core.errors import UsageError, count, printable
from sgagent.core.lockout import NamedCut, as_keys, sessions_newly_cut
from sgagent.core.memo import Memo
from sgagent.core.model import Family, PortSet, Snapshot
from sgagent.core.policy import Peer, ResolvedPolicy, ResolvedRule
from sgagent.core.resolve import Resolution, dns_names, resolve
from sgagent.core.rule_values import end_text, few_objects, protocols_text
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
    add_guardrails_argument(parser)
    add("--against PATH", "compare with these documents, instead of what is enforced now")
    add("--between GROUP NEW", "compare two groups of the definitions", nargs=2, metavar=("GROUP", "NEW"))
    add("--everywhere", "for every network interface of the documents, instead of this host's links")
    add("--operations", "also show the kernel's operations (--json always has them)")
    add("--verify", "prove the table of the candidate, too")
    add("--exit-code", "exit with 1 if anything changes")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the changes; the exit code says on request whether there are any."""
    if options.everywhere and options.interface:
        raise UsageError("--everywhere and --interface exclude each other")
    if options.between and (options.interface or options.everywhere or options.against):
        raise UsageError("--between excludes --interface, --everywhere and --against")
    settings = load_settings(options)
    scope = _Scope(
        settings=settings,
        interfaces=tuple(options.interface),
        everywhere=options.everywhere,
        at=options.at or inputs.latest_time(settings),
        dns=inputs.dns_answers(settings, options),
    )
    parsed = Memo()
    delivery = inputs.fetch(settings, options.definitions, inputs.UNNAMED, parsed)
    if options.between:
        return _print_report(_between(delivery, scope, options), options, {})
    candidate = Keeper.of(settings, options).here(scope.resolve(delivery), delivery)
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
    return code or _print_report(report, options, verified)


def _print_report(report: PlanReport, options: argparse.Namespace, beside: dict[str, object]) -> int:
    if options.json:
        print(json.dumps(as_json(report) | beside))
    else:
        print("\n".join(lines(report, terminal_width())))
    return 1 if options.exit_code and report.changes else 0


def _between(delivery: Delivery, scope: _Scope, options: argparse.Namespace) -> PlanReport:
    """Return the changes where one group of the definitions stands for another."""
    snapshot, settings = delivery.snapshot, scope.settings
    group = options.between[0]
    candidate = with_other_group(snapshot, *options.between)
    hand = HandBinding(interface=group, security_group_ids=(group,))
    before, after = (
        resolve(
            one,
            bind(one, (hand,), HostFacts(), automatically=False),
            inputs.exemptions(settings),
            at=scope.at,
            names=scope.dns.of(dns_names(one), HostFacts()).addresses,
        )
        for one in (snapshot, candidate)
    )
    inputs.accept_or_refuse((*delivery.problems, *after.errors), settings, options)
    wanted = options.operations or options.json
    everywhere = replace(scope, everywhere=True)  # live sessions are none of either's
    return _report(before.policy, after.policy, everywhere, group, candidate, wants_operations=wanted)


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
        """Resolve definitions in the scope."""
        if self.everywhere:
            return inputs.resolve_everywhere(self.settings, delivery, self.memo, at=self.at, dns=self.dns)
        return inputs.resolve_for_host(
            self.settings, delivery, self.interfaces, memo=self.memo, at=self.at, dns=self.dns
        )

    def resolve_present(self, present: Delivery | None) -> ResolvedPolicy:
        """Return the policy in force there; a link whose groups are all unknown to it is not judged yet."""
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


def _enforced(
    candidate: Delivery, settings: Settings, options: argparse.Namespace, parsed: Memo
) -> tuple[str, Delivery | None]:
    """Return the definitions to compare with, and their origin in words; None where there are none.

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
        recurring=recurring_rules(new),
    )


def _operations(old: ResolvedPolicy, new: ResolvedPolicy, settings: Settings) -> tuple[str, ...]:
    """Return the kernel operations that would turn the old policy's table into the new one's."""
    if old == new:
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


MOST_SHOWN = 40
"""Lines of a part that people are shown; the rest is counted."""

MOST_OPERATIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """The changes of a candidate."""

    origin: str
    """What it was compared with, in words."""

    comparison: Comparison
    names: ObjectNames
    sessions: tuple[NamedCut, ...]
    """Open sessions that it would cut."""

    operations: tuple[str, ...] | None
    """The kernel operations, as text; None where they were not asked for."""

    changes: bool
    """Whether there is any change, one without effect included."""

    expiring: tuple[ResolvedRule, ...] = ()
    """The candidate's rules that will end, the one that ends first at the front."""

    recurring: tuple[RecurringRule, ...] = ()
    """Those that have hours."""


def lines(report: PlanReport, width: int | None) -> list[str]:
    """Return the lines for people.

    Args:
        report: what was found.
        width: of the terminal, beyond which operations are cut; None is no limit.
    """
    found = [verdict(report), f"  against {report.origin}"]
    for effect in Effect:
        flows = [flow for flow in report.comparison.flows if flow.effect is effect]
        found += _part(effect.value, [flow_as_text(flow, report.names) for flow in flows])
    found += _part("sessions that would be cut", list(map(str, report.sessions)))
    found += _part("rules", [_rule_text(change) for change in report.comparison.rules])
    found += _part("links", list(_link_texts(report.comparison)))
    ends = [
        f"{rule.rule_id} of {rule.security_group_id}, {rule.policy.value}: {end_text(rule)}"
        for rule in report.expiring
    ]
    found += _part("rules that end", ends)
    found += _part("rules with hours", list(map(str, report.recurring)))
    operations = [_cut(operation, width) for operation in report.operations or ()]
    found += _part(f"kernel, {count(len(operations), 'operation')}", operations, most=MOST_OPERATIONS)
    return [printable(line) for line in found]


def verdict(report: PlanReport) -> str:
    """Return the plan in one line."""
    comparison = report.comparison
    text = f"opens {comparison.count(Effect.OPENS)}, closes {comparison.count(Effect.CLOSES)}"
    if report.sessions:
        text += f", cuts {count(len(report.sessions), 'session')}"
    if not report.changes:
        text += ": nothing changes"
    elif not comparison.flows:
        text += ": no verdict changes"
    return text


def _part(title: str, texts: list[str], most: int = MOST_SHOWN) -> Iterator[str]:
    """Yield a part of the report, if there is anything in it."""
    if texts:
        yield ""
        yield title
        yield from (f"  {text}" for text in texts[:most])
        if len(texts) > most:
            yield f"  … and {len(texts) - most} more: --json shows all"


def flow_as_text(flow: FlowChange, names: ObjectNames) -> str:
    """Return a flow that opens or closes, for people."""
    change, box = flow.box.label, flow.box
    preferred = _objects(change.after, change.before)
    peers = flow_text.peers_text(box, names, preferred, flow.interfaces)
    where = f"{', '.join(flow.interfaces)} {flow.direction.value}".lstrip()
    return (
        f"{where}: {flow_text.traffic_text(box, flow.direction, peers)}:"
        f" {flow_text.decision_text(change.after)} (was {flow_text.decision_text(change.before)})"
    )


def _objects(*clauses: Clause) -> list[Peer]:
    return [peer for clause in clauses if clause.rule is not None for peer in clause.rule.peer.objects]


def _rule_text(change: RuleChange) -> str:
    rule = change.rule
    text = f"{rule.rule_id} of {rule.security_group_id} {_FATES[change.fate]}"
    if differences := ", ".join(_differences(change)):
        text += f": {differences}"
    return text if change.has_effect else f"{text} (without effect)"


_FATES = {
    Fate.APPEARS: "appears",
    Fate.GOES: "goes",
    Fate.CHANGES: "changes",
    Fate.OBJECT_CHANGES: "is as before, its object changes",
}


def _differences(change: RuleChange) -> Iterator[str]:
    """Yield the differences of a rule before and after, like ``priority 1 → 2``."""
    before, after = change.before, change.after
    if before is None or after is None:
        return
    old, new = before.conditions.texts, after.conditions.texts
    pairs = (
        ("direction", before.direction.value, after.direction.value),
        ("policy", before.policy.value, after.policy.value),
        ("priority", str(before.priority), str(after.priority)),
        ("protocol", protocols_text(before.protocols), protocols_text(after.protocols)),
        ("ports", _ports(before.ports), _ports(after.ports)),
        ("source ports", _ports(before.source_ports), _ports(after.source_ports)),
        ("local address", str(before.local_address or "any"), str(after.local_address or "any")),
        ("expires", end_text(before) or "never", end_text(after) or "never"),
        *((name, old.get(name, "none"), new.get(name, "none")) for name in sorted({*old, *new})),
    )
    yield from (f"{name} {was} → {now}" for name, was, now in pairs if was != now)
    if before.peer.name != after.peer.name:
        yield _object_change(before.peer.name, after.peer.name)
    if before.peer.name == after.peer.name and before.peer != after.peer:
        yield _membership(before.peer, after.peer)


def _object_change(before: str, after: str) -> str:
    """Return both of two objects, or the objects that came to a list and left it."""
    old, new = before.split(", "), after.split(", ")
    if min(len(old), len(new)) == 1:
        return f"object {few_objects(before)} → {few_objects(after)}"
    known = frozenset(old) & frozenset(new)
    parts = [[f"{sign}{one}" for one in some if one not in known] for sign, some in (("+", new), ("-", old))]
    return "objects " + ", ".join(few_objects(", ".join(part)) for part in parts if part)


def _ports(ports: PortSet) -> str:
    return "any" if ports.is_all else flow_text.port_text(ports.ranges) or "none"


def _membership(before: Peer, after: Peer) -> str:
    """Return the addresses that came to an object and left it."""
    parts = []
    for sign, whole, part in (("+", after, before), ("-", before, after)):
        blocks = [
            f"{sign}{block}"
            for family in Family
            for block in flow_text.cidrs(
                without(joined(whole.addresses.ranges(family)), joined(part.addresses.ranges(family))), family
            )
        ]
        parts += blocks if len(blocks) <= _FEW else [*blocks[:_FEW], f"{sign}{len(blocks) - _FEW} more"]
    return f"{after.name} {' '.join(parts)}".rstrip()


_FEW = 3


def _link_texts(comparison: Comparison) -> Iterator[str]:
    yield from (f"{name} is filtered from now on" for name in comparison.bound)
    yield from (f"{name} is no longer filtered: all its traffic passes" for name in comparison.unbound)
    yield from (f"{name} changes its mode" for name in comparison.modes)


def _cut(text: str, width: int | None) -> str:
    room = None if width is None else max(width - 2, 20)
    return text if room is None or len(text) <= room else text[: room - 1] + "…"


def as_json(report: PlanReport) -> dict[str, object]:
    """Return the plan as the object that scripts read."""
    comparison = report.comparison
    return {
        "opens": comparison.count(Effect.OPENS),
        "closes": comparison.count(Effect.CLOSES),
        "changes": report.changes,
        "against": report.origin,
        "flows": [flow_as_json(flow, report.names) for flow in comparison.flows],
        "sessions_cut": [as_keys(session) for session in report.sessions],
        "rules": [_rule_json(change) for change in comparison.rules],
        "links": {
            "bound": list(comparison.bound),
            "unbound": list(comparison.unbound),
            "modes": list(comparison.modes),
        },
        "operations": list(report.operations or ()),
        "expiring": [
            {
                "rule_id": rule.rule_id,
                "security_group_id": rule.security_group_id,
                "policy": rule.policy.value,
                "expires_at": end_text(rule),
            }
            for rule in report.expiring
        ],
        "recurring": [rule.as_json() for rule in report.recurring],
    }


def flow_as_json(flow: FlowChange, names: ObjectNames) -> dict[str, object]:
    """Return a flow that opens or closes, as the object that scripts read."""
    change = flow.box.label
    return {
        "effect": flow.effect.value,
        "interfaces": list(flow.interfaces),
        "direction": flow.direction.value,
        **flow_text.box_as_json(flow.box, names, _objects(change.after, change.before), flow.interfaces),
        "before": flow_text.clause_as_json(change.before),
        "after": flow_text.clause_as_json(change.after),
    }


def _rule_json(change: RuleChange) -> dict[str, object]:
    return {
        "fate": change.fate.value,
        "rule_id": change.rule.rule_id,
        "security_group_id": change.rule.security_group_id,
        "has_effect": change.has_effect,
        "differences": list(_differences(change)),
    }
