"""Measure the costs of a new session: by statement, stage and feature, and under other shapes.

``python -m bench.shapes`` measures only this, as root, in three minutes; the figures of a column in turns.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.frames import Frames
from bench.hosts import bench_host
from bench.linear import Order
from bench.packetcost import CONNTRACK_ONLY, Effort, measured_costs, take_turns
from bench.policies import BenchPolicy, invent
from bench.results import PacketCost
from bench.section import COSTS_PAGE, Section, begin, finish, parser_of, table
from bench.sizes import SIZES, Size
from bench.traffic import Aim, choose, choose_sessions
from bench.variants import by_length, features, shapes, stages, statements

NAME = "shapes"

_EFFORT = Effort(rounds=15, seconds=0.03, frames=16_384)
_SESSIONS = 512
_AIMS = (Aim.SPREAD, Aim.NONE)
_LENGTHS = (4, 8, 12, 16, 24, 40)
"""Rules of the policies by which lists and look-ups are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The measurements in turns: a policy under several rulesets."""

    table: str
    """What the rulesets are."""

    name: str
    """Of the policy."""

    costs: tuple[PacketCost, ...]


def measure_shapes(sizes: Sequence[Size], lengths: Sequence[int]) -> Iterator[Column]:
    """Measure statements, stages, shapes, and the lengths up to which lists are shorter in time, too."""
    yield _column("statement", "", invent(SIZES[0]), statements(), [Aim.SPREAD])
    for size in sizes:
        policy = invent(size)
        yield _column("stage", str(size), policy, stages(policy), _AIMS)
    for size in sizes:
        policy = invent(size)
        texts = {shape.name: shape.text(policy) for shape in shapes() if size.rules <= shape.most_rules}
        yield _column("shape", str(size), policy, texts, _AIMS)
    for size in sizes:
        policy = invent(size)
        column = _column("feature", str(size), policy, features(policy), _AIMS)
        yield replace(column, costs=(*column.costs, *_known(policy, features(policy))))
    for rules in lengths:
        policy = invent(Size(rules, SIZES[0].members))
        yield _column("length", f"{rules} rules", policy, by_length(policy), _AIMS)


def _column(
    table_name: str, name: str, policy: BenchPolicy, rulesets: Mapping[str, str], aims: Sequence[Aim]
) -> Column:
    """Measure a policy's packets under rulesets, in turns."""
    costs: list[PacketCost] = []
    with contextlib.ExitStack() as stack:
        texts = {CONNTRACK_ONLY: "", **rulesets}
        hosts = {ruleset: stack.enter_context(bench_host(text)) for ruleset, text in texts.items()}
        for host in hosts.values():
            host.close_edge()
        for aim in aims:
            rounds = take_turns(hosts, Frames(choose(policy, aim, _EFFORT.frames)), _EFFORT)
            costs += measured_costs(rounds, policy, "new", aim.value, CONNTRACK_ONLY)
    return Column(table=table_name, name=name, costs=tuple(costs))


def _known(policy: BenchPolicy, rulesets: Mapping[str, str]) -> Iterator[PacketCost]:
    """Measure packets of known sessions under rulesets, in turns."""
    sessions = choose_sessions(policy, _SESSIONS)
    with contextlib.ExitStack() as stack:
        texts = {CONNTRACK_ONLY: "", **rulesets}
        hosts = {ruleset: stack.enter_context(bench_host(text)) for ruleset, text in texts.items()}
        for host in hosts.values():
            host.open_sessions(sessions)
            host.close_edge()
        rounds = take_turns(hosts, Frames([session.request for session in sessions]), _EFFORT)
        yield from measured_costs(rounds, policy, "known", "known sessions", CONNTRACK_ONLY)


_ELSEWHERE = {("shape", order.value) for order in Order}
"""Rulesets that ``python -m bench`` has tables of."""

_HEADS = {
    "statement": ("a chain of one line and an accept", "ns"),
    "stage": ("our table, cut off",),
    "shape": ("shape",),
    "feature": ("features of §12; the third figure is packets of known sessions",),
    "length": ("a short policy",),
}


def lines(columns: Sequence[Column]) -> Iterator[str]:
    """Yield the tables: nanoseconds above connection tracking alone."""
    for name, head in _HEADS.items():
        of_table = [column for column in columns if column.table == name]
        if not of_table:
            continue
        rulesets = dict.fromkeys(cost.contender for column in of_table for cost in column.costs)
        rows = (
            (ruleset, *(_figures(column, ruleset) for column in of_table))
            for ruleset in rulesets
            if ruleset != CONNTRACK_ONLY and (name, ruleset) not in _ELSEWHERE
        )
        yield from table((*head, *(column.name for column in of_table if column.name)), rows)


def _figures(column: Column, ruleset: str) -> str:
    """Return the costs of packets, by where they hit."""
    return "/".join(f"{cost.above.median:,.0f}" for cost in column.costs if cost.contender == ruleset)


def main(argv: Sequence[str]) -> int:
    """Measure, and print the tables."""
    options = parser_of(
        NAME, "Measure what of our table a new session pays for, and other shapes."
    ).parse_args(argv)
    begin()
    sizes, lengths = (SIZES[:1], ()) if options.quick else (SIZES, _LENGTHS)
    found = list(measure_shapes(sizes, lengths))
    return finish(Section(NAME, list(lines(found)), found, COSTS_PAGE), [], writes=options.write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
