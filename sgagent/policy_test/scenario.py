"""Packet tests, the reader of files that hold them, and the outcome of each.

One file of packets serves several judges: the specification, the kernel, and the tests' tracer of the
compiled ruleset.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping as MappingOf
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Annotated

from sgagent.core.addresses import AddressSet
from sgagent.core.binding import HandBinding
from sgagent.core.clauses import DecidedBy
from sgagent.core.errors import DocumentError, Origin
from sgagent.core.evaluate import Decision, Packet, Tracking, as_opener, evaluate
from sgagent.core.explanation import PROTOCOL_WORDS, protocol_number
from sgagent.core.model import LAST_PORT, Direction, Family, Policy, Protocol, SourceCheck
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolved_rules import KnownNames
from sgagent.core.rule_values import ported_text
from sgagent.documents import DocumentFile, Limits, scalars
from sgagent.documents.field import Field, Reading
from sgagent.documents.models import DocumentModel, FieldType, read_model
from sgagent.documents.parse import read_tree
from sgagent.documents.problems import Budget, Findings
from sgagent.documents.tree import Listing, Mapping, Node
from sgagent.documents.values import canonical_name, parse_instant, parse_members
from sgagent.settings.tables import INTERFACE_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDecision:
    """The verdict that a packet must get, and its decider. None accepts any value."""

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

    @property
    def opener(self) -> ExpectedPacket:
        """Return the packet that opens the session, as replies have it."""
        return self


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

    at: datetime | None
    """The latest time, by which rules expire; None is the one that the host has known."""

    names: KnownNames
    """What the DNS says: of a name that is not there, nothing."""

    traffic: tuple[ExpectedTraffic, ...]

    @property
    def links(self) -> tuple[str, ...]:
        """Return the names of all links that are bound by name, or that packets pass."""
        named = (binding.interface for binding in self.bindings if binding.pattern is None)
        return tuple(sorted({*named, *(entry.packet.interface for entry in self.packets)}))

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


class PacketResult(Enum):
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
    def result(self) -> PacketResult:
        """Return the result of the test."""
        if isinstance(self.answer, LeftOut):
            return PacketResult.LEFT_OUT
        is_expected = disagreement(self.entry.expected, self.answer) is None
        return PacketResult.PASSED if is_expected else PacketResult.FAILED


def decide_by_specification(policy: ResolvedPolicy, entry: ExpectedTraffic) -> Decision:
    """Return the specification's decision on a packet.

    A dropped packet opens no session, so its reply gets the same decision.
    """
    opener = as_opener(entry.opener.packet)
    opened = evaluate(policy, opener)
    if isinstance(entry, ExpectedPacket) or opened.verdict is Policy.DROP:
        return opened
    return evaluate(policy, replace(opener, tracking=Tracking.ALLOWED))


DEFAULT_DEFINITIONS = "groups.d"
DEFAULT_SOURCE_PORT = 40_000
DEFAULT_HOP_LIMIT = 64

_ECHO_REQUEST = {Family.IPV4: 8, Family.IPV6: 128}
"""The type of a ping."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _parse_name(node: Node) -> str:
    if scalars.parse_text(node):
        return scalars.parse_text(node)
    raise scalars.invalid("bad_value", "the name is empty", "write a name")


def _parse_protocol(node: Node) -> int:
    number = protocol_number(scalars.parse_digits(node))
    if number is None:
        forms = f"one of {', '.join(PROTOCOL_WORDS)}, or a number up to 255"
        raise scalars.invalid("bad_value", "not a protocol", forms)
    return number


def _parse_address(node: Node) -> _Address:
    text = scalars.parse_text(node)
    try:
        address = None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None:
        remedy = "one address, without a prefix length or a zone"
        raise scalars.invalid("bad_value", "not an address", remedy)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        raise scalars.invalid("mapped_address", "an IPv4-mapped IPv6 address", f"{address.ipv4_mapped}")
    return address


def _parse_number(node: Node, last: int) -> int:
    number = scalars.parse_integer(node)
    if 0 <= number <= last:
        return number
    raise scalars.invalid("out_of_range", "out of range", f"0 to {last}")


def _word_of(words: type[Enum]) -> FieldType:
    return FieldType(partial(scalars.parse_word, words={str(word.value): word for word in words}))


