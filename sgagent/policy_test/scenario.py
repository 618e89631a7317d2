"""Packet tests, the reader of files that hold them, and the outcome of each.

One file of packets serves several judges: the specification, the kernel, and the tests' tracer of the
compiled ruleset.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar, assert_never

from sgagent.core.binding import HandBinding
from sgagent.core.errors import DocumentError, Origin, UsageError
from sgagent.core.evaluate import DecidedBy, Decision, Packet, Tracking, as_opener, evaluate
from sgagent.core.explanation import PROTOCOL_WORDS, protocol_number
from sgagent.core.model import LAST_PORT, Direction, Family, Policy, Protocol, ported_text
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.field import Field, Fields, Reading
from sgagent.documents.parse import read_tree
from sgagent.documents.problems import Budget, Findings
from sgagent.documents.tree import Listing
from sgagent.settings import parse_interface_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDecision:
    """The verdict that a packet must get, and what must decide it. None accepts any value."""

    verdict: Policy
    decided_by: DecidedBy | None = None
    rule_id: str | None = None
    security_group_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedPacket:
    """A packet that opens a session, and the verdict that it must get."""

    name: str
    """Unique in its file."""

    packet: Packet
    expected: ExpectedDecision
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedReply:
    """The reply to a packet, through the same interface, and the verdict that it must get (§6.1)."""

    name: str
    opener: ExpectedPacket
    expected: ExpectedDecision
    origin: Origin


ExpectedTraffic = ExpectedPacket | ExpectedReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One host, its bindings, and the packets to test in order."""

    definitions: str
    """The path of the documents, relative to the file of packets."""

    bindings: tuple[HandBinding, ...]
    """Sorted by interface."""

    traffic: tuple[ExpectedTraffic, ...]

    @property
    def packets(self) -> tuple[ExpectedPacket, ...]:
        """Return the packets that open sessions."""
        return tuple(entry for entry in self.traffic if isinstance(entry, ExpectedPacket))

    @property
    def replies(self) -> tuple[ExpectedReply, ...]:
        """Return the replies."""
        return tuple(entry for entry in self.traffic if isinstance(entry, ExpectedReply))


def disagreement(expected: ExpectedDecision, decision: Decision) -> str | None:
    """Return how a decision differs from the expected one, as a clause; None if it agrees."""
    rule = decision.rule
    comparisons = (
        ("verdict", expected.verdict.value, decision.verdict.value),
        ("decided_by", expected.decided_by and expected.decided_by.value, decision.decided_by.value),
        ("rule_id", expected.rule_id, rule and rule.rule_id),
        ("security_group_id", expected.security_group_id, rule and rule.security_group_id),
    )
    return next(
        (f"{name} is {seen}, not {due}" for name, due, seen in comparisons if due not in (None, seen)), None
    )


class PacketResult(enum.Enum):
    """The result of one packet test."""

    PASSED = "passed"
    FAILED = "failed"
    LEFT_OUT = "left_out"
    """The judge cannot test such a packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The reason why a judge cannot test a packet."""

    reason: str
    """A clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketOutcome:
    """A judge's decision on a packet, beside the expected one."""

    entry: ExpectedTraffic
    answer: Decision | LeftOut
    suspicion: str = ""
    """Why the judge itself may be wrong, as a clause."""

    @property
    def fault(self) -> str | None:
        """Return how the decision differs from the expected one; None if it agrees."""
        if isinstance(self.answer, LeftOut):
            return None
        return disagreement(self.entry.expected, self.answer)

    @property
    def result(self) -> PacketResult:
        """Return the result of the test."""
        if isinstance(self.answer, LeftOut):
            return PacketResult.LEFT_OUT
        return PacketResult.PASSED if self.fault is None else PacketResult.FAILED


def decide_by_specification(policy: ResolvedPolicy, entry: ExpectedTraffic) -> Decision:
    """Return the specification's decision on a packet.

    A dropped packet opens no session, so its reply gets the same decision.
    """
    match entry:
        case ExpectedPacket():
            return evaluate(policy, as_opener(entry.packet))
        case ExpectedReply():
            opener = as_opener(entry.opener.packet)
            opened = evaluate(policy, opener)
            if opened.verdict is Policy.DROP:
                return opened
            return evaluate(policy, replace(opener, tracking=Tracking.ALLOWED))
        case _:
            assert_never(entry)


DEFAULT_DEFINITIONS = "groups.d"
DEFAULT_SOURCE_PORT = 40_000
DEFAULT_HOP_LIMIT = 64

