"""Measure lint and plan of policies of many shapes: processor time, and the memory of a process for it alone.

``python -m bench.questions`` measures only this, and needs no privilege. Reading documents is not in it.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from bench.goals import Goal
from bench.section import COSTS_PAGE, Section, figure, finish, goal_table, parser_of, table
from sgagent.analysis.compare import compare
from sgagent.analysis.lint.registry import lint
from sgagent.analysis.lint.subject import Attachment, make_subject
from sgagent.core.model import (
    TCP,
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    GroupType,
    Policy,
    PortSet,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions

NAME = "questions"
RULES = (1_000, 10_000)

_GROUP = "sg-main"
_EVERYONE = CidrBlock.parse("0.0.0.0/0")
_INSIDE = CidrBlock.parse("10.0.0.0/8")
_LINT_LIMITS = {1_000: 0.7, 10_000: 5.0}
_MOST_MEBIBYTES = 300.0
_PLAN_LIMIT = 1.0

T = TypeVar("T")
Draw = Callable[[random.Random, int], SecurityGroupRule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The durations of the questions about one policy."""

    shape: str
    rules: int
    lint_seconds: float
    """Of processor time."""

    lint_mebibytes: float
    """At most, of the whole process."""

    findings: int
    plan_seconds: float
    """Of processor time, where one rule decides otherwise."""


def _rule(
    dice: random.Random,
    number: int,
    peer: AuthorizationObject,
    ports: tuple[int, int],
    priority: int | None = None,
) -> SecurityGroupRule:
    return SecurityGroupRule(
        rule_id=f"sgr-{number:05}",
        direction=Direction.INGRESS,
        policy=Policy.ACCEPT if dice.random() < 0.8 else Policy.DROP,
        priority=dice.randint(1, 100) if priority is None else priority,
        protocols=(TCP,),
        ports=PortSet.of(ports),
        authorization_objects=(peer,),
    )


def _port(dice: random.Random) -> tuple[int, int]:
    port = dice.randint(1, 65_535)
    return port, port


def _ports(dice: random.Random) -> tuple[int, int]:
    first, last = sorted((dice.randint(1, 65_535), dice.randint(1, 65_535)))
    return first, last


def _network(dice: random.Random, shortest: int) -> CidrBlock:
    return CidrBlock.around(Family.IPV4, dice.getrandbits(32), dice.randint(shortest, 32))


def _nested(dice: random.Random) -> CidrBlock:
    address = _INSIDE.first | dice.getrandbits(16)
    return CidrBlock.around(Family.IPV4, address, dice.randint(8, 32))


def _group(number: int) -> GroupReference:
    return GroupReference(f"sg-{number // 10}")


SHAPES: Mapping[str, Draw] = {
    "one port, other networks": lambda dice, n: _rule(dice, n, _network(dice, 16), (80, 80)),
    "everyone, other ports": lambda dice, n: _rule(dice, n, _EVERYONE, _port(dice)),
    "everyone, wide ranges": lambda dice, n: _rule(dice, n, _EVERYONE, _ports(dice)),
    "networks, wide ranges": lambda dice, n: _rule(dice, n, _network(dice, 8), _ports(dice)),
    "hosts, wide ranges": lambda dice, n: _rule(dice, n, _network(dice, 32), _ports(dice)),
    "nested networks, wide ranges": lambda dice, n: _rule(dice, n, _nested(dice), _ports(dice)),
    "networks, wide ranges, one priority": lambda dice, n: _rule(
        dice, n, _network(dice, 16), _ports(dice), 1
    ),
    "groups, other ports": lambda dice, n: _rule(dice, n, _group(n), _port(dice)),
    "everyone's ports and networks' ranges": lambda dice, n: (
        _rule(dice, n, _network(dice, 16), _ports(dice)) if n % 2 else _rule(dice, n, _EVERYONE, _port(dice))
    ),
    "networks at near ends of their own": lambda dice, n: replace(
        _rule(dice, n, _network(dice, 16), _port(dice)),
        local_address=CidrBlock.around(Family.IPV4, _INSIDE.first + n, 32),
    ),
}
"""How a rule of each shape is drawn, by its number."""


