"""Checks for rules that open more than is advised: to everyone, behind this host, or in one family only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from sgagent.analysis.lint import advice
from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.rule_reach import EVERYONE, RuleKey, denies_all, is_wide, key_of
from sgagent.analysis.lint.services import (
    MANAGEMENT,
    MANY_PORTS,
    NARROW_PORTS,
    REFLECTORS,
    SENSITIVE,
    everything,
    service_text,
)
from sgagent.analysis.lint.subject import Attachment, LintSubject, error, rule_finding, warning
from sgagent.core.addresses import Ranges, common, holds, joined, size, without
from sgagent.core.model import (
    GRE,
    NO_PORTS,
    TCP,
    UDP,
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    Policy,
    PortListReference,
    PrefixListReference,
    SecurityGroupRule,
)
from sgagent.core.policy import ResolvedRule
from sgagent.core.rule_values import FAMILY_NAMES

_WORKBENCH = ("161.117.0.0/16", "100.104.0.0/16")
"""From where the cloud's own Workbench connects: the guide's own advice (case 2b)."""


@error(f"a rule that opens more than {MANY_PORTS} ports, or all, to everyone")
def open_to_everyone(subject: LintSubject) -> Iterator[Finding]:
    """Find rules that open more ports to everyone than can be overseen."""
    remedy = "list the ports that the service needs, or the addresses that need it"
    found = _collected(subject, lambda attachment, family: everything(attachment.open_to_everyone[family]))
    yield from _open_over(found, lambda ports: f"it opens {_number_text(ports)} to everyone", remedy)


def _number_text(ports: Ranges) -> str:
    return "every port" if size(ports) > 65_000 else f"{size(ports)} ports"


@error("SSH, Remote Desktop, a database or the like open to everyone")
def sensitive_port_open(subject: LintSubject) -> Iterator[Finding]:
    """Find rules that open ports to everyone of which the guide warns."""
    remedy = "accept only the addresses, the group or the list that need it"
    found = _collected(subject, _sensitive)
    yield from _open_over(found, lambda ports: f"it opens {_services(ports)} to everyone", remedy)


def _sensitive(attachment: Attachment, family: Family) -> dict[RuleKey, Ranges]:
    """Return the ports that the guide warns of, by the rules that open them, but for those that open all."""
    open_ = attachment.open_to_everyone[family]
    broad, by_rule = everything(open_), open_[TCP.wire_number]
    return _among({key: ports for key, ports in by_rule.items() if key not in broad}, SENSITIVE)


@error("a UDP service that amplifies attacks, or GRE, open to everyone")
def reflector_open(subject: LintSubject) -> Iterator[Finding]:
    """Find rules that open tunnels, or UDP services whose answers are large, to everyone."""
    remedy = "accept only the addresses, the group or the list that need it"
    found = _collected(subject, _reflecting)
    yield from _open_over(
        found,
        lambda ports: f"it opens {_reflectors(ports)}, which forged requests turn on others, to everyone",
        remedy,
    )
    found = _collected(subject, _tunnels)
    yield from _open_over(found, lambda _: "it opens GRE, and so the inside of tunnels, to everyone", remedy)


def _reflecting(attachment: Attachment, family: Family) -> dict[RuleKey, Ranges]:
    """Return the UDP ports of services that amplify, by the rules that open them and not all ports."""
    open_ = attachment.open_to_everyone[family]
    broad, by_rule = everything(open_), open_[UDP.wire_number]
    return _among({key: ports for key, ports in by_rule.items() if key not in broad}, REFLECTORS)


def _tunnels(attachment: Attachment, family: Family) -> dict[RuleKey, Ranges]:
    open_ = attachment.open_to_everyone[family]
    broad = everything(open_)
    return {key: ports for key, ports in open_[GRE.wire_number].items() if key not in broad}


def _reflectors(ports: Ranges) -> str:
    named = ", ".join(f"{port} ({REFLECTORS[port]})" for port in REFLECTORS if holds(ports, port))
    return f"udp {named}"


@error("a database that has rules of its own, and a broad accept without a drop that closes it")
def database_without_closing_drop(subject: LintSubject) -> Iterator[Finding]:
    """Find databases that have a rule of their own, and a broad accept that lets everyone in beside it."""
    found = _collected(subject, _broadly_open_databases)
    for key, (families, ports, interfaces) in found.items():
        sharing = [other for other, (_, theirs, _) in found.items() if common(theirs, ports)]
        fix = advice.leaves_out(subject, sharing, ports)
        yield rule_finding(
            key,
            f"beside the rules for {_services(ports)} it lets everyone in there over {_families(families)}",
            "leave them out of its range" if fix else "narrow it to the ports or addresses that are meant",
            interfaces=interfaces,
            fix=fix,
        )


def _broadly_open_databases(attachment: Attachment, family: Family) -> dict[RuleKey, Ranges]:
    served = {port for ports in attachment.own_database_rules(family).values() for port in ports}
    return _among(everything({6: attachment.open_to_everyone[family][6]}), served)


def _among(found: Mapping[RuleKey, Ranges], ports: Iterable[int]) -> dict[RuleKey, Ranges]:
    """Return rules with those of their ports that are among others, but for those without any."""
    wanted = tuple((port, port) for port in sorted(ports))
    return {key: some for key, opened in found.items() if (some := common(opened, wanted))}


def _services(ports: Ranges) -> str:
    return ", ".join(service_text(port) for first, last in ports for port in range(first, last + 1))


_Found = dict[RuleKey, tuple[list[Family], Ranges, tuple[str, ...]]]
_FindPorts = Callable[[Attachment, Family], Mapping[RuleKey, Ranges]]


def _collected(subject: LintSubject, find: _FindPorts) -> _Found:
    """Return the ports found for each rule over all attachments and families."""
    found: _Found = {}
    for attachment in subject.attachments:
        for family in Family:
            for key, ports in find(attachment, family).items():
                families, before, interfaces = found.get(key, ([], (), ()))
                found[key] = (
                    [one for one in Family if one in families or one is family],
                    joined((*before, *ports)),
                    tuple(sorted({*interfaces, *attachment.interfaces})),
                )
    return found


def _open_over(found: _Found, message: Callable[[Ranges], str], remedy: str) -> Iterator[Finding]:
    """Yield a finding for each rule that opens ports, over which families and on which links it does."""
    for key, (families, ports, interfaces) in found.items():
        over = f"{message(ports)} over {_families(families)}"
        yield rule_finding(key, over, remedy, interfaces=interfaces)


def _families(families: Iterable[Family]) -> str:
    return " and ".join(FAMILY_NAMES[family] for family in families)


@warning("SSH, Remote Desktop or the like open to more than an office")
def wide_management_port(subject: LintSubject) -> Iterator[Finding]:
    """Find management ports that are open to a wider network than an office, named or in a prefix list."""
    reported = _collected(subject, _sensitive)
    for key, (_, rule) in subject.rules.items():
        ports = _management_ports(subject, rule)
        wide = next(filter(None, (_too_wide(subject, one) for one in rule.authorization_objects)), None)
        if ports and wide and key not in reported and key in subject.decided:
            services = ", ".join(map(service_text, ports))
            yield rule_finding(
                key,
                f"it opens {services} to {wide}, which is wider than an office",
                "name the networks of those who administer, or a list of them",
            )


def _management_ports(subject: LintSubject, rule: SecurityGroupRule) -> list[int]:
    """Return the management ports that a rule is about."""
    is_admitting = rule.policy is Policy.ACCEPT and rule.direction is Direction.INGRESS
    if not is_admitting or TCP not in rule.protocols:
        return []
    if isinstance(rule.ports, PortListReference):
        port_list = subject.snapshot.port_list_by_id.get(rule.ports.port_list_id)
        ports = port_list.entries if port_list else NO_PORTS
    else:
        ports = rule.ports
    ranges = joined(ports.ranges)
    return [port for port in MANAGEMENT if holds(ranges, port)] if size(ranges) <= NARROW_PORTS else []


def _too_wide(subject: LintSubject, one: AuthorizationObject) -> str | None:
    """Return the network that an object is, or has, if it is too wide."""
    match one:
        case CidrBlock() as block if _is_wider_than_office(subject, block):
            return str(block)
        case PrefixListReference(prefix_list_id):
            found = subject.snapshot.prefix_list_by_id.get(prefix_list_id)
            wide = (
                (block for block in found.entries if _is_wider_than_office(subject, block)) if found else ()
            )
            return next((f"{block} of {prefix_list_id}" for block in wide), None)
        case _:
            return None


def _is_wider_than_office(subject: LintSubject, block: CidrBlock) -> bool:
    return block.prefix_length < subject.offices[block.family] and str(block) not in _WORKBENCH


@warning("an egress allow-list for one family, while the other leaves by default")
def one_family_shut(subject: LintSubject) -> Iterator[Finding]:
    """Find interfaces that nothing may leave over one family, and everything over the other by default."""
    found: dict[RuleKey, tuple[Family, set[str]]] = {}
    for attachment in subject.attachments:
        shut = {family: _sealing(attachment, family) for family in Family}
        for family, rule in shut.items():
            other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
            if rule is not None and shut[other] is None and _leaves_by_default(attachment, other):
                found.setdefault(key_of(rule), (other, set()))[1].update(attachment.interfaces)
    for key, (family, interfaces) in found.items():
        yield rule_finding(
            key,
            f"nothing else may leave, but over {_families([family])} everything leaves by default",
            f"add the same drop for {EVERYONE[family]}",
            interfaces=tuple(sorted(interfaces)),
            fix=advice.shuts_both(subject, key),
        )


def _sealing(attachment: Attachment, family: Family) -> ResolvedRule | None:
    """Return the egress rule that drops everything that earlier rules don't accept."""
    rules = (clause.rule for clause in attachment.egress.clauses[family])
    return next((rule for rule in rules if rule is not None and denies_all(rule, (family,))), None)


