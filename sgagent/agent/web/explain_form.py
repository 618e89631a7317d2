"""The form that asks for the verdict on a packet: its fields, their validation, and the answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl

from sgagent.agent.control.explain_requests import ExplainAnswer, ExplainQuery
from sgagent.agent.web.page import Section
from sgagent.agent.web.rules import MOST_FIELDS, rule_path
from sgagent.core.errors import UsageError
from sgagent.core.explanation import EPHEMERAL_PORT, PROTOCOL_WORDS, describe_packet, protocol_number, reason
from sgagent.core.model import LAST_PORT, Direction, Protocol
from sgagent.core.rule_values import decimal, ported_text

LONGEST_VALUE = 64
"""Characters of a field; the longest address has 45."""

_LAST = {"port": LAST_PORT, "source_port": LAST_PORT, "icmp_type": 255}
"""The highest number of a field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The fields that the user sent, and the errors in them."""

    values: Mapping[str, str] = field(default_factory=dict)
    """By field, as sent; without empty ones."""

    faults: Mapping[str, str] = field(default_factory=dict)
    """The remedy for each wrong field, as a clause without a full stop."""

    question: ExplainQuery | None = None
    """None where the form is empty or a field is wrong."""


def read_form(query: str) -> Form:
    """Parse and validate a query string; an empty one gives an empty form."""
    try:
        pairs = parse_qsl(query, max_num_fields=MOST_FIELDS)
    except ValueError:
        return Form(faults={"source": f"more than {MOST_FIELDS} fields were sent"})
    values = {name: value.strip()[:LONGEST_VALUE] for name, value in pairs if value.strip()}
    if not values:
        return Form()
    faults = dict(_faults(values))
    return Form(values=values, faults=faults, question=None if faults else _question(values))


def _faults(values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each wrong field with its remedy."""
    if values.get("direction") not in _DIRECTIONS:
        yield "direction", "choose ingress or egress"
    addresses = {name: _address(values.get(name, "")) for name in ("source", "destination")}
    for name, address in addresses.items():
        if address is None:
            yield name, "write an IPv4 or IPv6 address, like 198.51.100.7"
    source, destination = addresses.values()
    if source and destination and source.version != destination.version:
        yield "destination", f"write an IPv{source.version} address, as the source is one"
    number = protocol_number(values.get("protocol", ""))
    if number is None:
        yield "protocol", f"write one of {', '.join(PROTOCOL_WORDS)}, or a number from 0 to 255"
    else:
        yield from _faults_of_numbers(values, Protocol(number))


def _faults_of_numbers(values: Mapping[str, str], protocol: Protocol) -> Iterator[tuple[str, str]]:
    """Yield the errors of ports and type, where a protocol has or lacks them."""
    if protocol.has_ports and "port" not in values:
        yield "port", f"write a port: {protocol} needs one"
    for name in (name for name in _LAST if name in values):
        what = "types" if name == "icmp_type" else "ports"
        if not (protocol.has_types if what == "types" else protocol.has_ports):
            yield name, f"leave it empty: {protocol} has no {what}"
        elif _number(values, name) is None:
            yield name, f"write a number from 0 to {_LAST[name]}"


def _question(values: Mapping[str, str]) -> ExplainQuery:
    """Return the question that valid fields ask."""
    number = protocol_number(values["protocol"]) or 0
    source_port = _number(values, "source_port")
    if source_port is None and Protocol(number).has_ports:
        source_port = EPHEMERAL_PORT
    return ExplainQuery(
        direction=Direction(values["direction"]),
        source=values["source"],
        destination=values["destination"],
        protocol=number,
        source_port=source_port,
        destination_port=_number(values, "port"),
        icmp_type=_number(values, "icmp_type"),
        interface=values.get("interface"),
    )


_DIRECTIONS = tuple(direction.value for direction in Direction)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _number(values: Mapping[str, str], name: str) -> int | None:
    """Return the number in a field; None where there is none, or a higher one than there is."""
    return decimal(values.get(name, ""), _LAST[name])


@dataclass(frozen=True, slots=True)
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
    """The user's input."""

    fault: str = ""

    @property
    def described_by(self) -> str:
        """Return the ids of the elements that describe the field, for screen readers."""
        texts = {f"{self.name}-hint": self.hint, f"{self.name}-fault": self.fault}
        return " ".join(name for name, text in texts.items() if text)


def form_section(form: Form, interfaces: Sequence[str]) -> Section:
    """Return the form with the values that the user sent, and each error beside its field.

    Args:
        form: what the user sent.
        interfaces: those that the policy decides about.
    """
    fields = tuple(
        replace(each, value=form.values.get(each.name, ""), fault=form.faults.get(each.name, ""))
        for each in _fields(interfaces)
    )
    return Section("explain", "What becomes of a packet?", "explain_form.html", fields)


def _fields(interfaces: Sequence[str]) -> Iterator[FormField]:
    yield FormField("direction", "Direction", choices=_DIRECTIONS, is_required=True)
    if len(interfaces) > 1:
        yield FormField("interface", "Interface", choices=tuple(interfaces), is_required=True)
    yield FormField("source", "Source", "an address", is_required=True)
    yield FormField("destination", "Destination", "an address", is_required=True)
    yield FormField(
        "protocol", "Protocol", "a name, or a number", suggestions=PROTOCOL_WORDS, is_required=True
    )
    yield FormField("port", "Port", f"of {ported_text('and')}", is_number=True)
    yield FormField("source_port", "Source port", f"{EPHEMERAL_PORT} if empty", is_number=True)
    yield FormField("icmp_type", "ICMP type", "of ICMP and ICMPv6", is_number=True)


def answer_sections(form: Form, ask: Callable[[ExplainQuery], ExplainAnswer]) -> Iterator[Section]:
    """Yield the errors, each with a link to its field, or the answer; nothing for an empty form.

    Args:
        form: what the user sent.
        ask: asks the agent; raises UsageError where this host cannot answer the question.
    """
    if form.faults:
        yield Section("answer", "The question has errors", "faults.html", form.faults)
    if form.question is None:
        return
    try:
        answer = ask(form.question)
        packet = form.question.packet(answer.explanation.interface or "")
    except UsageError as error:
        yield Section("answer", "This question cannot be answered", "refusal.html", f"{error}.")
        return
    rule, interface = answer.explanation.rule, answer.explanation.interface or ""
    view = {
        "answer": answer,
        "packet": describe_packet(packet),
        "rule": rule_path(interface, packet.direction, rule) if rule else "",
        "reason": "" if rule else reason(answer.explanation.decided_by, packet),
    }
    yield Section("answer", "Answer", "answer.html", view)
