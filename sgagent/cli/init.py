"""``sgagent init``: write a first policy and configuration for this host, in observe mode."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sgagent.agent.control.requests import ModeAnswer, ModeCommand
from sgagent.agent.sessions import SSH_PORT
from sgagent.cli import inputs
from sgagent.cli.agent_client import NoAgentError, ask
from sgagent.cli.lockout_guard import own_sessions
from sgagent.cli.main import DEFAULT_CONFIGURATION, option_adder
from sgagent.cli.output import replace_file
from sgagent.core.binding import Link
from sgagent.core.errors import UsageError, printable
from sgagent.core.model import (
    TCP,
    UDP,
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    Mode,
    NetworkInterface,
    Policy,
    PortSet,
    PrefixList,
    PrefixListReference,
    SecurityGroupRule,
)
from sgagent.dataplane.live_sessions import list_listeners, list_sockets
from sgagent.documents.writer import Native, as_yaml, write_interface, write_prefix_list, write_rule
from sgagent.host.links import NetlinkHost, has_links_behind, read_forwarding
from sgagent.host.processes import sockets_of_logins
from sgagent.settings import Settings, parse_settings
from sgagent.settings.sources import FileSourceSettings
from sgagent.sources.files.reader import is_document_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    add("--web", "admit everyone to port 80, and to 443 if something listens there")
    text = "admit SSH from here; repeatable (default: only the session that you are in)"
    add("--ssh-from CIDR", text, action="append", default=[], type=_block)
    text = "watch the traffic for so long, like 10m, and admit what comes in then"
    add("--from-traffic TIME", text, type=inputs.short_time)
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Write both files, where there are none yet; nothing is dropped by them."""
    place: Path = options.config or DEFAULT_CONFIGURATION
    text, settings, is_written = _configuration(place, is_default=options.config is None)
    policy_file = _policy_file(settings)
    policy = make_first_policy(inspect_host(), ssh_from=options.ssh_from, is_web_server=options.web)
    if not is_written:
        _write(place, text)
    # A running agent has read an older configuration: it has to observe before it finds the policy.
    start = ""
    try:
        ask(settings, ModeCommand(mode=Mode.OBSERVE, interface=None), ModeAnswer)
    except NoAgentError:
        start = "then start the agent, "
    _write(policy_file, policy.text)
    if options.from_traffic is not None:
        from sgagent.cli.live_traffic import first_policy  # noqa: PLC0415 - most policies are made at once

        policy = first_policy(settings, policy, options.from_traffic)
        _write(policy_file, policy.text)
    if options.json:
        files = {"configuration": str(place), "definitions": str(policy_file)}
        found = {"interfaces": policy.interfaces, "admitted": policy.admitted, "notes": policy.notes}
        print(json.dumps({**files, **found}))
        return 0
    lines = (
        f"{'found' if is_written else 'wrote'} {place}: observe mode, nothing is dropped",
        f"wrote {policy_file}: filters {', '.join(policy.interfaces) or 'no link'}",
        *(f"  admits {entry}" for entry in policy.admitted),
        *(f"note: {note}" for note in policy.notes),
        f"next: 'sgagent check', {start}and watch 'sgagent hits' and 'sgagent denied';",
        "      'sgagent mode enforce --confirm-within 2m' enforces it on trial, 'sgagent confirm' keeps it",
    )
    print("\n".join(map(printable, lines)))
    return 0


def _block(text: str) -> CidrBlock:
    try:
        return CidrBlock.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no address or network, like 203.0.113.0/24") from None


def _configuration(place: Path, *, is_default: bool) -> tuple[str, Settings, bool]:
    """Return the text of the configuration, its settings, and whether the file has it already.

    Raises:
        UsageError: there is one that sets something and does not observe, or it is wrong.
    """
    beside = None if is_default else str(place.absolute().parent / "groups.d")
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = first_configuration(beside)
        return text, parse_settings(text, str(place)), False
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place}: the configuration can't be read: {error}") from error
    settings = parse_settings(text, str(place))
    if settings.enforcement.mode is Mode.OBSERVE:
        return text, settings, True
    if settings != parse_settings("", str(place)) or _SAYS_MODE.search(text):
        raise UsageError(
            f'{place}: sets something already; set mode = "observe" under [enforcement], or name another file'
            " by --config"
        )
    for table in (_source_table(beside), OBSERVING):
        text = _with_table(text, table)
    return text, parse_settings(text, str(place)), False


_SAYS_MODE = re.compile(r"^[ \t]*mode[ \t]*=", re.MULTILINE)


def _with_table(text: str, table: Sequence[str]) -> str:
    """Return a configuration that sets nothing with the lines of a table, where its header is if it is there.

    The file of a package has every header and key, maybe as comments; a second one would be an error.
    """
    if not table:
        return text
    header, lines = table[0], "\n".join(table)
    keys = "|".join(line.partition(" ")[0] for line in table[1:] if not line.startswith("#"))
    place = re.compile(rf"^#?{re.escape(header)}[ \t]*$", re.MULTILINE)
    if not place.search(text):
        return f"{text.rstrip()}\n\n{lines}\n".lstrip()
    before, _, after = place.sub("\0", text, count=1).partition("\0")
    return before + lines + re.sub(rf"^#({keys}) = .*\n", "", after, count=1, flags=re.MULTILINE)


