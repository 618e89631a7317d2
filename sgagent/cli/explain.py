"""``sgagent explain``: the verdict for a packet, the deciding rule, and the matching rules after it."""

from __future__ import annotations

import argparse
import ipaddress
import json
import socket
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from sgagent.agent.control.explain_requests import ExplainAnswer, ExplainQuery
from sgagent.cli import inputs
from sgagent.cli.agent_client import NoAgentError, ask, enforced_now
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import option_adder
from sgagent.cli.output import decision_as_json, warn
from sgagent.core.clauses import DecidedBy
from sgagent.core.conditions import LAST_USER, ControlGroup, LocalUnit
from sgagent.core.errors import UsageError, printable
from sgagent.core.evaluate import Packet
from sgagent.core.explanation import (
    EPHEMERAL_PORT,
    PROTOCOL_WORDS,
    ExplainedRule,
    Explanation,
    choose_interface,
    describe_packet,
    explain,
    interface_of,
    is_evaluated_though_invalid,
    protocol_number,
    reason,
)
from sgagent.core.model import LAST_PORT, Direction, Family, Mode, Policy, Protocol
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.rule_values import decimal, few_objects
from sgagent.host.units import find_unit
from sgagent.host.users import find_user
from sgagent.ports import Delivery
from sgagent.settings import Settings

if TYPE_CHECKING:  # what only live hosts need
    from sgagent.cli.other_tables import OtherTables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    port, byte = partial(_number, last=LAST_PORT), partial(_number, last=255)
    add("direction", "into this host, or out of it", choices=[direction.value for direction in Direction])
    add("--source ADDRESS", "the source address", required=True)
    add("--destination ADDRESS", "the destination address", required=True)
    add("--protocol P", "a name like tcp, or a number", required=True)
    add("--source-port N", f"the source port (default: {EPHEMERAL_PORT})", type=port)
    add("--port N", "the destination port", type=port)
    add("--icmp-type N", "the ICMP type, for neighbour discovery", type=byte)
    add("--hop-limit N", "the hop limit, for neighbour discovery", type=byte)
    add("--user U", "of outward packets: whose socket of this host sends it, a name or an id", type=_user)
    add("--unit U", "of outward packets: in which systemd unit that socket was made", type=_unit)
    add("--on NAME", "the interface, where several are bound")
    add("--exit-code", "exit with 1 if the packet is dropped")
    add("--json", "print one JSON object")
    inputs.add_time_argument(parser)
    inputs.add_dns_argument(parser)
    inputs.add_policy_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the verdict and how it came about."""
    settings = load_settings(options)
    packet = _packet(options)
    live: ExplainAnswer | None = None
    if not (_names_definitions(options) or options.at):
        with suppress(NoAgentError):
            live = ask(
                settings, ExplainQuery.about(packet, options.unit and options.unit.path), ExplainAnswer
            )
    explanation = live.explanation if live else _explain_definitions(settings, packet, options)
    is_unbound = options.on and explanation.decided_by is DecidedBy.UNBOUND
    if is_unbound and options.on not in {link for _, link in socket.if_nameindex()}:  # mistyped?
        warn(f"this host has no interface {options.on}; on one that is not bound everything passes")
    others = _other_tables(explanation, packet, options)
    if options.json:
        shadowed = [rule.rule_id for rule in explanation.shadowed]
        limit = explanation.rule.limit_per_source if explanation.rule else None
        where = {"interface": explanation.interface, "shadowed": shadowed}
        if explanation.bound_by:
            where["bound_by"] = explanation.bound_by
        limited: dict[str, object] = {"limit_per_source": limit} if limit else {}
        if explanation.rule and explanation.rule.local:
            limited["local"] = explanation.rule.local
        if explanation.by_user:
            limited["by_user"] = [rule.rule_id for rule in explanation.by_user]
        beside = {} if others is None else {"other_tables": others.as_json}
        print(json.dumps(decision_as_json(explanation) | where | limited | beside))
    else:
        lines = _lines(explanation, packet)
        if live:
            lines.append(f"  asked the running agent (snapshot {live.snapshot_version or 'none'})")
        lines += others.lines() if others else ()
        print("\n".join(map(printable, lines)))
    return 1 if options.exit_code and explanation.verdict is Policy.DROP else 0


def _other_tables(
    explanation: Explanation, packet: Packet, options: argparse.Namespace
) -> OtherTables | None:
    """Return other tables' verdicts on the packet; None where another host is meant."""
    name = explanation.interface or options.on
    if options.interface or name is None:
        return None
    from sgagent.cli.other_tables import look_at_other_tables  # noqa: PLC0415 - it needs what verdicts do without

    return look_at_other_tables(explanation, replace(packet, interface=name), name)


def _explain_definitions(settings: Settings, packet: Packet, options: argparse.Namespace) -> Explanation:
    """Return the explained verdict on the packet under definitions that need not be in force."""
    is_enforced_meant = options.at and not _names_definitions(options)
    delivery = enforced_now(settings).parse(settings) if is_enforced_meant else None
    if delivery is not None:
        dns = inputs.dns_answers(settings, options)
        resolution = inputs.resolve_for_host(settings, delivery, (), at=options.at, dns=dns)
    else:
        read = cache(lambda: inputs.fetch(settings, options.definitions, inputs.UNNAMED))
        resolution = inputs.read_policy(settings, options, read=read)
        delivery = read()
    inputs.accept_or_refuse(resolution.problems, settings, options)
    policy = resolution.policy
    elsewhere = None if options.interface or options.on else _meant_elsewhere(policy, delivery, packet)
    if elsewhere is not None:
        warn(f"no link here is {elsewhere}, which the packet is for: answered as on the host that has it")
        policy = inputs.resolve_everywhere(
            settings, delivery, at=options.at, dns=inputs.dns_answers(settings, options)
        ).policy
        return explain(policy, replace(packet, interface=elsewhere))
    links = (link for _, link in socket.if_nameindex())
    name = choose_interface(policy, packet.interface or None, links) or ""
    return explain(policy, replace(packet, interface=name))


