"""Checks of usage: rules without hits, and rules that don't fit this host's listeners."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import product

from sgagent.analysis.cells import code_of
from sgagent.analysis.flow_text import port_text
from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.rule_reach import RuleKey, key_of
from sgagent.analysis.lint.subject import Attachment, LintSubject, LiveHost, notice, rule_finding
from sgagent.core.addresses import Ranges, joined, size, without
from sgagent.core.binding import HostListener
from sgagent.core.clauses import Clause, DecidedBy
from sgagent.core.counter_keys import HitTimes
from sgagent.core.model import ALL_PORTS, LAST_PORT, TCP, UDP, Direction, Family, Policy, Protocol
from sgagent.core.policy import ResolvedRule

_DAY = 86_400.0
_DHCP_CLIENTS = frozenset({68, 546})
_LISTENED = tuple(protocol.wire_number for protocol in (TCP, UDP))
"""The protocols whose listeners the kernel is asked for."""

_LISTENED_CODES = tuple((code_of(number), code_of(number, LAST_PORT)) for number in _LISTENED)


@notice("a rule that no session hit for as long as --unused says")
def unused_rule(subject: LintSubject) -> Iterator[Finding]:
    """Find rules that no session hit for as long as was asked for."""
    host = subject.host
    if host.unused_seconds is None:
        return
    latest: dict[RuleKey, list[HitTimes]] = {}
    for counter, usage in host.usage.items():
        latest.setdefault((counter.security_group_id, counter.rule_id), []).append(usage)
    for key, usages in sorted(latest.items()):
        if key in subject.rules and all(host.is_unused(usage) for usage in usages):
            yield rule_finding(key, _since(usages, host), "remove it if nobody needs it any more")


def _since(usages: list[HitTimes], host: LiveHost) -> str:
    hits = [usage.last_hit_at for usage in usages if usage.last_hit_at is not None]
    if hits:
        return f"its last hit on this host was {_days(host.now - max(hits))} ago"
    since = max(usage.counted_since for usage in usages)
    return f"it had no hit in the {_days(host.now - since)} since counting began"


def _days(seconds: float) -> str:
    number, unit = (int(seconds // _DAY), "day") if seconds >= _DAY else (int(seconds // 3600), "hour")
    return f"{number} {unit}{'s' * (number != 1)}"


@notice("an open port of this host at which nothing listens")
def nothing_listens(subject: LintSubject) -> Iterator[Finding]:
    """Find ports of this host that rules open, and at which no program waits."""
    host = subject.host
    if host.listeners is None:
        return
    codes = {code_of(one.protocol, one.port) for one in host.listeners if one.protocol in _LISTENED}
    heard = {
        (key_of(clause.rule), code >> 16)
        for attachment, family, code in product(subject.host_attachments, Family, codes)
        for clause, _ in attachment.ingress.deciders(family, code)
        if clause.rule is not None
    }
    found: dict[tuple[RuleKey, int], list[tuple[int, int]]] = {}
    for attachment in subject.host_attachments:
        for key, number, ports in _opened(attachment, heard):
            found.setdefault((key, number), []).extend(ports)
    for (key, number), ranges in sorted(found.items()):
        yield rule_finding(
            key,
            f"it opens {Protocol(number)} {port_text(joined(ranges))}, where nothing on this host listens",
            "close it until something does; a container or guest behind this host is not seen",
        )


def _opened(
    attachment: Attachment, but: Container[tuple[RuleKey, int]]
) -> Iterator[tuple[RuleKey, int, Ranges]]:
    """Yield the ports that rules open, but for rules for every port and for those that are left out."""
    reach = attachment.ingress
    for cells in () if reach.unfinished else reach.cells.values():
        found: dict[tuple[RuleKey, int], list[tuple[int, int]]] = {}
        for cell in cells.each(_LISTENED_CODES):
            rule, number = _opening(cells.clauses[cell.decider]), cell.first >> 16
            if rule is not None and (key_of(rule), number) not in but:
                found.setdefault((key_of(rule), number), []).append(
                    (cell.first & LAST_PORT, cell.last & LAST_PORT)
                )
        yield from ((key, number, joined(ports)) for (key, number), ports in found.items())


def _opening(clause: Clause) -> ResolvedRule | None:
    """Return the rule of a clause if it opens some ports, and not all."""
    is_for_some = clause.policy is Policy.ACCEPT and clause.ports.ranges != ALL_PORTS.ranges
    return clause.rule if is_for_some else None


@notice("a listening program of this host that no rule admits anybody to")
def unreached_listener(subject: LintSubject) -> Iterator[Finding]:
    """Find programs of this host that wait for others, and that no rule lets anybody get to."""
    host = subject.host
    if host.listeners is None or not host.bound:
        return
    missed: dict[int, list[tuple[int, int]]] = {}
    for one in host.listeners:
        code = code_of(one.protocol, one.port)
        is_let_in = any(_lets_in(subject, family, code) for family in _families_of(one))
        if not is_let_in and one.port not in _DHCP_CLIENTS:
            missed.setdefault(one.protocol, []).append((one.port, one.port))
    names = tuple(judge.name for judge in host.bound)
    for number, ranges in sorted(missed.items()):
        yield Finding(
            message=f"something listens at {Protocol(number)} {port_text(joined(ranges))},"
            " and no rule admits anybody there",
            remedy="bind it to loopback, stop it, or accept its clients",
            interfaces=names,
        )


def _families_of(listener: HostListener) -> tuple[Family, ...]:
    """Return the families whose packets a listener gets: one at every IPv6 address gets both."""
    is_for_both = listener.family is Family.IPV6 and listener.address == 0
    return (Family.IPV4, Family.IPV6) if is_for_both else (listener.family,)


def _lets_in(subject: LintSubject, family: Family, code: int) -> bool:
    """Return whether anybody gets in at a protocol and port, fellow members included."""
    for attachment in subject.host_attachments:
        own = joined(attachment.judge.toward(Direction.INGRESS).inner.ranges(family))
        for clause, far in attachment.ingress.deciders(family, code):
            if clause.policy is Policy.ACCEPT and clause.decided_by in _OPENING:
                is_by_rule, is_own = clause.rule is not None, size(own) < 2
                if is_by_rule or not is_own or any(without(one.ranges, own) for one in far):
                    return True
    return False


_OPENING = (DecidedBy.RULE, DecidedBy.INNER, DecidedBy.DEFAULT)
