"""The result of a proof, and packets that refute one, for scripts and people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sgagent.core.clauses import DecidedBy
from sgagent.core.conditions import groups_text
from sgagent.core.explanation import reason
from sgagent.core.model import PORTED_NUMBERS, PROTOCOL_NAMES, Family, Policy, Protocol, address_text
from sgagent.nft.ruleset import mac_text
from sgagent.verify import Outcome
from sgagent.verify.expectation import Expectation
from sgagent.verify.fate_comparison import Counterexample
from sgagent.verify.guardrails import GuardrailsOnTable, TableViolation
from sgagent.verify.packets import NO_PROTOCOL, WITH_INPUT_LINK, Ends, PacketAtHook, SessionAtHook, opener_of
from sgagent.verify.proof import Proof

Json = dict[str, Any]


def as_json(proof: Proof, seconds: float) -> Json:
    """Return the object that ``--json`` prints.

    Args:
        proof: what came of it.
        seconds: how long it took.
    """
    found = proof.counterexample
    return {
        "outcome": proof.outcome.value,
        "cells": proof.cells,
        "seconds": round(seconds, 3),
        "unsupported": list(proof.unsupported),
        "counterexample": None if found is None else counterexample_as_json(found),
    }


def counterexample_as_json(found: Counterexample) -> Json:
    """Return the fields of a packet on which the table and the policy disagree."""
    packet, expected, trace = found.packet, found.expected, found.found
    rule = expected.decision.rule
    return {
        "interface": packet.interface,
        "other_interface": packet.other_interface or None,
        "direction": _direction(packet),
        "family": packet.family.value,
        "protocol": _protocol(packet.protocol),
        "source": address_text(packet.family, packet.source),
        "destination": address_text(packet.family, packet.destination),
        "source_port": packet.source_port,
        "destination_port": packet.destination_port,
        "icmp_type": packet.icmp_type,
        "hop_limit": packet.hop_limit,
        "tcp_flags": packet.tcp_flags,
        "frame_destination": None if packet.ether_destination is None else mac_text(packet.ether_destination),
        "tracking": packet.state.value,
        "user": packet.user,
        "unit": None if packet.unit is None else groups_text([(packet.unit, packet.unit)]),
        "mark": None if packet.session is None else packet.session.mark,
        "session": None if packet.session is None else _session_as_json(packet.family, packet.session),
        "expected": {
            "verdict": expected.verdict.value,
            "decided_by": expected.decision.decided_by.value,
            "rule_id": None if rule is None else rule.rule_id,
            "mark": expected.mark,
        },
        "found": {
            "verdict": trace.verdict.value,
            "counter": ", ".join(trace.counters) or None,
            "mark": trace.mark,
            "path": list(trace.path),
        },
    }


def _session_as_json(family: Family, session: SessionAtHook) -> Json:
    """Return conntrack's fields of a session; each tuple is source, destination and their ports."""
    has_ports = session.protocol in PORTED_NUMBERS
    original, reply = (
        [
            *(address_text(family, address) for address in (ends.source, ends.destination)),
            *((ends.source_port, ends.destination_port) if has_ports else (None, None)),
        ]
        for ends in (session.original, session.reply)
    )
    return {
        "direction": session.direction.value,
        "protocol": _protocol(session.protocol),
        "original": original,
        "reply": reply,
    }


def guardrails_as_json(kept: GuardrailsOnTable) -> Json:
    """Return the result of the statements on the table."""
    broken = [_violation_as_json(one) for one in kept.violations]
    return {"guardrails": broken, "guardrails_unsupported": list(kept.unsupported)}


def _violation_as_json(violation: TableViolation) -> Json:
    rail, example = violation.resolved.guardrail, counterexample_as_json(violation.example)
    return {
        "id": rail.guardrail_id,
        "reason": rail.reason,
        "statement": str(rail),
        "interface": example["interface"],
        "direction": rail.direction.value,
        **{name: example["found"][name] for name in ("verdict", "counter", "path")},
        "packet": {name: example[name] for name in _OF_STATEMENTS},
    }


_OF_STATEMENTS = (
    *("family", "protocol", "source", "destination", "source_port", "destination_port"),
    *("user", "unit"),
)
"""The fields of a packet that a statement can speak of."""


def guardrail_lines(kept: GuardrailsOnTable, table: str) -> Iterator[str]:
    """Yield which statements the table breaks, and by which packet."""
    for one in kept.violations:
        rail, packet, trace = one.resolved.guardrail, one.example.packet, one.example.found
        yield f"guardrail {rail.guardrail_id} is broken by {table}: {rail} ({rail.reason})"
        yield f"  packet   {describe(packet)}"
        yield f"  table    {trace.verdict.value}: {' > '.join(trace.path) or 'no chain'}"
    yield from (f"guardrails: not known of all packets: {reason}" for reason in kept.unsupported)


