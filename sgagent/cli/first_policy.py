"""The text of a first policy and a first configuration for a host, from what runs on it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sgagent.core.binding import Link
from sgagent.core.model import TCP, UDP, CidrBlock, Family

MOST_PEERS = 100
"""Peers of open sessions at one port that the policy names."""

_SSH_PORT = 22
_WEB_PORTS = (80, 443)
_EVERYONE_IPV6 = '"::/0"'
_PROTOCOLS = {TCP.number: "tcp", UDP.number: "udp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPort:
    """A port of this host at which a program waits, and who has a TCP session there."""

    protocol: str
    """``tcp`` or ``udp``."""

    port: int
    peers: frozenset[CidrBlock] = frozenset()
    """Single addresses."""

    has_rule: bool = False
    """Whether the policy admits somebody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """What the first policy is made of."""

    name: str
    """Of the host."""

    links: tuple[Link, ...]
    ports: tuple[OpenPort, ...]
    """Sorted; not those at loopback."""

    logins: frozenset[tuple[int, CidrBlock]]
    """The local port and the far end of the sessions that the command is typed in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """A rule of the policy, which accepts what comes in at a TCP port."""

    rule_id: str
    port: int
    source: str
    """Its authorization object."""

    description: str
    admitted: tuple[CidrBlock, ...] = ()
    """What its object stands for, unless that is a prefix list."""

    def lines(self) -> Iterator[str]:
        """Yield the rule as YAML."""
        source = f'"{self.source}"' if ":" in self.source else self.source
        yield f"      - rule_id: {self.rule_id}"
        yield "        direction: ingress"
        yield "        policy: accept"
        yield "        priority: 1"
        yield "        protocol: tcp"
        yield f"        port_range: {self.port}"
        yield f"        authorization_object: {source}"
        yield f"        description: {self.description}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstPolicy:
    """The first policy of a host."""

    text: str
    """YAML."""

    interfaces: tuple[str, ...]
    """The links that it filters."""

    admitted: tuple[str, ...]
    """Who may come in, a line each."""

    notes: tuple[str, ...]
    """What a person has to look at."""


def make_first_policy(
    view: HostView, *, ssh_from: Sequence[CidrBlock] = (), is_web_server: bool = False
) -> FirstPolicy:
    """Return a policy that admits logins, what the arguments say, and the sessions that are open."""
    name = _id_part(view.name)
    links = filtered_links(view.links)
    rules = [*_ssh_rules(view, ssh_from), *(_web_rules() if is_web_server else ())]
    others = [_without_admitted(one, rules) for one in view.ports]
    lists: list[str] = []
    for port, family, peers in _busy(others):
        suffix = f"{port}-{family.value}"
        description = "hosts with a session at this port when the policy was written"
        list_id = f"pl-{name}-{suffix}"
        rules.append(_Rule(rule_id=f"sgr-tcp-{suffix}", port=port, source=list_id, description=description))
        lists += _prefix_list(list_id, family, peers)
    lines = (
        *_head(name),
        "    rules:" if rules else "    rules: []",
        *(line for rule in rules for line in rule.lines()),
        *_suggestions(others),
        *(["prefix_lists:", *lists] if lists else ()),
        *_interfaces(name, links, view.links),
        "",
    )
    return FirstPolicy(
        text="\n".join(lines),
        interfaces=tuple(link.name for link in links),
        admitted=tuple(f"tcp {rule.port} from {rule.source}" for rule in rules),
        notes=tuple(_notes(view, ssh_from, links, others)),
    )


def first_configuration(definitions: str | None) -> str:
    """Return a configuration that only observes.

    Args:
        definitions: the directory of documents, where it is not the default.
    """
    source = () if definitions is None else ("[source]", f"path = {json.dumps(definitions)}", "")
    return "\n".join(("# sgagent.toml(5) has every key with its default.", "", *source, *OBSERVING, ""))


OBSERVING = (
    "[enforcement]",
    "# Evaluate and count, but drop nothing. 'sgagent mode enforce' overrides this once nothing surprises.",
    'mode = "observe"',
)
"""The part of the configuration by which nothing is dropped."""


def filtered_links(links: Iterable[Link]) -> tuple[Link, ...]:
    """Return the links to filter: those with hardware, and bonds; where there are none, all but bridges."""
    links = tuple(links)
    bonds = {link.master for link in links if link.master_kind in {"bond", "team"}}
    masters = {link.master for link in links if link.master_kind != "vrf"}
    usable = [
        replace(link, addresses=addresses)
        for link in links
        if not link.is_loopback
        and (link.master is None or link.master_kind == "vrf")
        and (addresses := tuple(one for one in link.addresses if not _is_link_local(one)))
    ]
    physical = tuple(link for link in usable if link.has_hardware or link.name in bonds)
    return physical or tuple(link for link in usable if link.name not in masters)


def _is_link_local(address: CidrBlock) -> bool:
    prefix, bits = (0xFE80 << 112, 118) if address.family is Family.IPV6 else (0xA9FE0000, 16)
    return address.first >> bits == prefix >> bits


def _id_part(text: str) -> str:
    """Return a text as a part of an id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "host"


def _ssh_rules(view: HostView, ssh_from: Sequence[CidrBlock]) -> Iterator[_Rule]:
    """Yield rules for the networks that were named, and for logins that they do not cover."""
    ports = sorted({port for port, _ in view.logins}) or [_SSH_PORT]
    for port in ports:
        for number, block in enumerate(ssh_from, 1):
            yield _ssh_rule(port, f"{number}", block, "SSH")
    uncovered = sorted(((port, peer) for port, peer in view.logins if not _covers(ssh_from, peer)), key=str)
    for number, (port, peer) in enumerate(uncovered, 1):
        yield _ssh_rule(port, f"session-{number}", peer, "the session in which this policy was written")


