"""Judge packets by a native document, written from the text of §3 to §5, §7 and §12, without a word of ours.

It reads the document as a mapping, and knows addresses by the standard library alone; what names stand for is
in the document's key ``names``, which no real one has. Fail-safe entries and what conntrack calls invalid are
none of its concern.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Document = Mapping[str, Any]

_NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "gre": 47}
_FAMILY_OF = {1: 4, 58: 6}
_METADATA = ipaddress.ip_address("100.100.100.200")
_ADVANCED = ("advanced", "enterprise")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A first packet of a session, or one that belongs to none."""

    direction: str
    source: Address
    destination: Address
    protocol: int
    source_port: int | None = None
    port: int | None = None
    icmp_type: int | None = None
    hop_limit: int = 64

    @property
    def far_end(self) -> Address:
        """Return the end that an authorization object speaks of."""
        return self.source if self.direction == "ingress" else self.destination

    @property
    def near_end(self) -> Address:
        """Return the end that a local address speaks of."""
        return self.destination if self.direction == "ingress" else self.source


@dataclass(frozen=True, slots=True)
class Edge:
    """A link, and which network interface of the document it is."""

    network_interface_id: str
    bound_as: str
    """Its name, or the one pattern that matches it (§12.5)."""

    link_addresses: Sequence[str] = ()
    is_source_checked: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, the step that decided, and the rule if it was one."""

    verdict: str
    step: str
    rule_id: str | None = None


def judge(document: Document, edge: Edge, attempt: Attempt, at: dt.datetime) -> Judgement:
    """Return what the first step that applies says (§3), at the latest time that is known (§12.4)."""
    (own,) = (
        one
        for one in document["network_interfaces"]
        if one["network_interface_id"] == edge.network_interface_id
    )
    groups = [one for one in document["security_groups"] if _id(one) in own["security_group_ids"]]
    if edge.is_source_checked and _is_spoofed([*own["addresses"], *edge.link_addresses], attempt):
        return Judgement("drop", "spoofed")
    if _is_needed(attempt) or (attempt.direction == "egress" and attempt.destination == _METADATA):
        return Judgement("accept", "always")
    if attempt.direction == "ingress" and any(
        _is_open_inside(group) and _is_in(attempt.source, _members(document, _id(group))) for group in groups
    ):
        return Judgement("accept", "inner")
    rules = [
        (rule.get("priority", 1), rule["policy"] in ("accept", "allow"), rule["rule_id"])
        for group in groups
        for rule in group["rules"]
        if _matches(document, rule, attempt) and _lives(rule, at)
    ]
    if rules:
        _, accepts, rule_id = min(rules)
        return Judgement("accept" if accepts else "drop", "rule", rule_id)
    is_basic = bool(groups) and groups[0].get("type", "basic") not in _ADVANCED
    return Judgement("accept" if attempt.direction == "egress" and is_basic else "drop", "default")


def _id(group: Document) -> str:
    found: str = group["security_group_id"]
    return found


def _is_open_inside(group: Document) -> bool:
    """Return whether fellow members reach each other whatever the rules say (§3.4)."""
    return group.get("type", "basic") not in _ADVANCED and group.get("inner_access_policy") != "drop"


def _is_spoofed(own: Sequence[str], attempt: Attempt) -> bool:
    """Return whether a source is on the wrong side of the interface, and §7.1 does not allow it (§12.6)."""
    is_own = _is_in(attempt.source, map(ipaddress.ip_network, own))
    return is_own is (attempt.direction == "ingress") and not _is_needed(attempt)


def _is_needed(attempt: Attempt) -> bool:
    """Return whether a host needs it to have an address at all (§7.1)."""
    version = attempt.source.version
    if attempt.protocol == 17:
        server, client = (67, 68) if version == 4 else (547, 546)
        ends = (server, client) if attempt.direction == "ingress" else (client, server)
        return (attempt.source_port, attempt.port) == ends
    if attempt.protocol != 58 or version != 6:
        return False
    if attempt.icmp_type in (133, 134, 135, 136):
        return attempt.hop_limit == 255
    is_near = attempt.source.is_link_local or attempt.source.is_unspecified
    return attempt.icmp_type in (130, 131, 132, 143) and attempt.hop_limit == 1 and is_near


def _lives(rule: Document, at: dt.datetime) -> bool:
    """Return whether a rule has not ended (§12.4), and is within its hours (§13.2)."""
    has_ended = "expires" in rule and at >= dt.datetime.fromisoformat(rule["expires"].upper())
    return not has_ended and ("active" not in rule or _is_within(rule["active"], at))


def _is_within(hours: Document, at: dt.datetime) -> bool:
    """Return whether hours hold, where no clock is changed near that time."""
    there = at.astimezone(ZoneInfo(hours.get("zone", "UTC")))
    clock, begins, ends = f"{there:%H:%M}", hours["from"], hours["to"]
    today, yesterday = ((there - dt.timedelta(days=ago)).strftime("%a").lower() for ago in (0, 1))
    if begins < ends:
        return today in hours["days"] and begins <= clock < ends
    return (today in hours["days"] and clock >= begins) or (yesterday in hours["days"] and clock < ends)


def _matches(document: Document, rule: Document, attempt: Attempt) -> bool:
    return (
        rule["direction"] == attempt.direction
        and any(_has_protocol(protocol, attempt) for protocol in _listed(rule["protocol"]))
        and any(_holds(document, one, attempt.far_end) for one in _listed(rule["authorization_object"]))
        and ("local_address" not in rule or attempt.near_end in ipaddress.ip_network(rule["local_address"]))
        and _has_port(_ports(document, rule), attempt.port)
        and _has_port(_listed(rule.get("source_port_range", "-1/-1")), attempt.source_port)
    )


def _listed(value: Any) -> Sequence[Any]:  # noqa: ANN401 - a value of a document
    return value if isinstance(value, list) else [value]


def _has_protocol(protocol: str | int, attempt: Attempt) -> bool:
    """Return whether a packet has a protocol, which may be of one family alone (§4.1)."""
    word = str(protocol).lower()
    number = attempt.protocol if word == "all" else _NUMBERS[word] if word in _NUMBERS else int(word)
    return number == attempt.protocol and (
        word == "all" or _FAMILY_OF.get(number, attempt.far_end.version) == attempt.far_end.version
    )


def _holds(document: Document, one: str, address: Address) -> bool:
    """Return whether an object stands for an address (§5.1, §5.2, §12.1, §12.3)."""
    if one.lower() == "any":
        return True
    account, _, group = one.rpartition("/")
    if group.startswith("sg-"):  # of another account it is unknown, and stands for nothing (§5.3)
        is_own = account in ("", document["account_id"])
        return is_own and _is_in(address, _members(document, group))
    if one.lower().startswith("dns:"):
        name = ".".join(map(_in_ascii, one[4:].lower().removesuffix(".").split(".")))
        texts = document["names"].get(name, ())
        return any(address == ipaddress.ip_address(text) for text in texts)
    if one.startswith("pl-"):
        lists = [entry for entry in document["prefix_lists"] if entry["prefix_list_id"] == one]
        return any(address in ipaddress.ip_network(text) for entry in lists for text in entry["entries"])
    return address in ipaddress.ip_network(one)


def _in_ascii(label: str) -> str:
    return label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}"


def _is_in(address: Address, networks: Iterator[Network]) -> bool:
    return any(address in network for network in networks)


def _members(document: Document, group_id: str) -> Iterator[Network]:
    for group in document["security_groups"]:
        if _id(group) == group_id:
            yield from map(ipaddress.ip_network, group["member_addresses"])
    for interface in document["network_interfaces"]:
        if group_id in interface["security_group_ids"]:
            yield from map(ipaddress.ip_network, interface["addresses"])


def _ports(document: Document, rule: Document) -> Sequence[Any]:
    """Return what a rule says of destination ports; a range wins over a list (§4.2, §4.3)."""
    if "port_range" in rule or "port_list_id" not in rule:
        return _listed(rule.get("port_range", "-1/-1"))
    lists = [one for one in document["port_lists"] if one["port_list_id"] == rule["port_list_id"]]
    return [text for one in lists for text in one["entries"]]


def _has_port(ranges: Sequence[Any], port: int | None) -> bool:
    if "-1/-1" in ranges:
        return True
    ends = (str(text).replace("-", "/").split("/") for text in ranges)
    return port is not None and any(int(range_[0]) <= port <= int(range_[-1]) for range_ in ends)
