"""Checks for rules that shut out a host's or its clients' needs: the DNS, the time, FTP's transfers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sgagent.analysis.cells import Cells, FarEndClass, code_of
from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.rule_reach import RuleKey, key_of
from sgagent.analysis.lint.services import NARROW_PORTS
from sgagent.analysis.lint.subject import Attachment, LintSubject, rule_finding, warning
from sgagent.core.addresses import joined, size
from sgagent.core.clauses import Clause, DecidedBy
from sgagent.core.errors import NOWHERE
from sgagent.core.model import LAST_PORT, TCP, UDP, Direction, Family, Policy
from sgagent.core.rule_values import FAMILY_NAMES

_DNS = "DNS (udp and tcp 53)"

_SERVICES: Mapping[str, tuple[int, ...]] = {
    _DNS: (
        code_of(UDP.wire_number, 53),
        code_of(TCP.wire_number, 53),
        code_of(TCP.wire_number, 853),
    ),
    "NTP (udp 123)": (code_of(UDP.wire_number, 123),),
}
"""What hosts use themselves, with the protocols and ports of which any will do."""


class _Shut(NamedTuple):
    """The rule or default that keeps services from the members of a group."""

    group: str
    rule_id: str | None
    """Of the drop that decides; None where it is the default."""

    family: Family
    services: tuple[str, ...]


@warning("an egress policy that shuts out the host's own DNS or NTP")
def dns_ntp_shut(subject: LintSubject) -> Iterator[Finding]:
    """Find groups whose members can ask nobody for names, or for the time.

    Not where accepts are void, as another check says: once they decide, they may open what is missed.
    """
    found: dict[_Shut, set[str]] = {}
    for attachment in subject.attachments:
        shut = _shut(subject, attachment)
        if shut is not None and (shut.group, shut.rule_id) not in subject.trapped:
            found.setdefault(shut, set()).update(attachment.interfaces)
    for shut, interfaces in found.items():
        yield Finding(
            security_group_id=shut.group,
            rule_ids=(shut.rule_id,) if shut.rule_id else (),
            object_id=None if shut.rule_id else shut.group,
            message=f"members reach no {' and no '.join(shut.services)} over {FAMILY_NAMES[shut.family]}",
            remedy="accept egress to the servers that they use (the cloud's DNS is 100.100.2.136 and .138)",
            interfaces=tuple(sorted(interfaces)),
            origin=NOWHERE if shut.rule_id else subject.snapshot.group_by_id[shut.group].origin,
        )


def _shut(subject: LintSubject, attachment: Attachment) -> _Shut | None:
    """Return an attachment's shut services over IPv4, or over IPv6 where the interfaces have nothing else."""
    if not attachment.interfaces and not attachment.judge.egress.rules:
        return None  # a group that is attached nowhere, and leaves egress to others beside it
    family = _family(subject, attachment)
    services = tuple(
        name
        for name, codes in _SERVICES.items()
        if not (name is _DNS and _names_hosts(attachment)) and _is_shut(attachment, family, codes)
    )
    if not services:
        return None
    code = _SERVICES[services[0]][0]
    drops = [clause.rule for clause, _ in attachment.egress.deciders(family, code) if clause.rule]
    if drops:
        return _Shut(*key_of(drops[-1]), family, services)
    return _Shut(attachment.judge.security_group_ids[0], None, family, services)


def _names_hosts(attachment: Attachment) -> bool:
    """Return whether a rule names the DNS, for which the resolvers are open to the host (§12.3)."""
    return any(
        rule.peer.is_dynamic for side in map(attachment.judge.toward, Direction) for rule in side.rules
    )


def _family(subject: LintSubject, attachment: Attachment) -> Family:
    interfaces = map(subject.snapshot.interface_by_id.get, attachment.interfaces)
    there = {block.family for one in interfaces if one is not None for block in one.addresses}
    return Family.IPV6 if there == {Family.IPV6} else Family.IPV4


def _is_shut(attachment: Attachment, family: Family, codes: tuple[int, ...]) -> bool:
    """Return whether nobody may be reached over a family, and no rule accepts anybody over the other."""
    return not any(
        clause.policy is Policy.ACCEPT and clause.decided_by in _OPENING[one is family]
        for one in Family
        for code in codes
        for clause, _ in attachment.egress.deciders(one, code)
    )


_OPENING = {
    True: (DecidedBy.RULE, DecidedBy.FAILSAFE, DecidedBy.DEFAULT),
    False: (DecidedBy.RULE, DecidedBy.FAILSAFE),
}
"""The steps that let hosts reach servers: over the family in question, and over the other one."""


@warning("FTP without the passive range")
def ftp_without_passive(subject: LintSubject) -> Iterator[Finding]:
    """Find accepts of FTP's control connection from clients that may open no data connection (§6.5)."""
    found: dict[RuleKey, set[str]] = {}
    for attachment in subject.attachments:
        for family in Family:
            opening = attachment.ingress.deciders(family, code_of(TCP.wire_number, 21))
            ftp = [(clause.rule, far) for clause, far in opening if clause.rule and _is_ftp(clause)]
            passive = _passive(attachment.ingress.cells[family]) if ftp else set()
            for rule, far in ftp:
                if not passive.issuperset(far):
                    found.setdefault(key_of(rule), set()).update(attachment.interfaces)
    for key, interfaces in found.items():
        yield rule_finding(
            key,
            "it opens FTP's control port, and its clients may open no passive port: their transfers time out",
            "accept the passive range of the server's configuration from the same clients, or use SFTP",
            interfaces=tuple(sorted(interfaces)),
        )


def _is_ftp(clause: Clause) -> bool:
    is_rule = clause.decided_by is DecidedBy.RULE and clause.policy is Policy.ACCEPT
    return is_rule and size(clause.ports.ranges) <= NARROW_PORTS


def _passive(cells: Cells) -> set[FarEndClass]:
    """Return the classes of far ends that may open neighbouring ports from 1024 on."""
    accepted: dict[FarEndClass, list[tuple[int, int]]] = {}
    for cell in cells.each(((code_of(TCP.wire_number, 1024), code_of(TCP.wire_number, LAST_PORT)),)):
        if cells.clauses[cell.decider].policy is Policy.ACCEPT:
            accepted.setdefault(cell.far, []).append((cell.first, cell.last))
    return {far for far, runs in accepted.items() if any(last > first for first, last in joined(runs))}
