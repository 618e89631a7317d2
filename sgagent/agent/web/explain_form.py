"""The form that asks what happens to a packet: its fields, their validation, and the answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from urllib.parse import parse_qsl

from sgagent.agent.control.requests import ExplainAnswer, ExplainQuestion
from sgagent.agent.web.page import Section
from sgagent.agent.web.rules import MOST_FIELDS, rule_path
from sgagent.core.evaluate import Packet
from sgagent.core.explanation import (
    EPHEMERAL_PORT,
    PROTOCOL_WORDS,
    Explanation,
    describe_packet,
    protocol_number,
    reason,
)
from sgagent.core.model import LAST_PORT, Direction, Protocol
from sgagent.core.rule_values import ported_text

LONGEST_VALUE = 64
"""Characters of a field; the longest address has 45."""

_LAST_TYPE = 255

DIRECTION, INTERFACE, SOURCE, DESTINATION, PROTOCOL, PORT, SOURCE_PORT, ICMP_TYPE = (
    "direction",
    "interface",
    "source",
    "destination",
    "protocol",
    "port",
    "source_port",
    "icmp_type",
)
"""The names of the fields."""

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The fields that the user sent, and the errors in them."""

    values: Mapping[str, str] = field(default_factory=dict)
    """By field, as sent; without empty ones."""

    faults: Mapping[str, str] = field(default_factory=dict)
    """What to do about each wrong field, as a clause without a full stop."""

    question: ExplainQuestion | None = None
    """None where the form is empty or a field is wrong."""

    def value(self, name: str) -> str:
        """Return what the user sent in a field; empty if nothing."""
        return self.values.get(name, "")


def read_form(query: str) -> Form:
    """Parse and validate a query string; an empty one gives an empty form."""
    try:
        pairs = parse_qsl(query, max_num_fields=MOST_FIELDS)
    except ValueError:
        return Form(faults={SOURCE: f"more than {MOST_FIELDS} fields were sent"})
    values = {name: value.strip()[:LONGEST_VALUE] for name, value in pairs if value.strip()}
    if not values:
        return Form()
    faults = dict(_faults(values))
    return Form(values=values, faults=faults, question=None if faults else _question(values))


