"""Entries told apart by source port and near end, held to a look at every number."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, strategies as st

from sgagent.compiler.decision_list import Entry
from sgagent.compiler.port_chains import cut_lines, split_lines
from sgagent.core.addresses import joined
from sgagent.core.clauses import DecidedBy
from sgagent.core.model import ALL_PORTS, Family, Policy, PortSet

LAST = 12
_numbers = st.integers(0, LAST)
_ranges = st.tuples(_numbers, _numbers).map(lambda ends: (min(ends), max(ends)))


@st.composite
def lines(draw: st.DrawFn) -> tuple[Entry, ...]:
    """Draw lines, told apart by their leaves."""
    number = draw(st.integers(0, 6))
    drawn = (
        Entry(
            decided_by=DecidedBy.RULE,
            policy=Policy.ACCEPT,
            leaf=str(place),
            peer="",
            family=Family.IPV4,
            addresses=(),
            protocols=(6,),
            source_ports=draw(
                st.one_of(
                    st.just(ALL_PORTS), st.lists(_ranges, max_size=2).map(lambda ends: PortSet(joined(ends)))
                )
            ),
            local=draw(st.one_of(st.none(), _ranges)),
        )
        for place in range(number)
    )
    return cut_lines(drawn)


def fits(line: Entry, number: int, *, by_port: bool) -> bool:
    """Tell whether the line is for a source port, or a near end."""
    if by_port:
        return line.source_ports.matches(number)
    return line.local is None or line.local[0] <= number <= line.local[1]


def settled(line: Entry, *, by_port: bool) -> Entry:
    """Return the line once its source port, or its near end, is known to fit."""
    return replace(line, source_ports=ALL_PORTS) if by_port else replace(line, local=None)


@given(lines(), st.booleans())
def test_each_number_is_left_with_the_lines_that_fit(drawn: tuple[Entry, ...], by_port: bool) -> None:  # noqa: FBT001 - drawn
    """In order, up to the first that needs no further look; the pieces hold every number once."""
    pieces = split_lines(drawn, by_port=by_port, last=LAST)
    assert [number for first, last, _ in pieces for number in range(first, last + 1)] == list(range(LAST + 1))
    for first, last, left in pieces:
        for number in range(first, last + 1):
            fitting = [line for line in drawn if fits(line, number, by_port=by_port)]
            assert left == cut_lines(settled(line, by_port=by_port) for line in fitting)
    assert all(one[2] != other[2] for one, other in pairwise(pieces)), "neighbours that agree are one"


@given(lines())
def test_nothing_stands_behind_a_plain_line(drawn: tuple[Entry, ...]) -> None:
    """Only the last line can be plain: it decides whatever is left."""
    assert not any(line.is_plain for line in drawn[:-1])
    assert cut_lines(drawn) == drawn