def make_policy(shape: str, rules: int) -> Snapshot:
    """Return definitions of a shape: a group that has all rules, and those that it names."""
    dice = random.Random(1)
    drawn = tuple(SHAPES[shape](dice, number) for number in range(rules))
    named = {one for rule in drawn for one in rule.authorization_objects}
    groups = [
        SecurityGroup(
            security_group_id=one.security_group_id,
            group_type=GroupType.BASIC,
            member_addresses=_members(int(one.security_group_id.removeprefix("sg-"))),
        )
        for one in named
        if isinstance(one, GroupReference)
    ]
    main = SecurityGroup(
        security_group_id=_GROUP,
        group_type=GroupType.BASIC,
        inner_access_policy=Policy.DROP,
        rules=drawn,
    )
    groups = sorted((main, *groups), key=lambda group: group.security_group_id)
    return Snapshot(version=shape, security_groups=tuple(groups))


def _members(number: int) -> tuple[CidrBlock, ...]:
    first = _INSIDE.first + 100 * number
    return tuple(CidrBlock.around(Family.IPV4, first + member, 32) for member in range(100))


def with_another_verdict(snapshot: Snapshot) -> Snapshot:
    """Return definitions of which one rule decides otherwise, before all others."""
    main = snapshot.group_by_id[_GROUP]
    last = main.rules[-1]
    policy = Policy.DROP if last.policy is Policy.ACCEPT else Policy.ACCEPT
    changed = replace(main, rules=(*main.rules[:-1], replace(last, policy=policy, priority=1)))
    groups = (changed if group is main else group for group in snapshot.security_groups)
    return replace(snapshot, security_groups=tuple(groups))


def ask_about(shape: str, rules: int) -> Asked:
    """Ask both questions about a policy; the memory is that of this process."""
    before = make_policy(shape, rules)
    findings, lint_seconds = _timed(lambda: lint(make_subject(before, Exemptions())))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    policies = [
        ResolvedPolicy(interfaces=(_attachment(snapshot).judge,))
        for snapshot in (before, with_another_verdict(before))
    ]
    _, plan_seconds = _timed(lambda: compare(*policies))
    return Asked(
        shape=shape,
        rules=rules,
        lint_seconds=lint_seconds,
        lint_mebibytes=peak,
        findings=len(findings),
        plan_seconds=plan_seconds,
    )


def _attachment(snapshot: Snapshot) -> Attachment:
    attachments = make_subject(snapshot, Exemptions()).attachments
    return next(attachment for attachment in attachments if attachment.judge.security_group_ids == (_GROUP,))


def _timed(make: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    made = make()
    return made, time.process_time() - began


def measure(rules: Sequence[int], shapes: Sequence[str]) -> Iterator[Asked]:
    """Ask about each policy in a process of its own, so that the memory is its alone."""
    context = multiprocessing.get_context("spawn")
    for number in rules:
        for shape in shapes:
            with context.Pool(1) as pool:
                yield pool.apply(ask_about, (shape, number))


def judge(asked: Sequence[Asked]) -> Iterator[Goal]:
    """Yield the goals, held to the slowest shape."""
    for rules, limit in _LINT_LIMITS.items():
        of_size = [one for one in asked if one.rules == rules]
        if of_size:
            seconds = max(one.lint_seconds for one in of_size)
            yield Goal.at_most(limit, f"lint, {rules:,} rules, slowest shape", seconds, "s")
    if asked:
        yield Goal.at_most(_MOST_MEBIBYTES, "lint, memory", max(one.lint_mebibytes for one in asked), "MiB")
        yield Goal.at_most(_PLAN_LIMIT, "plan of one rule", max(one.plan_seconds for one in asked), "s")


def lines(asked: Sequence[Asked]) -> Iterator[str]:
    """Yield the tables."""
    yield from goal_table(list(judge(asked)))
    sizes = ", ".join(f"{rules:,}" for rules in dict.fromkeys(one.rules for one in asked))
    rows = (
        (
            shape,
            *(_figures(asked, shape, name) for name in ("lint_seconds", "lint_mebibytes", "plan_seconds")),
        )
        for shape in dict.fromkeys(one.shape for one in asked)
    )
    yield from table((f"rules: {sizes}", "lint, s", "lint, MiB", "plan, s"), rows)


def _figures(asked: Sequence[Asked], shape: str, name: str) -> str:
    """Return a figure of a shape at each size."""
    return ", ".join(figure(getattr(one, name)) for one in asked if one.shape == shape)


def main(argv: Sequence[str]) -> int:
    """Measure, and print the tables."""
    options = parser_of(NAME, "Measure lint and plan of policies of many shapes.").parse_args(argv)
    asked = list(measure(RULES[:1] if options.quick else RULES, tuple(SHAPES)))
    return finish(
        Section(NAME, list(lines(asked)), asked, COSTS_PAGE), list(judge(asked)), writes=options.write
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
