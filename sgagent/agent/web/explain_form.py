"""Read the form that asks ``explain``: a question, or what is wrong with each field."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qsl

from sgagent.agent.control.queries import ExplainQuestion
from sgagent.core.explanation import EPHEMERAL_PORT, PROTOCOL_WORDS, protocol_number
from sgagent.core.model import ICMP, ICMPV6, LAST_PORT, Direction, Protocol

LONGEST_VALUE = 64
"""Characters of a field; the longest address has 45."""

MOST_FIELDS = 16

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
    """What somebody wrote into the fields, and what is wrong with it."""

    values: Mapping[str, str] = field(default_factory=dict)
    """As they were written, without what is empty."""

    faults: Mapping[str, str] = field(default_factory=dict)
    """By field, as a clause without a full stop."""

    question: ExplainQuestion | None = None
    """What is asked; None where nothing is, or something is wrong."""

    def value(self, name: str) -> str:
        """Return what was written into a field; nothing if nothing was."""
        return self.values.get(name, "")


def read_form(query: str) -> Form:
    """Return the form that a query string holds; an empty one asks nothing."""
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
    """Yield what is wrong, field by field."""
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
    if text is not None and protocol not in (ICMP, ICMPV6):
        yield ICMP_TYPE, f"leave it empty: {protocol} has no types"
    elif text is not None and _number(text, _LAST_TYPE) is None:
        yield ICMP_TYPE, f"write a number from 0 to {_LAST_TYPE}"


def _question(values: Mapping[str, str]) -> ExplainQuestion:
    """Return what is asked, of values with which nothing is wrong."""
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