_Name = Annotated[str, FieldType(_parse_name)]
_Port = Annotated[int | None, FieldType(partial(_parse_number, last=LAST_PORT))]
_Byte = Annotated[int | None, FieldType(partial(_parse_number, last=255))]


class _ScenarioModel(DocumentModel):
    definitions: Annotated[str, FieldType(scalars.parse_text)] = ""
    bind: Annotated[Mapping | None, FieldType(scalars.parse_mapping)]
    source_check: Annotated[SourceCheck | None, _word_of(SourceCheck)] = None
    packets: Annotated[Listing | None, FieldType(scalars.parse_list)]
    at: Annotated[datetime | None, FieldType(parse_instant)] = None
    dns: Annotated[Mapping | None, FieldType(scalars.parse_mapping)] = None


class _TrafficModel(DocumentModel):
    name: _Name
    expect: Annotated[Policy | None, _word_of(Policy)]
    decided_by: Annotated[DecidedBy | None, _word_of(DecidedBy)] = None


class _ReplyModel(_TrafficModel):
    replies_to: _Name


class _PacketModel(_TrafficModel):
    rule_id: _Name | None = None
    security_group_id: _Name | None = None
    interface: _Name | None = None
    direction: Annotated[Direction | None, _word_of(Direction)]
    source: Annotated[_Address | None, FieldType(_parse_address)]
    destination: Annotated[_Address | None, FieldType(_parse_address)]
    protocol: Annotated[int | None, FieldType(_parse_protocol)]
    source_port: _Port = None
    port: _Port = None
    icmp_type: _Byte = None
    hop_limit: _Byte = DEFAULT_HOP_LIMIT


def parse_packets(content: bytes, file: str) -> Scenario:
    """Return the scenario that a file holds, YAML or JSON.

    Raises:
        DocumentError: carries everything that is wrong with it.
    """
    limits = Limits()
    findings = Findings(limits.problems)
    reading = Reading(file=file, findings=findings, budget=Budget(limits=limits))
    root = read_tree(DocumentFile(file, content), reading, "write packets, and what they must meet")
    model = read_model(_ScenarioModel, root) if root else None
    if root is None or model is None:
        raise DocumentError(findings.all())
    bound = _bindings(root.at("bind")) if model.bind else ()
    bindings = tuple(replace(binding, source_check=model.source_check) for binding in bound)
    places = root.at("packets").items() if model.packets else ()
    scenario = Scenario(
        definitions=model.definitions or DEFAULT_DEFINITIONS,
        bindings=bindings,
        at=model.at,
        names=dict(_names(root.at("dns"))) if model.dns else {},
        traffic=tuple(_read_traffic(places, bindings)),
    )
    if findings.has_errors:
        raise DocumentError(findings.all())
    return scenario


def _bindings(bind: Field) -> Iterator[HandBinding]:
    """Yield the binding of each interface, sorted by interface."""
    for name in sorted(bind.entries):
        place = bind.at(name)
        origin = place.origin
        try:
            INTERFACE_NAME.check(name)
        except scalars.InvalidValueError as error:
            place.refuse(error.faults)
            continue
        if isinstance(place.node, Listing):
            groups = sorted(filter(None, (item.text() for item in place.items())))
            yield HandBinding(interface=name, security_group_ids=tuple(groups), origin=origin)
        elif (network_interface_id := place.text()) is not None:
            if network_interface_id.startswith("sg-"):
                place.error("wrong_type", "a group, and groups are a list", f"[{network_interface_id}]")
            yield HandBinding(interface=name, network_interface_id=network_interface_id, origin=origin)


def _names(names: Field) -> Iterator[tuple[str, AddressSet]]:
    """Yield each name with its addresses."""
    for written in names.entries:
        yield canonical_name(written), AddressSet.of(parse_members(names.at(written)))


def _read_traffic(places: Iterable[Field], bindings: tuple[HandBinding, ...]) -> Iterator[ExpectedTraffic]:
    """Read packets in order; a reply is to a packet before it."""
    names: set[str] = set()
    openers: dict[str, ExpectedPacket] = {}
    for place in places:
        is_reply = "replies_to" in place.entries
        entry = _reply(place, openers) if is_reply else _packet(place, bindings)
        if entry is None:
            continue
        if entry.name in names:
            message = f"the name is used twice: {entry.name}"
            place.error("duplicate_name", message, "give each packet its own name")
        names.add(entry.name)
        if isinstance(entry, ExpectedPacket):
            openers[entry.name] = entry
        yield entry