_ECHO_REQUEST = {Family.IPV4: 8, Family.IPV6: 128}
"""The type of a ping."""

_TOP_FIELDS = ("definitions", "bind", "packets")
_REPLY_FIELDS = ("name", "replies_to", "expect", "decided_by")
_PACKET_FIELDS = (
    "name",
    "interface",
    "direction",
    "source",
    "destination",
    "protocol",
    "source_port",
    "port",
    "icmp_type",
    "hop_limit",
    "expect",
    "decided_by",
    "rule_id",
    "security_group_id",
)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Word = TypeVar("_Word", bound=Enum)


def parse_packets(content: bytes, file: str) -> Scenario:
    """Return the scenario that a file holds, YAML or JSON.

    Raises:
        DocumentError: carries everything that is wrong with it.
    """
    limits = Limits()
    findings = Findings(limits.problems)
    reading = Reading(file=file, findings=findings, budget=Budget(limits=limits))
    root = read_tree(DocumentFile(file, content), reading)
    top = root.fields() if root else None
    scenario = _scenario(top) if top else None
    if scenario is None or findings.has_errors:
        raise DocumentError(findings.all())
    return scenario


def _scenario(top: Fields) -> Scenario:
    """Read the whole file."""
    top.refuse_unknown(_TOP_FIELDS)
    bindings = tuple(_bindings(top))
    definitions = top.get("definitions")
    traffic = _Traffic(tuple(binding.interface for binding in bindings))
    return Scenario(
        definitions=(definitions.text() if definitions else None) or DEFAULT_DEFINITIONS,
        bindings=bindings,
        traffic=tuple(traffic.read(top)),
    )


def _bindings(top: Fields) -> Iterator[HandBinding]:
    """Read which interface stands for what."""
    place = top.require("bind")
    bound = place.fields() if place else None
    for name in sorted(bound.names()) if bound else ():
        what = bound.get(name) if bound else None
        if what is None or not _is_link_name(name, what):
            continue
        origin = f"{what.origin.file}: {what.path}"
        if isinstance(what.node, Listing):
            groups = sorted(text for item in what.items() if (text := item.text()))
            yield HandBinding(interface=name, security_group_ids=tuple(groups), origin=origin)
        elif (network_interface_id := what.text()) is not None:
            yield HandBinding(interface=name, network_interface_id=network_interface_id, origin=origin)


def _is_link_name(name: str, place: Field) -> bool:
    """Return whether a link can have this name; add an error if not."""
    try:
        parse_interface_name(name, place.path)
    except UsageError:
        place.error(
            "bad_interface_name", "not an interface name", "1 to 15 letters, digits and . _ @ + -, no @ first"
        )
        return False
    return True


@dataclass(slots=True)
class _Traffic:
    """Reads packets in order and remembers those that can be answered."""

    interfaces: tuple[str, ...]
    openers: dict[str, ExpectedPacket] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def read(self, top: Fields) -> Iterator[ExpectedTraffic]:
        """Read all packets."""
        top.require("packets")
        for place in top.items("packets"):
            fields = place.fields()
            if fields is None:
                continue
            entry = self._reply(fields) if "replies_to" in fields.names() else self._packet(fields)
            if entry is None:
                continue
            if entry.name in self.names:
                place.error("duplicate_name", f"the name stands twice: {entry.name}", "a name of its own")
            self.names.add(entry.name)
            if isinstance(entry, ExpectedPacket):
                self.openers[entry.name] = entry
            yield entry

    def _reply(self, fields: Fields) -> ExpectedReply | None:
        """Read a reply."""
        fields.refuse_unknown(_REPLY_FIELDS)
        name, answered = _text(fields, "name"), fields.require("replies_to")
        expected = _judgement(fields)
        opener = self.openers.get(answered.text() or "") if answered else None
        if answered and opener is None:
            answered.error("unknown_packet", "answers no packet", "the name of a packet before it")
        if name is None or opener is None or expected is None:
            return None
        return ExpectedReply(name=name, opener=opener, expected=expected, origin=fields.field.origin)

    def _packet(self, fields: Fields) -> ExpectedPacket | None:
        """Read a packet that opens a session."""
        fields.refuse_unknown(_PACKET_FIELDS)
        name, expected = _text(fields, "name"), _judgement(fields)
        interface, direction = self._interface(fields), _word(fields, "direction", Direction)
        source, destination = _address(fields, "source"), _address(fields, "destination")
        protocol = _protocol(fields)
        if name is None or expected is None or interface is None or direction is None:
            return None
        if source is None or destination is None or protocol is None:
            return None
        if source.version != destination.version:
            fields.field.error("mixed_families", "source and destination are of different families")
            return None
        family = Family.IPV4 if source.version == 4 else Family.IPV6
        source_port, port = _ports(fields, protocol)
        packet = Packet(
            interface=interface,
            direction=direction,
            family=family,
            source=int(source),
            destination=int(destination),
            protocol=protocol,
            source_port=source_port,
            destination_port=port,
            icmp_type=_icmp_type(fields, family, protocol),
            hop_limit=_number(fields, "hop_limit", 255, DEFAULT_HOP_LIMIT),
        )
        return ExpectedPacket(name=name, packet=packet, expected=expected, origin=fields.field.origin)

    def _interface(self, fields: Fields) -> str | None:
        """Read where a packet passes; it may be left out where only one interface is bound."""
        if len(self.interfaces) == 1 and "interface" not in fields.names():
            return self.interfaces[0]
        place = fields.require("interface")
        name = place.text() if place else None
        if place and name is not None and name not in self.interfaces:
            place.error("unknown_interface", "is not bound", f"one of {', '.join(self.interfaces)}")
            return None
        return name