def _leaves_by_default(attachment: Attachment, family: Family) -> bool:
    """Return whether the default lets most of everything out: no clause for every protocol is for so many."""
    clauses = attachment.egress.clauses[family]
    spoken_of = (
        ends
        for clause in clauses[:-1]
        if clause.protocols is None and clause.ports.is_all
        # A near end, source ports or a user leave others for which the default decides.
        if clause.local is None and clause.source_ports.is_all and clause.is_anybodys
        for ends in clause.addresses
    )
    everyone = ((0, family.last_address),)
    return clauses[-1].policy is Policy.ACCEPT and is_wide(without(everyone, joined(spoken_of)), family)


@warning("an ingress rule without local_address on a host that forwards")
def admits_behind(subject: LintSubject) -> Iterator[Finding]:
    """Find accepts of this host that also admit to the hosts, guests and containers behind it (§2.1)."""
    found: dict[RuleKey, set[Family]] = {}
    links: dict[RuleKey, set[str]] = {}
    for judge, attachment in zip(subject.host.bound, subject.host_attachments, strict=True):
        for family, clause in attachment.ingress.deciding_clauses:
            if clause.rule is None or clause.policy is not Policy.ACCEPT:
                continue
            key = key_of(clause.rule)
            if family in subject.host.forwarded and subject.rules[key][1].local_address is None:
                found.setdefault(key, set()).add(family)
                links.setdefault(key, set()).add(judge.name)
    for key, families in sorted(found.items()):
        words = " and ".join(FAMILY_NAMES[family] for family in Family if family in families)
        yield rule_finding(
            key,
            f"this host forwards {words}: the rule admits to every host behind it, too",
            "give it the local_address that is meant: an address of this host, or the network behind it",
            interfaces=tuple(sorted(links[key])),
        )