def _meant_elsewhere(policy: ResolvedPolicy, delivery: Delivery, packet: Packet) -> str | None:
    """Return the network interface that a packet is for, if it is on no link of this host."""
    found = interface_of(delivery.snapshot, packet)
    here = {judge.network_interface_id for judge in policy.bound}
    return found.network_interface_id if found and found.network_interface_id not in here else None


def _names_definitions(options: argparse.Namespace) -> bool:
    """Return whether other definitions or bindings are meant than those in force."""
    return options.definitions is not None or bool(options.interface) or options.strict


def _packet(options: argparse.Namespace) -> Packet:
    """Return the packet that is asked about; it may have no interface yet."""
    source, destination = _address("--source", options.source), _address("--destination", options.destination)
    if source.version != destination.version:
        raise UsageError("--source and --destination are of different address families")
    number = protocol_number(options.protocol)
    if number is None:
        names = ", ".join(PROTOCOL_WORDS)
        raise UsageError(f"--protocol {options.protocol}: expected one of {names}, or 0 to 255")
    protocol = Protocol(number)
    has_ports = protocol.has_ports
    if has_ports and options.port is None:
        raise UsageError(f"--port is missing, which {options.protocol.lower()} needs")
    if not has_ports and (options.port is not None or options.source_port is not None):
        raise UsageError(f"{options.protocol.lower()} has no ports: leave out --port and --source-port")
    if options.icmp_type is not None and not protocol.has_types:
        raise UsageError(f"{options.protocol.lower()} has no ICMP types: leave out --icmp-type")
    if options.direction == Direction.INGRESS.value:
        for option in ("user", "unit"):
            if getattr(options, option) is not None:
                raise UsageError(f"--{option}: whose a socket is counts outwards only")
    source_port = EPHEMERAL_PORT if has_ports and options.source_port is None else options.source_port
    return Packet(
        interface=options.on or "",
        direction=Direction(options.direction),
        family=Family.IPV4 if source.version == 4 else Family.IPV6,
        source=int(source),
        destination=int(destination),
        protocol=protocol.wire_number,
        source_port=source_port,
        destination_port=options.port,
        icmp_type=options.icmp_type,
        hop_limit=options.hop_limit,
        user=options.user,
        unit=options.unit and options.unit.numbers[0],
    )


def _address(option: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"{option} {text}: not an IPv4 or IPv6 address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise UsageError(f"{option} {text}: a packet has no zone: leave out %{address.scope_id}")
        if address.ipv4_mapped is not None:
            raise UsageError(
                f"{option} {text}: on the wire this is {address.ipv4_mapped}: ask about that address"
            )
    return address


def _number(text: str, last: int) -> int:
    number = decimal(text, last)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to {last}")
    return number


def _user(text: str) -> int:
    if text.isascii() and text.isdigit():
        return _number(text, last=LAST_USER)
    number = find_user(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text} is no user of this host")
    return number


def _unit(text: str) -> ControlGroup:
    found = find_unit(LocalUnit(name=text))
    if found.group is None:
        raise argparse.ArgumentTypeError(f"{text}: {found.absence or 'it does not run'}")
    return found.group


def _lines(explanation: Explanation, packet: Packet) -> list[str]:
    what = describe_packet(replace(packet, interface=explanation.interface or ""))
    is_by_pattern = explanation.bound_by not in (None, explanation.interface)
    bound_by = f" (bound by {explanation.bound_by})" if is_by_pattern else ""
    lines = [f"{explanation.verdict.value}: {what}{bound_by}"]
    if explanation.rule:
        lines.append(f"  by rule {_describe(explanation.rule)}")
    else:
        lines.append(f"  by {explanation.decided_by.value}: {reason(explanation.decided_by, packet)}")
    if explanation.rule and explanation.rule.limit_per_source:
        lines.append("  may be dropped: what exceeds the limit of its source is (over_limit)")
    lines += (
        f"  else {rule.policy.value} by {_describe(rule)}, if the socket is made so"
        for rule in explanation.by_user
    )
    if is_evaluated_though_invalid(explanation.decided_by, packet):
        lines.append(
            f"  connection tracking calls it invalid; {explanation.interface} evaluates such packets"
        )
    if explanation.mode is Mode.OBSERVE:
        lines.append(f"  {explanation.interface} is only observed: nothing is dropped there")
    if explanation.shadowed:
        lines.append("  behind it:" if explanation.rule else "  rules that match, too:")
        lines += [f"    {rule.policy.value} by {_describe(rule)}" for rule in explanation.shadowed]
    return lines


def _describe(rule: ExplainedRule) -> str:
    place = f"{rule.rule_id} of {rule.security_group_id}"
    limit = f", at most {rule.limit_per_source} for each source" if rule.limit_per_source else ""
    local = f", {rule.local}" if rule.local else ""
    return (
        f"{place} (priority {rule.priority}, object {few_objects(rule.authorization_object)}{local}{limit})"
    )
