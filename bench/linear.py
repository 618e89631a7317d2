"""Write the same policy as a list of rules that the kernel walks from the top, as most tools and people do.

It is written to be as fast as such a list can be: known sessions first, a set for each group rather than a
rule for each member, and no comparison of interfaces within a rule.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from ipaddress import IPv4Address

from bench.policies import INTERFACE
from sgagent.core.model import Policy, PortSet
from sgagent.core.policy import Peer, ResolvedPolicy, ResolvedRule

TABLE = "linear"


class Order(enum.Enum):
    """How the rules of the list are written."""

    ADDRESS_FIRST = "linear, address first"
    ADDRESS_FIRST_IPV4 = "linear, address first, IPv4 only"
    """In a table that no IPv6 packet comes through, so that no rule need ask; the others are for both."""

    PORT_FIRST = "linear, port first"


def render_linear(policy: ResolvedPolicy, order: Order) -> str:
    """Return the policy's inward rules as a text for ``nft -f``."""
    rules = policy.interfaces[0].ingress.rules
    family = "ip" if order is Order.ADDRESS_FIRST_IPV4 else "inet"
    return "\n".join(
        [
            f"destroy table {family} {TABLE}",
            f"table {family} {TABLE} {{",
            *_sets(rules),
            "chain ingress {",
            "type filter hook prerouting priority -150; policy accept;",
            f'iifname != "{INTERFACE}" accept',
            "ct state vmap { established : accept, related : accept, invalid : drop }",
            *(line_of(rule, order) for rule in rules),
            "counter drop",
            "}",
            "}",
            "",
        ]
    )


def _sets(rules: tuple[ResolvedRule, ...]) -> Iterator[str]:
    for peer in {rule.peer.name: rule.peer for rule in rules}.values():
        if _has_set(peer):
            members = ", ".join(str(IPv4Address(first)) for first, _ in peer.addresses.ipv4)
            yield f"set {peer.name} {{ type ipv4_addr; elements = {{ {members} }}; }}"


def _has_set(peer: Peer) -> bool:
    return len(peer.addresses.ipv4) > 1


def line_of(rule: ResolvedRule, order: Order) -> str:
    """Return a rule as a line of the list."""
    address = _address(rule.peer)
    port = f"{rule.protocols[0]} dport {_ports(rule.ports)}"
    matches = f"{port} {address}" if order is Order.PORT_FIRST else f"{address} {port}"
    verdict = "accept" if rule.policy is Policy.ACCEPT else "drop"
    return f"{matches} counter {verdict}"


def _address(peer: Peer) -> str:
    if peer.name == "0.0.0.0/0":
        return ""
    return f"ip saddr @{peer.name}" if _has_set(peer) else f"ip saddr {peer.name}"


def _ports(ports: PortSet) -> str:
    ((first, last),) = ports.ranges
    return str(first) if first == last else f"{first}-{last}"