def _faults(values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each wrong field with what to do about it."""
    if values.get(DIRECTION) not in _DIRECTIONS:
        yield DIRECTION, "choose ingress or egress"
    addresses = {name: _address(values.get(name, "")) for name in (SOURCE, DESTINATION)}
    for name, address in addresses.items():
        if address is None:
            yield name, "write an IPv4 or IPv6 address, like 198.51.100.7"
    source, destination = addresses.values()
    if source and destination and source.version != destination.version:
        yield DESTINATION, f"write an IPv{source.version} address, as the source is one"
    number = protocol_number(values.get(PROTOCOL, ""))
    if number is None:
        yield PROTOCOL, f"write one of {', '.join(PROTOCOL_WORDS)}, or a number from 0 to 255"
    else:
        yield from _faults_of_ports(values, Protocol(number))
        yield from _faults_of_type(values, Protocol(number))


def _faults_of_ports(values: Mapping[str, str], protocol: Protocol) -> Iterator[tuple[str, str]]:
    for name in (PORT, SOURCE_PORT):
        text = values.get(name)
        if text is None:
            if name == PORT and protocol.has_ports:
                yield name, f"write a port: {protocol} needs one"
        elif not protocol.has_ports:
            yield name, f"leave it empty: {protocol} has no ports"
        elif _number(text, LAST_PORT) is None:
            yield name, f"write a number from 0 to {LAST_PORT}"


def _faults_of_type(values: Mapping[str, str], protocol: Protocol) -> Iterator[tuple[str, str]]:
    text = values.get(ICMP_TYPE)
    if text is not None and not protocol.has_types:
        yield ICMP_TYPE, f"leave it empty: {protocol} has no types"
    elif text is not None and _number(text, _LAST_TYPE) is None:
        yield ICMP_TYPE, f"write a number from 0 to {_LAST_TYPE}"


def _question(values: Mapping[str, str]) -> ExplainQuestion:
    """Return the question that valid fields ask."""
    number = protocol_number(values[PROTOCOL]) or 0
    source_port = _number(values.get(SOURCE_PORT, ""), LAST_PORT)
    if source_port is None and Protocol(number).has_ports:
        source_port = EPHEMERAL_PORT
    return ExplainQuestion(
        direction=Direction(values[DIRECTION]),
        source=values[SOURCE],
        destination=values[DESTINATION],
        protocol=number,
        source_port=source_port,
        destination_port=_number(values.get(PORT, ""), LAST_PORT),
        icmp_type=_number(values.get(ICMP_TYPE, ""), _LAST_TYPE),
        interface=values.get(INTERFACE),
    )


_DIRECTIONS = tuple(direction.value for direction in Direction)


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, ipaddress.IPv6Address) and address.scope_id else address


def _number(text: str, most: int) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text) if int(text) <= most else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """A field as the page shows it."""

    name: str
    label: str
    hint: str = ""
    choices: tuple[str, ...] = ()
    """The options of a list; empty for a text field."""

    suggestions: tuple[str, ...] = ()
    is_number: bool = False
    is_required: bool = False
    value: str = ""
    """What the user sent."""

    fault: str = ""

    @property
    def described_by(self) -> str:
        """Return the ids of the elements that describe the field, for screen readers."""
        texts = {f"{self.name}-hint": self.hint, f"{self.name}-fault": self.fault}
        return " ".join(name for name, text in texts.items() if text)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerView:
    """The section with the verdict."""

    explanation: Explanation
    packet: str
    """In words."""

    rule: str
    """The page of the rule that decides; empty where none does."""

    reason: str
    """Why the step decides, as a clause; empty where a rule does."""

    snapshot_version: str | None


def form_section(form: Form, interfaces: Sequence[str]) -> Section:
    """Return the form with the values that the user sent, and each error beside its field.

    Args:
        form: what the user sent.
        interfaces: those that the policy decides about.
    """
    fields = tuple(
        replace(each, value=form.value(each.name), fault=form.faults.get(each.name, ""))
        for each in _fields(interfaces)
    )
    return Section("explain", "What becomes of a packet?", "explain_form.html", fields)


def _fields(interfaces: Sequence[str]) -> Iterator[FormField]:
    yield FormField(name=DIRECTION, label="Direction", choices=_DIRECTIONS, is_required=True)
    if len(interfaces) > 1:
        yield FormField(name=INTERFACE, label="Interface", choices=tuple(interfaces), is_required=True)
    yield FormField(name=SOURCE, label="Source", hint="an address", is_required=True)
    yield FormField(name=DESTINATION, label="Destination", hint="an address", is_required=True)
    yield FormField(
        name=PROTOCOL,
        label="Protocol",
        hint="a name, or a number",
        suggestions=PROTOCOL_WORDS,
        is_required=True,
    )
    yield FormField(name=PORT, label="Port", hint=f"of {ported_text('and')}", is_number=True)
    yield FormField(name=SOURCE_PORT, label="Source port", hint=f"{EPHEMERAL_PORT} if empty", is_number=True)
    yield FormField(name=ICMP_TYPE, label="ICMP type", hint="of ICMP and ICMPv6", is_number=True)


def faults_section(form: Form) -> Section:
    """Return the errors, each with a link to its field."""
    return Section("answer", "The question has errors", "faults.html", form.faults)


def refusal_section(refusal: str) -> Section:
    """Return why this host cannot answer the question."""
    return Section("answer", "This question cannot be answered", "refusal.html", refusal)


def _rule_path(explanation: Explanation, direction: Direction) -> str:
    rule = explanation.rule
    if rule is None:
        return ""
    return rule_path(explanation.interface or "", direction, rule.security_group_id, rule.rule_id)


def answer_section(answer: ExplainAnswer, packet: Packet) -> Section:
    """Return the verdict, the step or rule that decides, and the other rules that match."""
    explanation = answer.explanation
    view = AnswerView(
        explanation=explanation,
        packet=describe_packet(packet),
        rule=_rule_path(explanation, packet.direction),
        reason="" if explanation.rule else reason(explanation.decided_by, packet),
        snapshot_version=answer.snapshot_version,
    )
    return Section("answer", "Answer", "answer.html", view)
