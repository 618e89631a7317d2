"""Reader of the agent's flow log: lines of JSON into conversations.

Most lines differ from an earlier one only in time, number, sender's port and bytes. Such a line is counted by
what is around these; only the first of its kind is parsed.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, TypeVar

from sgagent.core.clauses import DecidedBy
from sgagent.core.model import LAST_PORT, PORTED_NUMBERS, PROTOCOL_NAMES, Direction, Family, Mode, Policy
from sgagent.core.rule_values import decimal
from sgagent.suggest.conversations import (
    CUT_OFF,
    NO_OPENING,
    NOT_LOGGED,
    Conversation,
    FieldFault,
    Tally,
    Traffic,
)

LONGEST_LINE = 16_384
"""Bytes; a line of the agent has under two thousand."""

MOST_BYTES = 1 << 64
_MOST_REMEMBERED = 100_000
"""Kinds of lines, seconds and sizes: some 20 MB."""

_DIRECTIONS: Mapping[str, Direction] = {one.value: one for one in Direction}
_FAMILIES: Mapping[str, Family] = {one.value: one for one in Family}
_VERDICTS: Mapping[str, Policy] = {one.value: one for one in Policy}
_MODES: Mapping[str, Mode] = {one.value: one for one in Mode}
_STEPS: Mapping[str, DecidedBy] = {one.value: one for one in DecidedBy}
_UNJUDGED = {DecidedBy.INVALID, DecidedBy.SPOOFED, DecidedBy.ALWAYS}
_NUMBERS = {name: protocol.number for protocol, name in PROTOCOL_NAMES.items() if protocol.number is not None}


class FlowLineReader:
    """Read the lines of one log."""

    def __init__(self, traffic: Traffic, name: str, host: str) -> None:
        """Take the counted traffic, the name of the log for messages, and the name of its host."""
        self._traffic = traffic
        self._name = name
        self._host = host
        self._kinds: dict[int, Tally] = {}
        """By a keyed hash, so that a look-up touches no texts: of 100,000, two are alike once in 4e9 logs."""

        self._seconds: dict[bytes, int] = {}
        self._sizes: dict[bytes, int] = {}

    def read(self, lines: Iterable[bytes], number: int = 1) -> None:
        """Count all lines.

        Args:
            lines: with their ends; of a longer one than LONGEST_LINE, the beginning, with an end.
            number: of the first.

        Raises:
            UsageError: there are too many conversations to keep apart.
        """
        kinds, seconds, sizes = self._kinds, self._seconds, self._sizes
        for line in lines:
            # Of a line that is not as the agent writes it, some piece here is nothing known: it is parsed.
            begin = line.find(b",", _NUMBER)
            port = line.find(b'"port": ', begin) + 8
            behind = line.find(b",", port)
            size = line.rfind(b" ") + 1
            tally = kinds.get(hash((line[begin:port], line[behind:size])))
            second = seconds.get(line[:29])
            length = sizes.get(line[size:])
            sender = line[port:behind]
            if second is None and tally is not None:
                second = self._learn_second(line)
            if tally is None or second is None or length is None:
                self._parse(line, number)
            elif sender.isdigit() and len(sender) < 6 and (client_port := int(sender)) <= LAST_PORT:
                tally.count(second, client_port, length)
            elif sender == b"null":
                tally.count(second, None, length)
            else:
                self._parse(line, number)
            number += 1

    def _learn_second(self, line: bytes) -> int | None:
        """Return the second of a line, and remember it; None if its time is not as the agent writes it."""
        if line[:10] != b'{"time": "' or line[29:30] != b"." or line[36:38] != b'Z"':
            return None
        try:
            second = int(datetime.fromisoformat(f"{line[10:29].decode('ascii')}Z").timestamp())
        except ValueError:
            return None
        if len(self._seconds) >= _MOST_REMEMBERED:
            self._seconds.clear()
        self._seconds[line[:29]] = second
        return second

    def _parse(self, line: bytes, number: int) -> None:
        """Count a line by its content, and remember the form of others of its kind."""
        if line.isspace():
            return
        try:
            self._count(line)
        except FieldFault as fault:
            if line.endswith(b"\n"):
                self._traffic.report(fault.problem(self._name, number))
            else:
                self._traffic.left_out[CUT_OFF] += 1

    def _count(self, line: bytes) -> None:
        fields = _decoded(line)
        if "left_out" in fields:
            self._traffic.left_out[NOT_LOGGED] += _whole(fields, "left_out", 1 << 62)
            return
        if _word(fields, "decided_by", _STEPS) in _UNJUDGED:
            self._traffic.left_out[NO_OPENING] += 1
            return
        flow = _flow(fields, self._host)
        sweeps = self._traffic.sweeps
        tally = self._traffic.tally(flow.conversation, is_refused=flow.is_refused)
        tally.count(flow.second, flow.client_port, flow.size)
        if sweeps != self._traffic.sweeps or len(self._kinds) >= _MOST_REMEMBERED:
            self._kinds.clear()
        begin = line.find(b",", _NUMBER)
        port = line.find(b'"port": ', begin) + 8
        size = line.rfind(b" ") + 1
        is_portless = flow.client_port is None
        if line.startswith(_AS_WRITTEN, begin) and line.startswith(b"null", port) is is_portless:
            self._kinds[hash((line[begin:port], line[line.find(b",", port) : size]))] = tally
            if len(self._sizes) < _MOST_REMEMBERED and line[size:] == b"%d}\n" % flow.size:
                self._sizes[line[size:]] = flow.size


_NUMBER = len('{"time": "2026-01-31T10:15:02.214511Z", "number": ')
_AS_WRITTEN = b', "interface": "'


class _Flow(NamedTuple):
    conversation: Conversation
    is_refused: bool
    second: int
    client_port: int | None
    size: int


def _decoded(line: bytes) -> Mapping[str, object]:
    check_length(line)
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        text = line[:80].decode("utf-8", "replace")
        raise FieldFault("line", text, "an object of JSON, as the flow log has one a line") from None
    if not isinstance(found, dict):
        raise FieldFault("line", found, "an object of JSON")
    return found


def _flow(fields: Mapping[str, object], host: str) -> _Flow:
    direction = _word(fields, "direction", _DIRECTIONS)
    family = _word(fields, "family", _FAMILIES)
    verdict = _word(fields, "verdict", _VERDICTS)
    mode = _word(fields, "mode", _MODES)
    source, destination = _mapping(fields, "source"), _mapping(fields, "destination")
    near, far = (destination, source) if direction is Direction.INGRESS else (source, destination)
    near_name, far_name = (
        ("destination", "source") if direction is Direction.INGRESS else ("source", "destination")
    )
    link = _text(fields, "interface")
    owner = near.get("network_interface_id")
    protocol = parse_protocol("protocol", fields.get("protocol"))
    port, client_port = _port(destination, "destination.port"), _port(source, "source.port")
    has_ports = protocol in PORTED_NUMBERS  # SCTP's are logged, but no rule names them
    return _Flow(
        conversation=Conversation(
            site=owner if isinstance(owner, str) and owner else f"{host}/{link}",
            direction=direction,
            family=family,
            protocol=protocol,
            port=port if has_ports else None,
            near=parse_address(f"{near_name}.address", near.get("address"), family),
            far=parse_address(f"{far_name}.address", far.get("address"), family),
        ),
        is_refused=verdict is Policy.DROP and mode is Mode.ENFORCE,
        second=_second(fields),
        client_port=client_port if has_ports else None,
        size=_whole(fields, "bytes", MOST_BYTES),
    )


def _text(fields: Mapping[str, object], name: str) -> str:
    found = fields.get(name)
    if not isinstance(found, str) or not found:
        raise FieldFault(name, found, "a text")
    return found


_Meaning = TypeVar("_Meaning")


def _word(fields: Mapping[str, object], name: str, words: Mapping[str, _Meaning]) -> _Meaning:
    found = fields.get(name)
    if not isinstance(found, str) or found not in words:
        raise FieldFault(name, found, f"one of {', '.join(words)}")
    return words[found]


def _mapping(fields: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = fields.get(name)
    if not isinstance(found, dict):
        raise FieldFault(name, found, "an object with address and port")
    return found


def _whole(fields: Mapping[str, object], name: str, most: int) -> int:
    found = fields.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < most:
        raise FieldFault(name, found, "a whole number that 64 bits hold")
    return found


def _port(end: Mapping[str, object], name: str) -> int | None:
    found = end.get("port")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= LAST_PORT:
        raise FieldFault(name, found, f"a port from 0 to {LAST_PORT}, or null")
    return found


def _second(fields: Mapping[str, object]) -> int:
    text = _text(fields, "time")
    try:
        return int(datetime.fromisoformat(text if text.endswith("Z") else "").timestamp())
    except (ValueError, OverflowError):
        raise FieldFault("time", text, "an instant like 2026-01-31T10:15:02.214511Z") from None


def check_length(line: bytes) -> None:
    """Raise FieldFault if a line is too long."""
    if len(line) > LONGEST_LINE:
        raise FieldFault("line", line[:80].decode("utf-8", "replace"), f"at most {LONGEST_LINE} bytes")


def parse_protocol(name: str, found: object) -> int:
    """Return the number of a protocol, of which records have the name or the number.

    Raises:
        FieldFault: it is neither.
    """
    text = str(found)
    number = _NUMBERS.get(text, decimal(text, 255))
    if found is None or number is None:
        raise FieldFault(name, found, "a protocol's name, or its number from 0 to 255")
    return number


def parse_address(name: str, found: object, family: Family | None = None) -> int:
    """Return an address as a number.

    Args:
        name: of the field.
        found: what is in it.
        family: that it has to have; None is any.

    Raises:
        FieldFault: it is none.
    """
    try:
        address, bits = _number_of(found if isinstance(found, str) else "")
    except ValueError:
        raise FieldFault(name, found, "an IPv4 or IPv6 address, not an IPv4-mapped one") from None
    if family is not None and bits != family.bits:
        raise FieldFault(name, found, f"an address of {family.value}")
    return address


@lru_cache(maxsize=1 << 14)
def _number_of(text: str) -> tuple[int, int]:
    """Return an address as a number, and its bits; most come again and again."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        raise ValueError(text)
    return int(address), address.max_prefixlen
