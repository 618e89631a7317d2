"""Reader of VPC flow logs of Alibaba Cloud and AWS: packets counted by five-tuple, into conversations.

A record says who sent to whom, not who opened the session: of TCP the flags tell, where they are recorded,
else the smaller port is taken for the server's. Nor does a record say which end is the network interface's,
unless it has a direction: that is known when all is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

from sgagent.core.model import LAST_PORT, PORTED_NUMBERS, TCP, Direction, Family
from sgagent.suggest.conversations import CUT_OFF, Conversation, FieldFault, Tally, Traffic
from sgagent.suggest.flow_lines import MOST_BYTES, check_length, parse_address, parse_protocol

AWS_DEFAULT = (
    *("version", "account-id", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport"),
    *("protocol", "packets", "bytes", "start", "end", "action", "log-status"),
)
"""The fields of a record without a head, which is version 2 of AWS."""

_VERSIONS = {"1": "Alibaba Cloud", **{str(number): "AWS" for number in range(2, 11)}}
_NEEDED = (
    "srcaddr",
    "dstaddr",
    "srcport",
    "dstport",
    "protocol",
    "packets",
    "bytes",
    "start",
    "end",
    "action",
)
_INTERFACE, _DIRECTION = ("interface-id", "eni-id"), ("flow-direction", "direction")
_DIRECTIONS = {
    "in": Direction.INGRESS,
    "ingress": Direction.INGRESS,
    "out": Direction.EGRESS,
    "egress": Direction.EGRESS,
}
NO_RECORDS = "records that say that there was no traffic (NODATA)"
SKIPPED = "records that say that the cloud lost others (SKIPDATA)"
_SYN, _SYN_ACK = 2, 18
_END_OF_TIME = 253_402_300_800
"""The first second of the year 10000, which no calendar here has."""

_SPLIT = re.compile(r"[,\t ]+")
_PAIR = re.compile(r"([A-Za-z_-]+)[:=](\S*)")


class _Opened(NamedTuple):
    """A session as its two records have it, without a word of which end is whose."""

    site: str
    family: Family
    protocol: int
    port: int | None
    server: int
    client: int
    is_refused: bool


class CloudRecordReader:
    """Read the records of one log."""

    def __init__(
        self, traffic: Traffic, name: str, owners: Mapping[str, Container[tuple[Family, int]]]
    ) -> None:
        """Take the counted traffic, the name of the log, and the addresses of known network interfaces."""
        self._traffic = traffic
        self._name = name
        self._owners = owners
        self._columns: tuple[str, ...] | None = None
        self._opened: dict[_Opened, Tally] = {}
        self._own: dict[str, Counter[tuple[Family, int]]] = {}

    def read(self, lines: Iterable[bytes], number: int = 1) -> None:
        """Count all records; :meth:`settle` hands them on.

        Args:
            lines: as for :class:`FlowLineReader`.
            number: of the first.
        """
        for line in lines:
            try:
                fields = self._fields(line)
                if fields is not None:
                    self._count(fields)
            except FieldFault as fault:
                if line.endswith(b"\n"):
                    self._traffic.report(fault.problem(self._name, number))
                else:
                    self._traffic.left_out[CUT_OFF] += 1
            number += 1

    def settle(self) -> None:
        """Count the sessions that were read, now that each interface's own addresses are known.

        Raises:
            UsageError: there are too many conversations to keep apart.
        """
        ends = Counter[tuple[str, Family, int]]()
        for one, tally in self._opened.items():
            for end in {one.server, one.client}:
                ends[one.site, one.family, end] += tally.packets
        for one, tally in self._opened.items():
            is_ingress = self._weight(ends, one, one.server) >= self._weight(ends, one, one.client)
            conversation = Conversation(
                site=one.site,
                direction=Direction.INGRESS if is_ingress else Direction.EGRESS,
                family=one.family,
                protocol=one.protocol,
                port=one.port,
                near=one.server if is_ingress else one.client,
                far=one.client if is_ingress else one.server,
            )
            self._traffic.tally(conversation, is_refused=one.is_refused).add(tally)
        self._opened.clear()

    def _weight(
        self, ends: Counter[tuple[str, Family, int]], one: _Opened, end: int
    ) -> tuple[bool, int, int]:
        """Return how much speaks for an end to be the network interface's own."""
        own = self._own.get(one.site, Counter())
        is_known = (one.family, end) in self._owners.get(one.site, ())
        return is_known, own[one.family, end], ends[one.site, one.family, end]

    def _fields(self, line: bytes) -> Mapping[str, str] | None:
        """Return the fields of a record by the names of AWS; None for a head or an empty line."""
        check_length(line)
        text = line.decode("utf-8", "replace").strip()
        if text.startswith("{"):
            return _by_name(_pairs_of_json(text))
        words = [word.strip('"') for word in _SPLIT.split(text)] if text else []
        if not words:
            return None
        names = [_name(word) for word in words]
        if "srcaddr" in names:
            self._columns = tuple(names)
            return None
        pairs = _PAIR.findall(text)
        if len(pairs) >= len(_NEEDED) and any(_name(name) == "srcaddr" for name, _ in pairs):
            return _by_name(pairs)
        columns = self._columns or AWS_DEFAULT
        if self._columns is None and _version(words[0]) != "AWS":
            raise FieldFault(
                "version", words[0], "a line that names the fields before records of Alibaba Cloud"
            )
        if len(words) != len(columns):
            raise FieldFault("line", text[:80], f"{len(columns)} fields, found {len(words)}")
        return _by_name(zip(columns, words, strict=True))

    def _count(self, fields: Mapping[str, str]) -> None:
        _version(fields.get("version", "2"))
        status = fields.get("log-status", "OK")
        if status in ("NODATA", "SKIPDATA"):
            self._traffic.left_out[NO_RECORDS if status == "NODATA" else SKIPPED] += 1
            return
        if status != "OK":
            raise FieldFault("log-status", status, "OK, NODATA or SKIPDATA")
        site = next((fields[name] for name in _INTERFACE if fields.get(name)), None)
        if site is None or site == "-":
            raise FieldFault("interface-id", site, "the id of a network interface (Alibaba Cloud: eni-id)")
        source, destination = (_address(fields, name) for name in ("srcaddr", "dstaddr"))
        if source[0] is not destination[0]:
            raise FieldFault("dstaddr", fields.get("dstaddr"), "an address of srcaddr's family")
        protocol = parse_protocol("protocol", fields.get("protocol"))
        ports = tuple(_number(fields, name, LAST_PORT + 1) for name in ("srcport", "dstport"))
        action = fields.get("action")
        if action not in ("ACCEPT", "REJECT"):
            raise FieldFault("action", action, "ACCEPT or REJECT")
        direction = next((fields[name] for name in _DIRECTION if fields.get(name, "-") != "-"), None)
        if direction is not None:
            if direction not in _DIRECTIONS:
                raise FieldFault("direction", direction, "in or out (AWS: ingress or egress)")
            near = destination if _DIRECTIONS[direction] is Direction.INGRESS else source
            self._own.setdefault(site, Counter())[near] += 1
        flags = fields.get("tcp-flags", "-")
        is_from_server = _is_from_server(
            protocol, ports, 0 if flags == "-" else _number(fields, "tcp-flags", 256)
        )
        server, client = (source, destination) if is_from_server else (destination, source)
        has_ports = protocol in PORTED_NUMBERS
        opened = _Opened(
            site=site,
            family=server[0],
            protocol=protocol,
            port=ports[not is_from_server] if has_ports else None,
            server=server[1],
            client=client[1],
            is_refused=action == "REJECT",
        )
        second, last = (_number(fields, name, _END_OF_TIME) for name in ("start", "end"))
        packets, size = (_number(fields, name, MOST_BYTES) for name in ("packets", "bytes"))
        turned = opened._replace(server=opened.client, client=opened.server)
        is_answer = not has_ports and turned in self._opened
        tally = self._opened.setdefault(turned if is_answer else opened, Tally())
        tally.count(second, ports[is_from_server] if has_ports else None, size, packets)
        tally.sessions -= is_answer
        tally.last = max(tally.last, last)