def _policy_file(settings: Settings) -> Path:
    """Return where the policy goes.

    Raises:
        UsageError: documents are there already, or definitions come from elsewhere.
    """
    if not isinstance(settings.source, FileSourceSettings):
        raise UsageError(f"definitions come from {settings.source.place}: write the first policy there")
    path = settings.source.path
    if path.suffix in {".yaml", ".yml"} and not path.is_dir():
        found = [path.name] if path.exists() else []
        place = path
    else:
        found = sorted(filter(is_document_name, os.listdir(path))) if path.is_dir() else []  # noqa: PTH208 - names
        place = path / "first.yaml"
    if found:
        raise UsageError(
            f"{path}: there are documents already ({found[0]}): 'sgagent init' writes only a first policy"
        )
    return place


def inspect_host() -> HostView:
    """Return the host's facts for the first policy.

    Raises:
        UsageError: the kernel does not say which ports are open.
    """
    try:
        facts, listeners, sockets = NetlinkHost().facts(), list_listeners(), list_sockets().at_listeners
    except OSError as error:
        raise UsageError(f"links and sockets of this host can't be listed: {error.strerror}") from error
    local = {(one.family, one.first) for link in facts.links for one in link.addresses}
    peers: dict[int, set[CidrBlock]] = defaultdict(set)
    for session in sockets:
        if (session.family, session.peer_address) not in local:
            peers[session.local_port].add(_address(session.family, session.peer_address))
    ports = sorted({(one.protocol, one.port) for one in listeners})
    return HostView(
        name=socket.gethostname().partition(".")[0],
        links=facts.links,
        forwarded=read_forwarding() if has_links_behind(facts) else (),
        ports=tuple(
            OpenPort(protocol="tcp", port=port, peers=frozenset(peers[port]))
            if protocol == TCP.number
            else OpenPort(protocol="udp", port=port)
            for protocol, port in ports
        ),
        logins=frozenset(
            (one.local_port, _address(one.family, one.peer_address))
            for one in own_sessions(sockets, sockets_of_logins(), os.environ)
        ),
    )


def _address(family: Family, number: int) -> CidrBlock:
    return CidrBlock.around(family, number, family.bits)


def _write(place: Path, text: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{place.parent}: can't be made: {error.strerror}") from error
    replace_file(place, text)


MOST_PEERS = 100
"""Peers of open sessions at one port that the policy names."""

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
    """The host's facts for the first policy."""

    name: str
    """Of the host."""

    links: tuple[Link, ...]
    ports: tuple[OpenPort, ...]
    """Sorted; not those at loopback."""

    forwarded: tuple[Family, ...] = ()
    """The families that it forwards from link to link."""

    logins: frozenset[tuple[int, CidrBlock]]
    """The local port and the far end of the sessions that the command is typed in."""


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
    """Return a policy that admits logins, the arguments' traffic, and the sessions that are open."""
    name = id_part(view.name)
    links = filtered_links(view.links)
    listening = {80, *(one.port for one in view.ports if one.protocol == "tcp")}
    web = [port for port in _WEB_PORTS if is_web_server and port in listening]
    rules = [*_ssh_rules(view, ssh_from), *_web_rules(web)]
    others = [_without_admitted(one, rules) for one in view.ports]
    lists: list[PrefixList] = []
    for port, family, peers in _busy(others):
        suffix = f"{port}-{family.value}"
        description = "hosts with a session at this port when the policy was written"
        entries = PrefixList(prefix_list_id=f"pl-{name}-{suffix}", family=family, entries=tuple(peers))
        source = PrefixListReference(entries.prefix_list_id)
        rules.append(_rule(f"sgr-tcp-{suffix}", port, source, description))
        lists.append(entries)
    lines = (
        *_head(name),
        "    rules:" if rules else "    rules: []",
        *_yaml(map(write_rule, rules), depth=6),
        *_suggestions(others),
        *(["prefix_lists:"] if lists else ()),
        *_yaml(map(write_prefix_list, lists), depth=2),
        *_interfaces(name, links, view.links),
        "",
    )
    return FirstPolicy(
        text="\n".join(lines),
        interfaces=tuple(link.name for link in links),
        admitted=tuple(
            f"tcp {str(rule.ports).partition('/')[0]} from {rule.authorization_objects[0]}" for rule in rules
        ),
        notes=tuple(_notes(view, ssh_from, links, others)),
    )


def first_configuration(definitions: str | None) -> str:
    """Return a configuration that only observes.

    Args:
        definitions: the directory of documents, where it is not the default.
    """
    source = _source_table(definitions)
    parts = ("# sgagent.toml(5) has every key with its default.", "\n".join(source), "\n".join(OBSERVING))
    return "\n\n".join(filter(None, parts)) + "\n"


def _source_table(definitions: str | None) -> tuple[str, ...]:
    return () if definitions is None else ("[source]", f"path = {json.dumps(definitions)}")


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
        and link.kind != "vrf"
        and (link.master is None or link.master_kind == "vrf")
        and (addresses := tuple(one for one in link.addresses if not _is_link_local(one)))
    ]
    physical = tuple(link for link in usable if link.has_hardware or link.name in bonds)
    return physical or tuple(link for link in usable if link.name not in masters)


