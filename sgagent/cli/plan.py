"""``sgagent plan``: show what candidate definitions would change against the enforced ones.

The report puts the verdict first for people; ``--json`` prints the same facts as one object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from sgagent.agent.sessions import open_sessions_of_agents_too
from sgagent.analysis.compare import Comparison, Effect, Fate, FlowChange, RuleChange, compare, links
from sgagent.analysis.flow_text import (
    ObjectNames,
    cidrs,
    decision_text,
    port_text,
    protocol_text,
    traffic_text,
)
from sgagent.analysis.header_space import Clause
from sgagent.cli.agent_client import InForce, enforced_now, modes_in_force
from sgagent.cli.inputs import (
    UNNAMED,
    accept_or_refuse,
    add_policy_arguments,
    add_time_argument,
    fetch,
    hand_bindings,
    latest_time,
    load_settings,
    read_files,
    resolve_everywhere,
    resolve_for_host,
)
from sgagent.cli.output import Progress, terminal_width
from sgagent.core.addresses import Ranges, joined, without
from sgagent.core.errors import UsageError, printable
from sgagent.core.lockout import NamedCut, as_keys, named, sessions_newly_cut
from sgagent.core.memo import Memo
from sgagent.core.model import (
    ALL_PORTS,
    Family,
    PortSet,
    Snapshot,
)
from sgagent.core.policy import Peer, ResolvedPolicy, ResolvedRule
from sgagent.core.resolve import Resolution
from sgagent.core.rule_values import few_objects, instant_text, protocols_text
from sgagent.documents import parse_other_version
from sgagent.host.links import NetlinkHost
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.text import describe
from sgagent.ports import Delivery
from sgagent.settings import Settings

MOST_SHOWN = 40
"""Lines of a part that people are shown; the rest is counted."""

MOST_OPERATIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What a candidate changes."""

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


def lines(report: PlanReport, width: int | None) -> list[str]:
    """Return what people read.

    Args:
        report: what was found.
        width: of the terminal, beyond which operations are cut; None is no limit.
    """
    found = [verdict(report), f"  against {report.origin}"]
    for effect in Effect:
        flows = [flow for flow in report.comparison.flows if flow.effect is effect]
        found += _part(effect.value, [_flow_text(flow, report.names) for flow in flows])
    found += _part("sessions that would be cut", list(map(str, report.sessions)))
    found += _part("rules", [_rule_text(change) for change in report.comparison.rules])
    found += _part("links", list(_link_texts(report.comparison)))
    found += _part("rules that end", list(map(_end_text, report.expiring)))
    operations = [_cut(operation, width) for operation in report.operations or ()]
    found += _part(f"kernel, {_count(len(operations), 'operation')}", operations, most=MOST_OPERATIONS)
    return [printable(line) for line in found]


def verdict(report: PlanReport) -> str:
    """Return the plan in one line."""
    comparison = report.comparison
    text = f"opens {comparison.count(Effect.OPENS)}, closes {comparison.count(Effect.CLOSES)}"
    if report.sessions:
        text += f", cuts {_count(len(report.sessions), 'session')}"
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


def _flow_text(flow: FlowChange, names: ObjectNames) -> str:
    change, box = flow.box.label, flow.box
    preferred = _objects(change.after, change.before)
    peers = names.text(box.peers, box.family, preferred, flow.interfaces)
    if "." not in peers and ":" not in peers:
        peers += f" ({box.family.value.replace('ip', 'IP')})"
    where = f"{', '.join(flow.interfaces)} {flow.direction.value}"
    return (
        f"{where}: {traffic_text(box, flow.direction, peers)}:"
        f" {decision_text(change.after)} (was {decision_text(change.before)})"
    )


def _objects(*clauses: Clause) -> list[Peer]:
    return [peer for clause in clauses if clause.rule is not None for peer in clause.rule.peer.objects]