def _reply(place: Field, openers: MappingOf[str, ExpectedPacket]) -> ExpectedReply | None:
    """Read a reply; None if it has errors."""
    model = read_model(_ReplyModel, place)
    if model is None:
        return None
    opener = openers.get(model.replies_to)
    if model.replies_to and opener is None:
        remedy = "the name of a packet before it"
        place.at("replies_to").error("unknown_packet", "answers no packet", remedy)
    if not model.name or opener is None or model.expect is None:
        return None
    expected = ExpectedDecision(verdict=model.expect, decided_by=model.decided_by)
    return ExpectedReply(name=model.name, opener=opener, expected=expected, origin=place.origin)


def _packet(place: Field, bindings: tuple[HandBinding, ...]) -> ExpectedPacket | None:
    """Read a packet that opens a session; None if it has errors."""
    model = read_model(_PacketModel, place)
    if model is None:
        return None
    interface, family = _interface(place, model, bindings), _family(place, model)
    ports = (None, None) if model.protocol is None else _ports(place, model, model.protocol)
    if (model.rule_id or model.security_group_id) and model.decided_by not in (None, DecidedBy.RULE):
        place.error("mismatch", "names a rule, but is not decided by one", "decided_by: rule")
    if not model.name or model.expect is None or interface is None or model.direction is None:
        return None
    if model.source is None or model.destination is None or family is None or model.protocol is None:
        return None
    expected = ExpectedDecision(
        verdict=model.expect,
        decided_by=model.decided_by,
        rule_id=model.rule_id,
        security_group_id=model.security_group_id,
    )
    packet = Packet(
        interface=interface,
        direction=model.direction,
        family=family,
        source=int(model.source),
        destination=int(model.destination),
        protocol=model.protocol,
        source_port=ports[0],
        destination_port=ports[1],
        icmp_type=_icmp_type(place, model, family, model.protocol),
        hop_limit=model.hop_limit,
    )
    return ExpectedPacket(name=model.name, packet=packet, expected=expected, origin=place.origin)


def _interface(place: Field, model: _PacketModel, bindings: tuple[HandBinding, ...]) -> str | None:
    """Return where a packet passes; it may be left out where only one interface is bound."""
    name = model.interface
    remedy = f"one of {', '.join(binding.interface for binding in bindings) or 'those in bind'}"
    if "interface" not in place.entries:
        if len(bindings) == 1 and bindings[0].pattern is None:
            return bindings[0].interface
        place.refuse_missing("interface", remedy)
    elif name is not None and not any(
        one.interface == name or (one.pattern and one.pattern.matches(name)) for one in bindings
    ):
        place.at("interface").error("unknown_interface", "is not bound", remedy)
    return name


def _family(place: Field, model: _PacketModel) -> Family | None:
    if model.source is None or model.destination is None:
        return None
    if model.source.version != model.destination.version:
        message = "source and destination are of different families"
        place.error("mixed_families", message, "write two addresses of one family")
        return None
    return Family.IPV4 if model.source.version == 4 else Family.IPV6


def _ports(place: Field, model: _PacketModel, protocol: int) -> tuple[int | None, int | None]:
    """Return source and destination port; protocols that have them must have the second."""
    named = [name for name in ("source_port", "port") if name in place.entries]
    if not Protocol(protocol).has_ports:
        for name in named:
            message = f"only {ported_text('and')} have ports"
            place.at(name).error("no_ports", message, "leave it out")
        return None, None
    if "port" not in named:
        place.refuse_missing("port")
    return model.source_port if "source_port" in named else DEFAULT_SOURCE_PORT, model.port


def _icmp_type(place: Field, model: _PacketModel, family: Family, protocol: int) -> int | None:
    """Return a message's type; a ping where none is given."""
    is_named = "icmp_type" in place.entries
    if Protocol(protocol).only_family is family:
        return model.icmp_type if is_named else _ECHO_REQUEST[family]
    if is_named:
        message = "only ICMP over IPv4 and ICMPv6 over IPv6 have types"
        place.at("icmp_type").error("no_type", message, "leave it out")
    return None