def _is_from_server(protocol: int, ports: tuple[int, ...], flags: int) -> bool:
    """Return whether the source of a record is who was called."""
    if protocol == TCP.wire_number and flags & _SYN:
        return flags & _SYN_ACK == _SYN_ACK
    return protocol in PORTED_NUMBERS and ports[0] < ports[1]


def _pairs_of_json(text: str) -> Iterator[tuple[str, str]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise FieldFault("line", text[:80], "an object of JSON") from None
    return ((str(name), str(value)) for name, value in found.items())


def _by_name(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    return {_name(name): value for name, value in pairs}


def _name(word: str) -> str:
    return word.strip("${}").lower().replace("_", "-")


def _version(found: str) -> str:
    """Return whose records have this version."""
    if found not in _VERSIONS:
        known = "1 (Alibaba Cloud) or 2 to 10 (AWS)"
        raise FieldFault("version", found, f"{known}; write the log in one of these")
    return _VERSIONS[found]


def _address(fields: Mapping[str, str], name: str) -> tuple[Family, int]:
    found = fields.get(name)
    number = parse_address(name, found)
    return Family.IPV6 if ":" in (found or "") else Family.IPV4, number


def _number(fields: Mapping[str, str], name: str, most: int) -> int:
    found = fields.get(name)
    if found is None or not (found.isascii() and found.isdigit()) or len(found) > 20 or int(found) >= most:
        raise FieldFault(name, found, f"a whole number below {most}")
    return int(found)


def is_cloud_record(line: bytes) -> bool:
    """Return whether the first line of a log is one of the clouds', not the agent's."""
    return not line.startswith(b"{") or b'"srcaddr"' in line or b'"srcAddr"' in line