def _rule_text(change: RuleChange) -> str:
    rule = change.rule
    text = f"{rule.rule_id} of {rule.security_group_id} {_FATES[change.fate]}"
    if change.before and change.after:
        text += ": " + ", ".join(_differences(change.before, change.after))
    return text if change.has_effect else f"{text} (without effect)"


_FATES = {
    Fate.APPEARS: "appears",
    Fate.GOES: "goes",
    Fate.CHANGES: "changes",
    Fate.OBJECT_CHANGES: "is as before, its object changes",
}


def _end_text(rule: ResolvedRule) -> str:
    return f"{rule.rule_id} of {rule.security_group_id}, {rule.policy.value}: {_expiry(rule)}"


def _expiry(rule: ResolvedRule) -> str:
    return instant_text(rule.expires) if rule.expires else "never"


def _differences(before: ResolvedRule, after: ResolvedRule) -> Iterator[str]:
    """Yield what differs, like ``priority 1 → 2``."""
    pairs = (
        ("policy", before.policy.value, after.policy.value),
        ("priority", str(before.priority), str(after.priority)),
        ("protocol", protocols_text(before.protocols), protocols_text(after.protocols)),
        ("ports", _ports(before.ports), _ports(after.ports)),
        ("source ports", _ports(before.source_ports), _ports(after.source_ports)),
        ("local address", str(before.local_address or "any"), str(after.local_address or "any")),
        ("expires", _expiry(before), _expiry(after)),
    )
    yield from (f"{name} {old} → {new}" for name, old, new in pairs if old != new)
    if before.peer.name != after.peer.name:
        yield _object_change(before.peer.name, after.peer.name)
    if before.peer.name == after.peer.name and before.peer != after.peer:
        yield _membership(before.peer, after.peer)


def _object_change(before: str, after: str) -> str:
    """Return both of two objects, or what came to a list of objects and what left it."""
    old, new = before.split(", "), after.split(", ")
    if min(len(old), len(new)) == 1:
        return f"object {few_objects(before)} → {few_objects(after)}"
    known = frozenset(old) & frozenset(new)
    parts = [[f"{sign}{one}" for one in some if one not in known] for sign, some in (("+", new), ("-", old))]
    return "objects " + ", ".join(few_objects(", ".join(part)) for part in parts if part)


def _ports(ports: PortSet) -> str:
    return "any" if ports.is_all else port_text(ports.ranges) or "none"


def _membership(before: Peer, after: Peer) -> str:
    """Return what came to an object and what left it."""
    parts = []
    for sign, whole, part in (("+", after, before), ("-", before, after)):
        blocks = [
            f"{sign}{block}"
            for family in Family
            for block in cidrs(
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


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def as_json(report: PlanReport) -> dict[str, object]:
    """Return the plan as the object that scripts read."""
    comparison = report.comparison
    return {
        "opens": comparison.count(Effect.OPENS),
        "closes": comparison.count(Effect.CLOSES),
        "changes": report.changes,
        "against": report.origin,
        "flows": [_flow_json(flow, report.names) for flow in comparison.flows],
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
                "expires_at": _expiry(rule),
            }
            for rule in report.expiring
        ],
    }


def _flow_json(flow: FlowChange, names: ObjectNames) -> dict[str, object]:
    box, change = flow.box, flow.box.label
    everywhere = ((0, box.family.last_address),)
    return {
        "effect": flow.effect.value,
        "interfaces": list(flow.interfaces),
        "direction": flow.direction.value,
        "family": box.family.value,
        "object": names.exact(box.peers, box.family, _objects(change.after, change.before), flow.interfaces),
        "addresses": cidrs(box.peers, box.family),
        "protocol": protocol_text(box.protocols),
        "ports": _ports_json(box.ports),
        "source_ports": _ports_json(box.source_ports),
        "local_addresses": None if box.locals == everywhere else cidrs(box.locals, box.family),
        "before": _clause_json(change.before),
        "after": _clause_json(change.after),
    }


