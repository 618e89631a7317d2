"""Check for one-sided rules: one end lets traffic pass, and no host at the other end does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import product

from sgagent.analysis.cells import LAST_CODE, Cells, code_of, codes_of
from sgagent.analysis.flow_text import port_text
from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.rule_reach import RuleKey, RuleReach, key_of
from sgagent.analysis.lint.subject import Attachment, LintSubject, rule_finding, warning
from sgagent.core.addresses import AddressSet, joined
from sgagent.core.clauses import Clause
from sgagent.core.model import (
    LAST_PORT,
    PORTED_NUMBERS,
    UDP,
    Direction,
    Family,
    GroupReference,
    Policy,
    Protocol,
)
from sgagent.core.policy import DHCP
from sgagent.core.rule_values import objects_text

Codes = tuple[int, int]
"""First and last of a run of protocols with ports."""


def closed_elsewhere(subject: LintSubject) -> Iterator[tuple[Direction, RuleKey, tuple[Codes, ...]]]:
    """Yield accepts, sorted, with the parts of their traffic that no host at the other end lets pass.

    A part is a port or range as the rule has it. Near ends and source ports of the other end's rules do not
    count, so that some traffic that it drops is left out.
    """
    hosts = _Hosts(subject)
    for (direction, key), clauses in sorted(_deciding(subject).items(), key=lambda item: item[0][1]):
        closed = tuple(hosts.closed(direction, key[0], clauses))
        if closed:
            yield direction, key, closed


@warning("a rule for traffic that no host at the other end lets pass")
def one_sided_rule(subject: LintSubject) -> Iterator[Finding]:
    """Find accepts of traffic that no host at the other end lets pass."""
    for direction, key, closed in closed_elsewhere(subject):
        near, rule = key[0], subject.rules[key][1]
        far, traffic = objects_text(rule.authorization_objects), _traffic(closed)
        if direction is Direction.EGRESS:
            message = f"it lets members of {near} send {traffic} to {far}, where no group admits it"
            remedy = f"accept the same from {near} by an ingress rule at {far}, or remove this rule"
        else:
            message = f"it admits {traffic} from members of {far}, which no group there lets them send"
            remedy = f"accept the same to {near} by an egress rule at {far}, or remove this rule"
        yield rule_finding(key, message, remedy, object_id=far)


def _deciding(subject: LintSubject) -> dict[tuple[Direction, RuleKey], dict[Family, Clause]]:
    """Return the accepts that decide about any packet anywhere."""
    found: dict[tuple[Direction, RuleKey], dict[Family, Clause]] = {}
    for _, reach in subject.reaches:
        for family, clause in reach.deciding_clauses:
            if clause.rule is not None and clause.policy is Policy.ACCEPT:
                found.setdefault((reach.direction, key_of(clause.rule)), {})[family] = clause
    return found


class _Hosts:
    """The hosts of the documents: the judges at the members of a group."""

    def __init__(self, subject: LintSubject) -> None:
        """Take the definitions."""
        self._subject = subject
        self._attachments: dict[tuple[str, Family], list[Attachment]] = {}
        for attachment in subject.attachments:
            names = (subject.snapshot.interface_by_id.get(name) for name in attachment.interfaces)
            families = {block.family for interface in names if interface for block in interface.addresses}
            for key in product(attachment.judge.security_group_ids, families):
                self._attachments.setdefault(key, []).append(attachment)
        self._listed = {
            group.security_group_id for group in subject.snapshot.security_groups if group.member_addresses
        }
        self._accepted = cache(partial(_accepted, subject.members))

    def closed(self, direction: Direction, near: str, clauses: Mapping[Family, Clause]) -> Iterator[Codes]:
        """Yield the traffic that a rule of a group accepts, and no host at its other end.

        Nothing where the other end is no single group, or has members without interfaces: they may accept it.
        """
        members = self._subject.members
        far = self._group(near, next(iter(clauses.values())))
        if far is None or far in self._listed:
            return
        is_inwards = direction is Direction.EGRESS
        families = [
            family
            for family in clauses
            if members[near].ranges(family) and (far, family) in self._attachments
        ]
        runs = {family: codes_of(clauses[family]) for family in families}
        for run in sorted({run for of_family in runs.values() for run in of_family}):
            reaches = (
                (family, attachment.ingress if is_inwards else attachment.egress)
                for family in runs
                if run in runs[family]
                for attachment in self._attachments[far, family]
            )
            if not any(self._passes(reach, family, run, near) for family, reach in reaches):
                yield run

    def _group(self, near: str, clause: Clause) -> str | None:
        """Return the group that is the only object of a rule."""
        rule_id = clause.rule.rule_id if clause.rule else ""
        match self._subject.rules[near, rule_id][1].authorization_objects:
            case (GroupReference(security_group_id),):
                return security_group_id
            case _:
                return None

    def _passes(self, reach: RuleReach, family: Family, run: Codes, group: str) -> bool:
        """Return whether the other end accepts any of a run from or to any member of a group."""
        dhcp = {code_of(UDP.wire_number, port) for port in DHCP[family]} - {run[0]}
        return any(
            first <= run[1] and run[0] <= last and not (first == last and first in dhcp)
            for first, last in self._accepted(reach.cells[family], group)
        )


def _accepted(members: Mapping[str, AddressSet], cells: Cells, group: str) -> frozenset[Codes]:
    """Return the runs that are accepted from or to some member of a group."""
    return frozenset(
        (cell.first, cell.last)
        for cell in cells.each(among=joined(members[group].ranges(cells.family)))
        if cells.clauses[cell.decider].policy is Policy.ACCEPT
    )


def _traffic(codes: Iterable[Codes]) -> str:
    """Return runs in words: ``tcp 443, udp 53``."""
    ports: dict[int, list[tuple[int, int]]] = {}
    for first, last in codes:
        if (first, last) == (0, LAST_CODE):
            return "anything"
        ports.setdefault(first >> 16, []).append((first & LAST_PORT, last & LAST_PORT))
    return ", ".join(
        f"{Protocol(number)} {port_text(joined(ranges))}"
        if number in PORTED_NUMBERS
        else f"{Protocol(number)}"
        for number, ranges in ports.items()
    )
