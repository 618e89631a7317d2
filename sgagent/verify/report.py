"""What came of a proof, and packets that refute one, for scripts and people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sgagent.core.explanation import reason
from sgagent.core.model import PROTOCOL_NAMES, Family, Protocol, address_text
from sgagent.verify import Outcome
from sgagent.verify.expectation import Expectation
from sgagent.verify.fate_comparison import Counterexample
from sgagent.verify.interpreter import Trace
from sgagent.verify.packets import NO_PROTOCOL, WITH_INPUT_LINK, PacketAtHook, opener_of
from sgagent.verify.proof import Proof

Json = dict[str, Any]

_LABEL_WIDTH = 9


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
    """Return the fields of a packet for which the table does not do what the policy says."""
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
        "tracking": packet.state.value,
        "mark": None if packet.session is None else packet.session.mark,
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


def lines(proof: Proof, seconds: float, table: str) -> Iterator[str]:
    """Yield what a person has to know, the outcome first.

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
    yield f"  {_cells(proof.cells)} compared in {seconds:.1f} s"


def _counterexample_lines(found: Counterexample) -> Iterator[str]:
    yield _labelled("packet", describe(found.packet))
    yield _labelled("policy", _expected(found.packet, found.expected))
    yield _labelled("table", _found(found.found))
    yield _labelled("path", " > ".join(found.found.path) or "no chain")
    if found.expected.mark != found.found.mark:
        yield _labelled(
            "mark", f"{_mark(found.found.mark)} afterwards, expected {_mark(found.expected.mark)}"
        )


def _labelled(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_WIDTH}}{text}"


def describe(packet: PacketAtHook) -> str:
    """Return in words what a packet is, where, and what conntrack says of it."""
    ends = (
        _end(packet.family, packet.source, packet.source_port),
        _end(packet.family, packet.destination, packet.destination_port),
    )
    kind = "" if packet.icmp_type is None else f" type {packet.icmp_type}"
    mark = "" if packet.session is None else f", mark {_mark(packet.session.mark)}"
    place = f"{_direction(packet)} on {packet.interface}"
    if packet.other_interface:
        place += f" {'to' if packet.hook in WITH_INPUT_LINK else 'from'} {packet.other_interface}"
    what = f"{_protocol(packet.protocol)}{kind} from {ends[0]} to {ends[1]}"
    return f"{place}, {what}, {packet.state.value}{mark}"


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
    if decision.rule is not None:
        return (
            f"{expected.verdict.value}, by rule {decision.rule.rule_id} of {decision.rule.security_group_id}"
        )
    return f"{expected.verdict.value}: {reason(decision.decided_by, opener_of(packet))}"


def _found(found: Trace) -> str:
    counted = f", counted as {', '.join(found.counters)}" if found.counters else ", not counted"
    return f"{found.verdict.value}{counted}"


def _mark(mark: int | None) -> str:
    return "none" if mark is None else f"{mark:#x}"


def _cells(number: int) -> str:
    return "1 part of the packets" if number == 1 else f"{number:,} parts of the packets"