def _without_admitted(one: OpenPort, rules: Iterable[_Rule]) -> OpenPort:
    """Return a port with the far ends that no rule admits."""
    here = [rule for rule in rules if one.protocol == "tcp" and rule.port == one.port]
    admitted = [block for rule in here for block in rule.admitted]
    left = frozenset(peer for peer in one.peers if not _covers(admitted, peer))
    return replace(one, peers=left, has_rule=bool(admitted))


def _ssh_rule(port: int, label: str, source: CidrBlock, description: str) -> _Rule:
    return _Rule(
        rule_id=f"sgr-ssh-{label}" if port == _SSH_PORT else f"sgr-ssh-{port}-{label}",
        port=port,
        source=str(source),
        description=description,
        admitted=(source,),
    )


def _covers(blocks: Iterable[CidrBlock], address: CidrBlock) -> bool:
    return any(one.family is address.family and one.first <= address.first <= one.last for one in blocks)


def _web_rules() -> Iterator[_Rule]:
    for port in _WEB_PORTS:
        for family, everyone in ((Family.IPV4, "0.0.0.0/0"), (Family.IPV6, "::/0")):
            yield _Rule(
                rule_id=f"sgr-web-{port}-{family.value}",
                port=port,
                source=everyone,
                description="the web server, for everyone",
                admitted=(CidrBlock.parse(everyone),),
            )


def _busy(ports: Iterable[OpenPort]) -> Iterator[tuple[int, Family, list[CidrBlock]]]:
    """Yield ports with open sessions and the far ends, by family, unless these are too many."""
    for one in ports:
        for family in Family:
            peers = sorted(peer for peer in one.peers if peer.family is family)
            if peers and len(one.peers) <= MOST_PEERS:
                yield one.port, family, peers


def _head(name: str) -> Iterator[str]:
    yield "# The first policy of this host, by 'sgagent init'. What no rule accepts is dropped inwards and"
    yield "# accepted outwards; answers pass. 'sgagent hits' and 'sgagent denied' show what would be dropped."
    yield "version: 1"
    yield "security_groups:"
    yield f"  - security_group_id: sg-{name}"
    yield "    type: basic                    # advanced: also drops what leaves, unless a rule accepts it"
    yield "    inner_access_policy: drop      # accept: hosts of this group reach each other at every port"


def _suggestions(ports: Sequence[OpenPort]) -> Iterator[str]:
    """Yield what to uncomment for other programs that wait for packets."""
    waiting = [one for one in ports if not one.has_rule and not 0 < len(one.peers) <= MOST_PEERS]
    if waiting:
        yield "      # Programs wait at these ports, too. To admit somebody, uncomment a line and say whom:"
    yield from (f"      # - {_flow(one.protocol, '192.0.2.0/24', one.port)}" for one in waiting)
    yield "      # Ping, for everyone:"
    yield f"      # - {_flow('icmp', '0.0.0.0/0')}"
    yield f"      # - {_flow('icmpv6', _EVERYONE_IPV6)}"


def _flow(protocol: str, source: str, port: int | None = None) -> str:
    """Return a rule in one line."""
    label, ports = (protocol, "") if port is None else (f"{protocol}-{port}", f" port_range: {port},")
    return (
        f"{{rule_id: sgr-{label}, direction: ingress, policy: accept, priority: 1, protocol: {protocol},"
        f"{ports} authorization_object: {source}}}"
    )


def _prefix_list(list_id: str, family: Family, peers: Iterable[CidrBlock]) -> Iterator[str]:
    yield f"  - prefix_list_id: {list_id}"
    yield f"    address_family: {family.value}"
    yield "    entries:"
    yield from (f'      - "{peer}"' for peer in peers)


def _interfaces(name: str, links: Sequence[Link], found: Sequence[Link]) -> Iterator[str]:
    """Yield the network interfaces, and in a comment the links that are left out."""
    chosen = {link.name for link in links}
    left_out = [link for link in found if link.name not in chosen and not link.is_loopback and link.addresses]
    if left_out:
        yield "# Links that are not filtered: " + ", ".join(ascii(link.name)[1:-1] for link in left_out)
    if not links:
        return
    macs = Counter(link.mac_address for link in links)
    yield "network_interfaces:"
    parts = [_id_part(link.name) for link in links]
    for number, (link, part) in enumerate(zip(links, parts, strict=True)):
        again = f"-{number}" if parts.count(part) > 1 else ""
        yield f"  - network_interface_id: eni-{name}-{part}{again}"
        if link.mac_address and macs[link.mac_address] == 1:
            yield f"    mac_address: {link.mac_address}      # {ascii(link.name)[1:-1]}"
        yield "    addresses:"
        yield from (f'      - "{address}"' for address in map(_single, link.addresses))
        yield f"    security_group_ids: [sg-{name}]"


def _single(address: CidrBlock) -> str:
    return str(address).partition("/")[0]


def _notes(
    view: HostView, ssh_from: Sequence[CidrBlock], links: Sequence[Link], others: Iterable[OpenPort]
) -> Iterator[str]:
    if not links:
        yield "no link has an address: the policy filters nothing until a network interface is added"
    if not ssh_from and not view.logins:
        yield "no rule admits SSH: name a network by --ssh-from, or add a rule, before you enforce this"
    for _, peer in sorted(view.logins, key=str):
        if ssh_from and not _covers(ssh_from, peer):
            yield f"your session from {_single(peer)} is not in --ssh-from: a rule of its own admits it"
    for one in others:
        if len(one.peers) > MOST_PEERS:
            yield f"no rule admits the {len(one.peers)} hosts that have sessions at tcp port {one.port}"
