"""Find what is not used, by what the agent counted, and what does not fit with who listens on this host."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.core.comparing.boxes import ALL_PORTS
from sgagent.core.comparing.wording import port_text
from sgagent.core.intervals import Ranges, common, holds, joined, size, without
from sgagent.core.lint.finding import Check, Finding, Severity
from sgagent.core.lint.reach import RuleKey, key_of
from sgagent.core.lint.subject import Life, Listener, Stand, Subject, Usage
from sgagent.core.model import TCP, UDP, Direction, Family, Protocol

_DAY = 86_400.0
_DHCP_CLIENTS = frozenset({68, 546})


def _find_unused(subject: Subject, check: Check) -> Iterator[Finding]:
    """Find rules that no session hit for as long as was asked for."""
    life = subject.life
    if life.unused_seconds is None:
        return
    latest: dict[RuleKey, list[Usage]] = {}
    for counter, usage in life.usage.items():
        latest.setdefault((counter.security_group_id, counter.rule_id), []).append(usage)
    for key, usages in sorted(latest.items()):
        if key in subject.rules and all(life.is_unused(usage) for usage in usages):
            yield Finding(
                code=check.code,
                severity=check.severity,
                security_group_id=key[0],
                rule_ids=(key[1],),
                message=_since(usages, life),
                remedy="take it out if nobody needs it any more; lint says if another rule does its work",
                origin=subject.origin(key),
            )


def _since(usages: list[Usage], life: Life) -> str:
    hits = [usage.last_hit_at for usage in usages if usage.last_hit_at is not None]
    if hits:
        return f"its last hit on this host was {_days(life.now - max(hits))} ago"
    return f"it had no hit in the {_days(life.now - max(u.counted_since for u in usages))} that it is counted"


def _days(seconds: float) -> str:
    days = int(seconds // _DAY)
    if days:
        return f"{days} day{'s' * (days != 1)}"
    hours = int(seconds // 3600)
    return f"{hours} hour{'s' * (hours != 1)}"


def _find_nothing_listens(subject: Subject, check: Check) -> Iterator[Finding]:
    """Find ports of this host that rules open, and at which no program waits."""
    life = subject.life
    if life.listeners is None:
        return
    found: dict[tuple[RuleKey, int], list[tuple[int, int]]] = {}
    for stand in subject.host_stands:
        for key, number, ports in _opened(stand):
            found.setdefault((key, number), []).extend(ports)
    for (key, number), ranges in sorted(found.items()):
        ports = joined(ranges)
        if not common(ports, _listened_at(life.listeners, number)):
            yield Finding(
                code=check.code,
                severity=check.severity,
                security_group_id=key[0],
                rule_ids=(key[1],),
                message=f"it opens {Protocol(number)} {port_text(ports)}, where nothing on this host listens",
                remedy="close it until something does; a container or guest behind this host is not seen",
                origin=subject.origin(key),
            )


def _opened(stand: Stand) -> Iterator[tuple[RuleKey, int, Ranges]]:
    """Yield the ports that rules open, but for rules that open all of them."""
    for family in Family:
        for box in stand.ingress.accepted(family):
            rule = box.label[0].rule
            if rule is None or box.ports == ALL_PORTS:
                continue
            for number in (TCP.number, UDP.number):
                if number is not None and holds(box.protocols, number):
                    yield key_of(rule), number, box.ports


def _listened_at(listeners: tuple[Listener, ...], number: int) -> Ranges:
    return joined((one.port, one.port) for one in listeners if one.protocol == number)


def _find_unreached_listeners(subject: Subject, check: Check) -> Iterator[Finding]:
    """Find programs of this host that wait for others, and that no rule lets anybody get to."""
    life = subject.life
    if life.listeners is None or not life.stands:
        return
    let_in = _let_in(subject)
    missed: dict[int, list[tuple[int, int]]] = {}
    for one in life.listeners:
        is_let_in = any(holds(let_in.get((family, one.protocol), ()), one.port) for family in _heard(one))
        if not is_let_in and one.port not in _DHCP_CLIENTS:
            missed.setdefault(one.protocol, []).append((one.port, one.port))
    names = tuple(judge.name for judge in life.stands)
    for number, ranges in sorted(missed.items()):
        yield Finding(
            code=check.code,
            severity=check.severity,
            message=f"something listens at {Protocol(number)} {port_text(joined(ranges))},"
            " which no rule lets anybody get to",
            remedy="have it listen at loopback, or stop it; or accept those that it is for",
            interfaces=names,
        )


def _heard(listener: Listener) -> tuple[Family, ...]:
    """Return the families whose packets a listener gets: one at every IPv6 address gets both."""
    is_for_both = listener.family is Family.IPV6 and listener.address == 0
    return (Family.IPV4, Family.IPV6) if is_for_both else (listener.family,)


def _let_in(subject: Subject) -> dict[tuple[Family, int], Ranges]:
    """Return the ports at which anybody gets in, fellow members included."""
    found: dict[tuple[Family, int], list[tuple[int, int]]] = {}
    for stand in subject.host_stands:
        for family in Family:
            own = joined(stand.judge.toward(Direction.INGRESS).inner.ranges(family))
            for box in stand.ingress.accepted(family):
                is_nobody_else = (
                    box.label[0].rule is None and size(without(box.peers, own)) == 0 and size(own) < 2
                )
                for number in (TCP.number, UDP.number):
                    if number is not None and holds(box.protocols, number) and not is_nobody_else:
                        found.setdefault((family, number), []).extend(box.ports)
    return {key: joined(ranges) for key, ranges in found.items()}


CHECKS = (
    Check(
        code="unused_rule",
        severity=Severity.NOTICE,
        summary="a rule that no session hit for as long as --unused says",
        find=_find_unused,
    ),
    Check(
        code="nothing_listens",
        severity=Severity.NOTICE,
        summary="an open port of this host at which nothing listens",
        find=_find_nothing_listens,
    ),
    Check(
        code="unreached_listener",
        severity=Severity.NOTICE,
        summary="a program of this host that waits for others, and that no rule lets anybody get to",
        find=_find_unreached_listeners,
    ),
)
