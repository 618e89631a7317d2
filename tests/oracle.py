"""Judge packets by a native document, written from the text of §3 to §5 and §12, without a word of ours.

It reads the document as a mapping, and knows addresses by the standard library alone. One basic group is on
the interface; its inner access is off, so that rules and defaults decide.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Document = Mapping[str, Any]

_NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "gre": 47}
_FAMILY_OF = {1: 4, 58: 6}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A first packet of a session."""

    direction: str
    source: Address
    destination: Address
    protocol: int
    source_port: int | None = None
    port: int | None = None

    @property
    def far_end(self) -> Address:
        """Return the end that an authorization object speaks of."""
        return self.source if self.direction == "ingress" else self.destination

    @property
    def near_end(self) -> Address:
        """Return the end that a local address speaks of."""
        return self.destination if self.direction == "ingress" else self.source


def judge(document: Document, group_id: str, attempt: Attempt, at: dt.datetime) -> tuple[str, str | None]:
    """Return the verdict, and the id of the rule that decided; None is the default (§3.5, §3.6)."""
    (group,) = (one for one in document["security_groups"] if one["security_group_id"] == group_id)
    rules = [rule for rule in group["rules"] if _matches(document, rule, attempt) and _lives(rule, at)]
    rules.sort(key=lambda rule: (rule.get("priority", 1), rule["policy"] == "accept", rule["rule_id"]))
    if rules:
        return rules[0]["policy"], rules[0]["rule_id"]
    return ("accept" if attempt.direction == "egress" else "drop"), None


def _lives(rule: Document, at: dt.datetime) -> bool:
    """Return whether a rule has not ended: from the instant on it does not exist (§12.4)."""
    return "expires" not in rule or at < dt.datetime.fromisoformat(rule["expires"].upper())


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
    """Return whether an object stands for an address (§5.1, §5.2, §12.1)."""
    if one.lower() == "any":
        return True
    if one.startswith("sg-"):
        return any(address in network for network in _members(document, one))
    if one.startswith("pl-"):
        lists = [entry for entry in document["prefix_lists"] if entry["prefix_list_id"] == one]
        return any(address in ipaddress.ip_network(text) for entry in lists for text in entry["entries"])
    return address in ipaddress.ip_network(one)


def _members(document: Document, group_id: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for group in document["security_groups"]:
        if group["security_group_id"] == group_id:
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