def _is_link_local(address: CidrBlock) -> bool:
    prefix, bits = (0xFE80 << 112, 118) if address.family is Family.IPV6 else (0xA9FE0000, 16)
    return address.first >> bits == prefix >> bits


def id_part(text: str) -> str:
    """Return a text as a part of an id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "host"


def _rule(rule_id: str, port: int, source: AuthorizationObject, description: str) -> SecurityGroupRule:
    """Return a rule that accepts packets to a TCP port."""
    return SecurityGroupRule(
        rule_id=rule_id,
        direction=Direction.INGRESS,
        policy=Policy.ACCEPT,
        priority=1,
        protocols=(TCP,),
        ports=PortSet.of((port, port)),
        authorization_objects=(source,),
        description=description,
    )


def _yaml(objects: Iterable[Native], depth: int) -> Iterator[str]:
    """Yield the lines of a list in a document, moved in so far."""
    return (" " * depth + line for one in objects for line in as_yaml([one]).splitlines())


def _ssh_rules(view: HostView, ssh_from: Sequence[CidrBlock]) -> Iterator[SecurityGroupRule]:
    """Yield rules for the networks that were named, and for logins that they do not cover."""
    ports = sorted({port for port, _ in view.logins}) or [SSH_PORT]
    for port in ports:
        for number, block in enumerate(ssh_from, 1):
            yield _ssh_rule(port, f"{number}", block, "SSH")
    uncovered = sorted(((port, peer) for port, peer in view.logins if not _covers(ssh_from, peer)), key=str)
    for number, (port, peer) in enumerate(uncovered, 1):
        yield _ssh_rule(port, f"session-{number}", peer, "the session in which this policy was written")


def _without_admitted(one: OpenPort, rules: Iterable[SecurityGroupRule]) -> OpenPort:
    """Return a port with the far ends that no rule admits."""
    port = PortSet.of((one.port, one.port))
    objects = (
        rule.authorization_objects[0] for rule in rules if one.protocol == "tcp" and rule.ports == port
    )
    admitted = [block for block in objects if isinstance(block, CidrBlock)]
    left = frozenset(peer for peer in one.peers if not _covers(admitted, peer))
    return replace(one, peers=left, has_rule=bool(admitted))


def _ssh_rule(port: int, label: str, source: CidrBlock, description: str) -> SecurityGroupRule:
    rule_id = f"sgr-ssh-{label}" if port == SSH_PORT else f"sgr-ssh-{port}-{label}"
    return _rule(rule_id, port, source, description)


def _covers(blocks: Iterable[CidrBlock], address: CidrBlock) -> bool:
    return any(one.family is address.family and one.first <= address.first <= one.last for one in blocks)


def _web_rules(ports: Iterable[int]) -> Iterator[SecurityGroupRule]:
    for port in ports:
        for family, everyone in ((Family.IPV4, "0.0.0.0/0"), (Family.IPV6, "::/0")):
            rule_id = f"sgr-web-{port}-{family.value}"
            yield _rule(rule_id, port, CidrBlock.parse(everyone), "the web server, for everyone")


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
    """Yield the lines to uncomment for other programs that wait for packets."""
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
    parts = [id_part(link.name) for link in links]
    for number, (link, part) in enumerate(zip(links, parts, strict=True)):
        again = f"-{number}" if parts.count(part) > 1 else ""
        interface = NetworkInterface(
            network_interface_id=f"eni-{name}-{part}{again}",
            mac_address=link.mac_address if macs[link.mac_address] == 1 else None,
            addresses=link.addresses,
            security_group_ids=(f"sg-{name}",),
        )
        yield f"  # {ascii(link.name)[1:-1]}"
        yield from _yaml([write_interface(interface)], depth=2)


def _single(address: CidrBlock) -> str:
    return str(address).partition("/")[0]


def _notes(
    view: HostView, ssh_from: Sequence[CidrBlock], links: Sequence[Link], others: Iterable[OpenPort]
) -> Iterator[str]:
    if not links:
        yield "no link has an address: the policy filters nothing until a network interface is added"
    if view.forwarded:
        yield "this host forwards: each rule without local_address admits to the hosts behind it, too"
    if not ssh_from and not view.logins:
        yield "no rule admits SSH: name a network by --ssh-from, or add a rule, before you enforce this"
    for _, peer in sorted(view.logins, key=str):
        if ssh_from and not _covers(ssh_from, peer):
            yield f"your session from {_single(peer)} is not in --ssh-from: a rule of its own admits it"
    for one in others:
        if len(one.peers) > MOST_PEERS:
            yield f"no rule admits the {len(one.peers)} hosts that have sessions at tcp port {one.port}"