def _judgement(fields: Fields) -> ExpectedDecision | None:
    """Read what must become of a packet."""
    verdict = _word(fields, "expect", Policy)
    decided_by = _word(fields, "decided_by", DecidedBy, required=False)
    rule_id, group_id = (_text(fields, name, required=False) for name in ("rule_id", "security_group_id"))
    if (rule_id or group_id) and decided_by not in (None, DecidedBy.RULE):
        fields.field.error("mismatch", "names a rule, but is not decided by one", "decided_by: rule")
    if verdict is None:
        return None
    return ExpectedDecision(
        verdict=verdict, decided_by=decided_by, rule_id=rule_id, security_group_id=group_id
    )


def _protocol(fields: Fields) -> int | None:
    """Read a protocol, by name or number."""
    place = fields.require("protocol")
    text = place.text_or_digits() if place else None
    if place is None or text is None:
        return None
    number = protocol_number(text)
    if number is None:
        place.error(
            "bad_value", "not a protocol", f"one of {', '.join(PROTOCOL_WORDS)}, or a number up to 255"
        )
    return number


def _ports(fields: Fields, protocol: int) -> tuple[int | None, int | None]:
    """Read source and destination port; protocols that have them must say the second."""
    if Protocol(protocol).has_ports:
        fields.require("port")
        source_port = _number(fields, "source_port", LAST_PORT, DEFAULT_SOURCE_PORT)
        return source_port, _number(fields, "port", LAST_PORT, None)
    for name in ("source_port", "port"):
        if place := fields.get(name):
            place.error("no_ports", f"only {ported_text('and')} have ports", "leave it out")
    return None, None


def _icmp_type(fields: Fields, family: Family, protocol: int) -> int | None:
    """Read a message's type; a ping where none is given."""
    if Protocol(protocol).only_family is family:
        return _number(fields, "icmp_type", 255, _ECHO_REQUEST[family])
    if place := fields.get("icmp_type"):
        place.error("no_type", "only ICMP over IPv4 and ICMPv6 over IPv6 have types", "leave it out")
    return None


def _text(fields: Fields, name: str, *, required: bool = True) -> str | None:
    """Read a text that is not empty."""
    place = fields.require(name) if required else fields.get(name)
    text = place.text() if place else None
    if place and text == "":
        place.error("bad_value", "empty")
        return None
    return text


def _word(fields: Fields, name: str, words: type[_Word], *, required: bool = True) -> _Word | None:
    """Read one of the words of an enumeration."""
    known: Mapping[str, _Word] = {str(word.value): word for word in words}
    place = fields.require(name) if required else fields.get(name)
    return place.word(known) if place else None


def _address(fields: Fields, name: str) -> _Address | None:
    """Read a single address."""
    place = fields.require(name)
    text = place.text() if place else None
    if place is None or text is None:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or "%" in text:
        place.error("bad_value", "not an address", "one address, without a prefix length or a zone")
        return None
    return address


def _number(fields: Fields, name: str, last: int, default: int | None) -> int | None:
    """Read a whole number from 0 to the last one."""
    place = fields.get(name)
    if place is None:
        return default
    number = place.integer()
    if number is not None and not 0 <= number <= last:
        place.error("out_of_range", "out of range", f"0 to {last}")
        return None
    return number
