"""Tables of protocols and ports, held to a walk over the entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from hypothesis import given, strategies as st

from sgagent.compiler.decision_list import Entry
from sgagent.compiler.port_table import Cell, Decider, PortTable, Segment, make_table
from sgagent.core.addresses import append_run, joined
from sgagent.core.clauses import DecidedBy
from sgagent.core.model import ALL_PORTS, LAST_PORT, PORTED_NUMBERS, Family, Policy, PortSet

PROTOCOLS = (1, 6, 17, 47, 253)
_EDGES = (0, 1, 2, 79, 80, 81, 443, 65534, 65535)

Split = tuple[list[Entry], list[int], list[int]]
"""A list, the entries in it that are a class's own, and those for everyone."""


@st.composite
def port_sets(draw: st.DrawFn) -> PortSet:
    """Draw merged ranges of ports, now and then none at all."""
    pairs = draw(st.lists(st.tuples(st.sampled_from(_EDGES), st.sampled_from(_EDGES)), max_size=3))
    return PortSet(joined((min(pair), max(pair)) for pair in pairs))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Draw an entry as ``list_entries`` makes them; some look at more than protocol and port."""
    protocol = draw(st.sampled_from((None, *PROTOCOLS, 6, 6, 17)))
    has_ports = protocol in PORTED_NUMBERS
    ports = draw(st.one_of(st.just(ALL_PORTS), port_sets())) if has_ports else ALL_PORTS
    looks_further = draw(st.sampled_from((False, False, True)))
    return Entry(
        decided_by=DecidedBy.RULE,
        policy=Policy.ACCEPT,
        leaf="",
        peer="",
        family=Family.IPV4,
        addresses=(),
        protocols=None if protocol is None else (protocol,),
        ports=ports,
        local=(1, 2) if looks_further else None,
    )


@st.composite
def lists(draw: st.DrawFn) -> Split:
    """Draw a list, and split it into a class's own entries and those for everyone."""
    drawn = draw(st.lists(entries(), max_size=8))
    own = [index for index in range(len(drawn)) if draw(st.booleans())]
    return drawn, own, [index for index in range(len(drawn)) if index not in own]


def decided(listed: Sequence[Entry], members: Iterable[int], protocol: int, port: int | None) -> Cell:
    """Return the entries that match, up to the first that matches for sure, by looking at each."""
    cell = []
    for index in sorted(members):
        entry = listed[index]
        if entry.protocol not in (None, protocol):
            continue
        if not entry.ports.matches(port):
            continue
        cell.append(index)
        if entry.is_plain:
            break
    return tuple(cell)


def looked_up(table: PortTable, protocol: int, port: int | None) -> Cell | None:
    """Return the cell that a table leads a packet to; None is on to the base."""
    for listed in table.protocols:
        if listed.protocol != protocol:
            continue
        if port is None:
            return listed.rest if listed.short is None else listed.short
        for first, last, cell in listed.rows:
            if first <= port <= last:
                return cell
        return listed.rest
    return table.other


def ports_of(protocol: int) -> tuple[int | None, ...]:
    """Return what ports to try: those at edges, and none at all."""
    if protocol not in PORTED_NUMBERS:
        return (None,)
    near = {edge + step for edge in _EDGES for step in (-1, 0, 1)}
    return (None, *sorted(port for port in near if 0 <= port <= LAST_PORT))


@given(lists())
def test_a_table_and_its_base_decide_as_the_list_does(drawn: Split) -> None:
    """For every protocol and port, and for packets without ports; what the table leaves out the base says."""
    listed, own, for_everyone = drawn
    base = Decider(listed, for_everyone)
    everyone = make_table(listed, for_everyone, Decider(listed, ()))
    table = make_table(listed, own, base)
    for protocol in (*PROTOCOLS, 99):
        for port in ports_of(protocol):
            by_base = looked_up(everyone, protocol, port)
            assert (by_base or ()) == decided(listed, for_everyone, protocol, port)
            found = looked_up(table, protocol, port)
            expected = decided(listed, (*own, *for_everyone), protocol, port)
            assert (by_base or () if found is None else found) == expected, (protocol, port)


@given(lists())
def test_rows_are_disjoint(drawn: Split) -> None:
    """Rows and protocols are sorted, and nothing is in two of them: the kernel takes no overlap."""
    listed, own, for_everyone = drawn
    table = make_table(listed, own, Decider(listed, for_everyone))
    assert [one.protocol for one in table.protocols] == sorted({one.protocol for one in table.protocols})
    for one in table.protocols:
        assert all(first <= last for first, last, _ in one.rows)
        assert all(before[1] < after[0] for before, after in pairwise(one.rows))
        assert not one.rows or one.protocol in PORTED_NUMBERS


@given(lists())
def test_only_the_last_of_a_cell_is_plain(drawn: Split) -> None:
    """What stands behind a plain entry never decides, and is left out."""
    listed, own, for_everyone = drawn
    table = make_table(listed, own, Decider(listed, for_everyone))
    cells = [cell for one in table.protocols for _, _, cell in one.rows]
    cells += [cell for one in table.protocols for cell in (one.rest, one.short) if cell]
    for cell in cells:
        assert list(cell) == sorted(set(cell))
        assert not any(listed[index].is_plain for index in cell[:-1])


@given(lists())
def test_a_class_without_entries_says_nothing(drawn: Split) -> None:
    """Its table is empty: all is left to the base."""
    listed, _, for_everyone = drawn
    assert make_table(listed, (), Decider(listed, for_everyone)) == PortTable(protocols=(), other=None)


@given(lists())
def test_what_the_base_would_say_is_left_out(drawn: Split) -> None:
    """No row tells what the base tells too, unless a row of another kind is saved by it."""
    listed, own, for_everyone = drawn
    everyone = make_table(listed, for_everyone, Decider(listed, ()))
    for one in make_table(listed, own, Decider(listed, for_everyone)).protocols:
        if one.rest is None:
            for first, _, cell in one.rows:
                assert cell != (looked_up(everyone, one.protocol, first) or ())


def test_segments_that_touch_are_joined_if_they_agree() -> None:
    """A neighbour with the same cell lengthens the last segment; any other is a new one."""
    segments: list[Segment] = [(1, 2, (0,))]
    append_run(segments, 3, 4, (0,))
    append_run(segments, 5, 6, (1,))
    append_run(segments, 8, 9, (1,))
    assert segments == [(1, 4, (0,)), (5, 6, (1,)), (8, 9, (1,))]