def lines(proof: Proof, seconds: float, table: str) -> Iterator[str]:
    """Yield the lines for a person, the outcome first.

    Args:
        proof: what came of it.
        seconds: how long it took.
        table: what was verified, in words.
    """
    match proof.outcome:
        case Outcome.PROVED:
            yield f"proved: {table} does what the policy says, for every packet"
        case Outcome.UNKNOWN:
            yield f"unknown: verify can't decide whether {table} does what the policy says:"
            yield from (f"  {one}" for one in proof.unsupported)
        case Outcome.REFUTED:
            yield f"refuted: {table} does not do what the policy says"
    if proof.counterexample is not None:
        yield from _counterexample_lines(proof.counterexample)
    parts = "1 part" if proof.cells == 1 else f"{proof.cells:,} parts"
    yield f"  {parts} of the packets compared in {seconds:.1f} s"


def _counterexample_lines(found: Counterexample) -> Iterator[str]:
    packet, expected, trace = found.packet, found.expected, found.found
    counted = f"counted as {', '.join(trace.counters)}" if trace.counters else "not counted"
    rows = [
        ("packet", describe(packet)),
        *([] if packet.session is None else [("session", _session(packet.family, packet.session))]),
        ("policy", _expected(packet, expected)),
        ("table", f"{trace.verdict.value}, {counted}"),
        ("path", " > ".join(trace.path) or "no chain"),
    ]
    if expected.mark != trace.mark:
        rows.append(("mark", f"{_mark(trace.mark)} afterwards, expected {_mark(expected.mark)}"))
    yield from (f"  {label:<9}{text}" for label, text in rows)


def describe(packet: PacketAtHook) -> str:
    """Return in words a packet, its place, and conntrack's state of it."""
    source = _end(packet.family, packet.source, packet.source_port)
    destination = _end(packet.family, packet.destination, packet.destination_port)
    kind = "" if packet.icmp_type is None else f" type {packet.icmp_type}"
    mark = "" if packet.session is None else f", mark {_mark(packet.session.mark)}"
    place = f"{_direction(packet)} on {packet.interface}"
    if packet.other_interface:
        place += f" {'to' if packet.hook in WITH_INPUT_LINK else 'from'} {packet.other_interface}"
    what = f"{_protocol(packet.protocol)}{kind} from {source} to {destination}"
    whose = "" if packet.user is None else f" of user {packet.user}"
    whose += "" if packet.unit is None else f" of {groups_text([(packet.unit, packet.unit)])}"
    return f"{place}, {what}{whose}, {packet.state.value}{mark}"


def _session(family: Family, session: SessionAtHook) -> str:
    """Return in words which session a packet belongs to, and which way."""
    has_ports = session.protocol in PORTED_NUMBERS

    def ways(ends: Ends) -> str:
        source = _end(family, ends.source, ends.source_port if has_ports else None)
        return f"{source} to {_end(family, ends.destination, ends.destination_port if has_ports else None)}"

    opens = "" if session.is_confirmed else " and opens it"
    tuples = f"original {ways(session.original)}, reply {ways(session.reply)}"
    return (
        f"{_protocol(session.protocol)}, {tuples}; the packet goes the {session.direction.value} way{opens}"
    )


def _direction(packet: PacketAtHook) -> str:
    return "ingress" if packet.hook in WITH_INPUT_LINK else "egress"


def _protocol(number: int) -> str:
    if number == NO_PROTOCOL:
        return "broken headers"
    return PROTOCOL_NAMES.get(Protocol(number), str(number))


def _end(family: Family, address: int, port: int | None) -> str:
    text = address_text(family, address)
    return text if port is None else f"{text} port {port}"


def _expected(packet: PacketAtHook, expected: Expectation) -> str:
    decision = expected.decision
    if decision.decided_by is DecidedBy.UNBOUND and decision.verdict is Policy.DROP:
        frame = mac_text(packet.ether_destination or 0)
        return f"drop: its frame is to {frame}, which only ports of masters take, and this interface is none"
    if (rule := decision.rule) is not None:
        return f"{expected.verdict.value}, by rule {rule.rule_id} of {rule.security_group_id}"
    return f"{expected.verdict.value}: {reason(decision.decided_by, opener_of(packet))}"


def _mark(mark: int | None) -> str:
    return "none" if mark is None else f"{mark:#x}"
