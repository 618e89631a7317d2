"""What ``sgagent plan`` found, as people read it, the verdict first, and as one JSON object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.agent.clock import count
from sgagent.analysis import flow_text
from sgagent.analysis.compare import Comparison, Effect, Fate, FlowChange, RuleChange
from sgagent.analysis.header_space import Clause
from sgagent.core.addresses import joined, without
from sgagent.core.errors import printable
from sgagent.core.lockout import NamedCut, as_keys
from sgagent.core.model import Family, PortSet
from sgagent.core.policy import Peer, ResolvedRule
from sgagent.core.rule_values import few_objects, instant_text, protocols_text

MOST_SHOWN = 40
"""Lines of a part that people are shown; the rest is counted."""

MOST_OPERATIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What a candidate changes."""

    origin: str
    """What it was compared with, in words."""

    comparison: Comparison
    names: flow_text.ObjectNames
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
    ends = [
        f"{rule.rule_id} of {rule.security_group_id}, {rule.policy.value}: {_expiry(rule)}"
        for rule in report.expiring
    ]
    found += _part("rules that end", ends)
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


def _flow_text(flow: FlowChange, names: flow_text.ObjectNames) -> str:
    change, box = flow.box.label, flow.box
    preferred = _objects(change.after, change.before)
    peers = flow_text.peers_text(box, names, preferred, flow.interfaces)
    where = f"{', '.join(flow.interfaces)} {flow.direction.value}"
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


def _expiry(rule: ResolvedRule) -> str:
    return instant_text(rule.expires) if rule.expires else "never"


def _differences(change: RuleChange) -> Iterator[str]:
    """Yield what differs between a rule before and after, like ``priority 1 → 2``."""
    before, after = change.before, change.after
    if before is None or after is None:
        return
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
    return "any" if ports.is_all else flow_text.port_text(ports.ranges) or "none"


def _membership(before: Peer, after: Peer) -> str:
    """Return what came to an object and what left it."""
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


def _flow_json(flow: FlowChange, names: flow_text.ObjectNames) -> dict[str, object]:
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
