"""Read a file of packets into a scenario."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sgagent.core.errors import DocumentError, Origin, Problem
from sgagent.core.evaluate import DecidedBy, Packet
from sgagent.core.host import HandBinding
from sgagent.core.model import LAST_PORT, PROTOCOL_NAMES, Direction, Family, Policy
from sgagent.documents.builder import TreeBuilder
from sgagent.documents.limits import Limits
from sgagent.documents.tree import Kind, Listing, MalformedError, Mapping, Node, Scalar
from sgagent.documents.yamltext import parse_yaml
from sgagent.packets.fields import Fields, Place
from sgagent.packets.scenario import ExpectedPacket, ExpectedReply, ExpectedTraffic, Judgement, Scenario

DEFAULT_DEFINITIONS = "groups.d"
DEFAULT_SOURCE_PORT = 40_000
DEFAULT_HOP_LIMIT = 64
LARGEST_FILE = 4 * 1024 * 1024
"""Bytes of one file of packets that are read."""

_ECHO_REQUEST = {Family.IPV4: (1, 8), Family.IPV6: (58, 128)}
"""The protocol of each family whose messages have types, and the type of a ping."""

_PORT_PROTOCOLS = (6, 17)
_NUMBERS = {name: protocol.number for protocol, name in PROTOCOL_NAMES.items() if protocol.number is not None}

_TOP_FIELDS = ("definitions", "bind", "packets")
_JUDGEMENT_FIELDS = ("expect", "decided_by", "rule_id", "security_group_id")
_ENDS_FIELDS = (
    "direction",
    "source",
    "destination",
    "protocol",
    "source_port",
    "port",
    "icmp_type",
    "hop_limit",
)
_PACKET_FIELDS = ("name", "interface", *_ENDS_FIELDS, *_JUDGEMENT_FIELDS)
_REPLY_FIELDS = ("name", "replies_to", "expect", "decided_by")


def parse_packets(content: bytes, file: str) -> Scenario:
    """Return the scenario that a file holds.

    Raises:
        DocumentError: carries everything that is wrong with it.
    """
    problems: list[Problem] = []
    root = _tree(content, file, problems)
    if problems:
        raise DocumentError(problems)
    top = Fields(Place(root, "", file, problems), _TOP_FIELDS)
    bindings = tuple(_bindings(top, file))
    reading = _Traffic(tuple(binding.interface for binding in bindings))
    scenario = Scenario(
        definitions=top.text("definitions") or DEFAULT_DEFINITIONS,
        bindings=bindings,
        traffic=tuple(reading.read(top)),
    )
    if problems:
        raise DocumentError(problems)
    return scenario


def _tree(content: bytes, file: str, problems: list[Problem]) -> Node:
    """Return the values of a file; an empty mapping, and problems, where it holds none."""
    nothing = Mapping(1, {})
    whole = Place(nothing, "", file, problems)
    if len(content) > LARGEST_FILE:
        whole.refuse("too_large", f"larger than {LARGEST_FILE} bytes")
        return nothing
    builder = TreeBuilder(Limits())
    try:
        parse_yaml(content.decode(), builder)
    except UnicodeDecodeError:
        whole.refuse("encoding", "not UTF-8")
    except MalformedError as error:
        at_line = Place(Scalar(error.line, Kind.NULL, ""), "", file, problems)
        at_line.refuse(error.code, error.message, value=error.value, remedy=error.remedy)
    for duplicate in builder.duplicates:
        at_line = Place(Scalar(duplicate.line, Kind.NULL, ""), "", file, problems)
        at_line.refuse("duplicate_key", "stands twice in one mapping", value=duplicate.key)
    return builder.root or nothing


def _bindings(top: Fields, file: str) -> Iterator[HandBinding]:
    """Read which interface stands for what."""
    bound = top.require("bind")
    for name, place in bound.fields() if bound else ():
        origin = f"{file}: {place.path}"
        if isinstance(place.node, Listing):
            groups = sorted(text for item in place.items() if (text := item.text()) is not None)
            yield HandBinding(interface=name, security_group_ids=tuple(groups), origin=origin)
        elif isinstance(place.node, Scalar) and place.node.kind is Kind.TEXT:
            yield HandBinding(interface=name, network_interface_id=place.node.text, origin=origin)
        else:
            place.refuse_type("a list of groups, or the id of a network interface")


@dataclass(slots=True)
class _Traffic:
    """Reads packets in order and remembers those that can be answered."""

    interfaces: tuple[str, ...]
    openers: dict[str, ExpectedPacket] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def read(self, top: Fields) -> Iterator[ExpectedTraffic]:
        """Read all packets."""
        listing = top.require("packets")
        for place in listing.items() if listing else ():
            entry = self._entry(place)
            if entry is None:
                continue
            if entry.name in self.names:
                place.refuse("duplicate_name", "the name stands twice", value=entry.name)
            self.names.add(entry.name)
            if isinstance(entry, ExpectedPacket):
                self.openers[entry.name] = entry
            yield entry

    def _entry(self, place: Place) -> ExpectedTraffic | None:
        """Read one packet or reply."""
        if isinstance(place.node, Mapping) and "replies_to" in place.node.entries:
            return self._reply(Fields(place, _REPLY_FIELDS))
        return self._packet(Fields(place, _PACKET_FIELDS))

    def _reply(self, fields: Fields) -> ExpectedReply | None:
        """Read a reply."""
        name, answered = fields.text("name", required=True), fields.text("replies_to", required=True)
        expected = _judgement(fields)
        if name is None or answered is None or expected is None:
            return None
        opener = self.openers.get(answered)
        if opener is None:
            remedy = "the name of a packet that stands before it"
            fields.place.refuse("unknown_packet", "answers no packet", value=answered, remedy=remedy)
            return None
        return ExpectedReply(name=name, opener=opener, expected=expected, origin=_origin(fields))

    def _packet(self, fields: Fields) -> ExpectedPacket | None:
        """Read a packet that opens a session."""
        name, expected = fields.text("name", required=True), _judgement(fields)
        interface = self._interface(fields)
        direction = fields.word("direction", Direction, required=True)
        source, destination = fields.address("source"), fields.address("destination")
        protocol = _protocol(fields)
        if name is None or expected is None or interface is None or direction is None:
            return None
        if source is None or destination is None or protocol is None:
            return None
        if source.version != destination.version:
            fields.place.refuse("mixed_families", "source and destination are of different families")
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
            hop_limit=fields.number("hop_limit", 255, DEFAULT_HOP_LIMIT),
        )
        return ExpectedPacket(name=name, packet=packet, expected=expected, origin=_origin(fields))

    def _interface(self, fields: Fields) -> str | None:
        """Read where a packet passes; it may be left out where only one interface is bound."""
        if "interface" not in fields and len(self.interfaces) == 1:
            return self.interfaces[0]
        name = fields.text("interface", required=True)
        if name is not None and name not in self.interfaces:
            remedy = f"one that bind names: {', '.join(self.interfaces)}"
            fields.place.refuse(
                "unknown_interface", "passes where nothing is bound", value=name, remedy=remedy
            )
            return None
        return name


def _origin(fields: Fields) -> Origin:
    """Return where a packet stands."""
    return Origin(file=fields.place.file, line=fields.place.node.line, path=fields.place.path)


def _judgement(fields: Fields) -> Judgement | None:
    """Read what must become of a packet."""
    verdict = fields.word("expect", Policy, required=True)
    decided_by = fields.word("decided_by", DecidedBy)
    rule_id, group_id = fields.text("rule_id"), fields.text("security_group_id")
    if (rule_id or group_id) and decided_by not in (None, DecidedBy.RULE):
        message = "names a rule, but it is not the rule that decides"
        fields.place.refuse("mismatch", message, remedy="decided_by: rule")
    if verdict is None:
        return None
    return Judgement(verdict=verdict, decided_by=decided_by, rule_id=rule_id, security_group_id=group_id)


def _protocol(fields: Fields) -> int | None:
    """Read a protocol, by name or number."""
    place = fields.require("protocol")
    if place is None:
        return None
    text = place.node.text if isinstance(place.node, Scalar) else ""
    is_number = text.isascii() and text.isdigit() and len(text) <= 3
    number = int(text) if is_number else _NUMBERS.get(text.lower())
    if number is None or number > 255:
        remedy = f"one of {', '.join(_NUMBERS)}, or a number up to 255"
        place.refuse("bad_protocol", "not a protocol", value=text, remedy=remedy)
        return None
    return number


def _ports(fields: Fields, protocol: int) -> tuple[int | None, int | None]:
    """Read source and destination port; only TCP and UDP have them, and must say the second."""
    if protocol in _PORT_PROTOCOLS:
        fields.require("port")
        source_port = fields.number("source_port", LAST_PORT, DEFAULT_SOURCE_PORT)
        return source_port, fields.number("port", LAST_PORT, None)
    for name in ("source_port", "port"):
        if place := fields.get(name):
            place.refuse("no_ports", "only TCP and UDP have ports", remedy=f"leave {name} out")
    return None, None


def _icmp_type(fields: Fields, family: Family, protocol: int) -> int | None:
    """Read a message's type; a ping where none is given."""
    own_protocol, echo_request = _ECHO_REQUEST[family]
    if protocol == own_protocol:
        return fields.number("icmp_type", 255, echo_request)
    if place := fields.get("icmp_type"):
        place.refuse("no_type", "only ICMP over IPv4 and ICMPv6 over IPv6 have types")
    return None