def _ports_json(ports: Ranges) -> str | None:
    """Return ports as a rule writes them; None is any."""
    return None if ports == ALL_PORTS.ranges else str(PortSet(ports))


def _clause_json(clause: Clause) -> dict[str, object]:
    rule = clause.rule
    return {
        "verdict": clause.policy.value,
        "decided_by": clause.decided_by.value,
        "rule_id": rule.rule_id if rule else None,
        "security_group_id": rule.security_group_id if rule else None,
    }


def _rule_json(change: RuleChange) -> dict[str, object]:
    return {
        "fate": change.fate.value,
        "rule_id": change.rule.rule_id,
        "security_group_id": change.rule.security_group_id,
        "has_effect": change.has_effect,
        "differences": list(_differences(change.before, change.after))
        if change.before and change.after
        else [],
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_policy_arguments(parser)
    add_time_argument(parser)
    parser.add_argument(
        "--against",
        metavar="PATH",
        type=Path,
        help="compare with these documents, instead of what is enforced now",
    )
    parser.add_argument(
        "--everywhere",
        action="store_true",
        help="for every network interface of the documents, instead of this host's links",
    )
    parser.add_argument(
        "--operations", action="store_true", help="also show the kernel's operations (--json always has them)"
    )
    parser.add_argument("--verify", action="store_true", help="prove the table of the candidate, too")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if anything changes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print what would change; the exit code says on request whether anything does."""
    if options.everywhere and options.interface:
        raise UsageError("--everywhere and --interface exclude each other")
    settings = load_settings(options)
    scope = _Scope(
        settings=settings,
        interfaces=tuple(options.interface),
        everywhere=options.everywhere,
        at=options.at or latest_time(settings),
    )
    parsed = Memo()
    delivery = fetch(settings, options.definitions, UNNAMED, parsed)
    candidate = scope.resolve(delivery)
    accept_or_refuse(candidate.problems, strict=options.strict or settings.enforcement.strict)
    present = _present(settings, options.against)
    enforced = _parse_as(delivery, present, settings, parsed)
    old, new = _in_modes_of_host(scope, scope.resolve_present(enforced), candidate.policy)
    wants_operations = options.operations or options.json
    report = _report(old, new, scope, present.origin, delivery.snapshot, wants_operations=wants_operations)
    if options.json:
        print(json.dumps(as_json(report)))
    else:
        print("\n".join(lines(report, terminal_width())))
    if options.verify:
        from sgagent.cli.compile import report_proof  # noqa: PLC0415 - few ask for a proof

        if code := report_proof(candidate.policy, settings):
            return code
    return 1 if options.exit_code and report.changes else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """On which interfaces the two sides are compared."""

    settings: Settings
    interfaces: tuple[str, ...]
    """``--interface`` arguments."""

    everywhere: bool
    at: datetime
    """The latest time, on both sides."""

    memo: Memo = field(default_factory=Memo)
    """Of what was resolved: the sides have most of it in common."""

    def resolve(self, delivery: Delivery) -> Resolution:
        """Return what definitions come to there."""
        if self.everywhere:
            return resolve_everywhere(self.settings, delivery, self.memo, at=self.at)
        return resolve_for_host(self.settings, delivery, self.interfaces, memo=self.memo, at=self.at)

    def resolve_present(self, present: Delivery | None) -> ResolvedPolicy:
        """Return what is in force there; a link whose groups are all unknown to it is not judged yet."""
        if present is None:
            return ResolvedPolicy()
        known = present.snapshot.group_by_id
        meant = [
            argument
            for argument, binding in zip(self.interfaces, hand_bindings(self.interfaces), strict=True)
            if not binding.security_group_ids or any(group in known for group in binding.security_group_ids)
        ]
        if self.interfaces and not meant:
            return ResolvedPolicy()
        return replace(self, interfaces=tuple(meant)).resolve(present).policy

    @property
    def is_this_host(self) -> bool:
        """Return whether the links that are meant may be those of this host."""
        return not self.everywhere


def _present(settings: Settings, against: Path | None) -> InForce:
    """Return what the candidate is compared with."""
    if against is None:
        return enforced_now(settings)
    return InForce(origin=str(against), documents=read_files(settings, against), version=UNNAMED)


def _parse_as(candidate: Delivery, present: InForce, settings: Settings, parsed: Memo) -> Delivery | None:
    """Return the definitions in force as another version of the candidate's; None where nothing is.

    Raises:
        DocumentError: they have errors, or this version of sgagent can't read them any more.
    """
    if present.documents is None:
        return None
    documents = present.documents
    snapshot = parse_other_version(documents, candidate.documents, settings.limits, present.version, parsed)
    return Delivery(snapshot=snapshot, documents=documents)


def _in_modes_of_host(scope: _Scope, *policies: ResolvedPolicy) -> Iterator[ResolvedPolicy]:
    """Yield policies in the modes that ``sgagent mode`` set on this host; elsewhere those do not count."""
    if not scope.is_this_host:
        yield from policies
        return
    overrides, fault = modes_in_force(scope.settings)
    if fault is not None:
        print(
            printable(
                f"warning: the overrides of 'sgagent mode' can't be read, so the modes of the configuration"
                f" are used (ask as root): {fault}"
            ),
            file=sys.stderr,
        )
    yield from map(overrides.over, policies)


def _report(
    old: ResolvedPolicy,
    new: ResolvedPolicy,
    scope: _Scope,
    origin: str,
    definitions: Snapshot,
    *,
    wants_operations: bool,
) -> PlanReport:
    with Progress("comparing links", links(old, new)) as progress:
        comparison = compare(old, new, tick=progress.advance)
    # To compile takes as long as all the rest, so it is not done only to learn that there is a change.
    operations: tuple[str, ...] | None = None
    if wants_operations or comparison.is_nothing:
        operations = _operations(old, new, scope.settings)
    return PlanReport(
        origin=origin,
        comparison=comparison,
        names=ObjectNames.of(old, new, definitions=definitions, memo=scope.memo),
        sessions=_sessions_cut(old, new) if scope.is_this_host else (),
        operations=operations if wants_operations else None,
        changes=not comparison.is_nothing or bool(operations),
        expiring=new.expiring,
    )


def _sessions_cut(old: ResolvedPolicy, new: ResolvedPolicy) -> tuple[NamedCut, ...]:
    """Return the open sessions that would be cut, as far as this host can tell."""
    try:
        found: Iterable[NamedCut] = map(
            named, sessions_newly_cut(old, new, NetlinkHost().facts(), open_sessions_of_agents_too())
        )
        return tuple(found)
    except OSError as error:
        print(f"warning: open sessions can't be listed: {error.strerror}", file=sys.stderr)
        return ()


def _operations(old: ResolvedPolicy, new: ResolvedPolicy, settings: Settings) -> tuple[str, ...]:
    """Return the kernel operations that would turn the old policy's table into the new one's."""
    if old == new and old != ResolvedPolicy():
        return ()
    from sgagent.compiler.compile import compile_  # noqa: PLC0415 - most plans compile nothing
    from sgagent.compiler.enforce import Enforced, enforce  # noqa: PLC0415 - the same

    layout, logging = MarkLayout(settings.enforcement.mark_mask), settings.flow_log.logging
    memo = Memo()
    if old == ResolvedPolicy():
        plan = enforce(new, None, (), layout, flow_logging=logging).plan
    else:
        state = first_state([interface.name for interface in old.interfaces], layout)
        standing = compile_(old, layout, state, logging, memo).ruleset
        plan = enforce(
            new,
            standing,
            (),
            layout,
            enforced=Enforced(policy=old, ruleset=standing),
            sessions=settings.enforcement.sessions,
            flow_logging=logging,
            memo=memo,
        ).plan
    return tuple(map(describe, plan.operations))
