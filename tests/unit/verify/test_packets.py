"""Boxes and cubes are what they say: checked against every member of small sets."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sgagent.core.addresses import Ranges, joined
from sgagent.nft.ruleset import ALL_BITS, SetMark
from sgagent.verify.packets import (
    EVERY_MARK,
    Cube,
    Marks,
    PacketSpace,
    after_both,
    before_change,
    cubes_of,
    difference,
    is_disjoint,
    split,
    split_marks,
)

BITS = 4
SMALL = range(1 << BITS)
NUMBERS = st.integers(0, (1 << BITS) - 1)


@st.composite
def cubes(draw: st.DrawFn) -> Cube:
    """Draw a cube of the low bits; the high ones are known to be 0."""
    bits = draw(NUMBERS)
    return bits | (ALL_BITS & ~0xF), draw(NUMBERS) & bits


@st.composite
def changes(draw: st.DrawFn) -> SetMark:
    """Draw a change of the low bits."""
    put = draw(NUMBERS)
    return SetMark(keep=(ALL_BITS & ~0xF) | draw(NUMBERS) | put, put=put)


def members(marks: Marks) -> list[int]:
    """Return the marks of a set, one as often as cubes hold it."""
    return sorted(mark for bits, value in marks for mark in SMALL if mark & bits == value)


@given(st.lists(cubes(), max_size=3), cubes())
def test_a_set_of_marks_is_cut_in_two(several: list[Cube], cube: Cube) -> None:
    """What is in a cube and what is not make the whole, without overlap."""
    marks: Marks = ()
    for one in several:
        marks = (*split_marks(marks, one)[1], one)
    inside, outside = map(members, split_marks(marks, cube))
    assert sorted(inside + outside) == members(marks)
    assert inside == [mark for mark in members(marks) if mark & cube[0] == cube[1]]


@given(NUMBERS, NUMBERS, NUMBERS)
def test_cubes_of_a_range(bits: int, first: int, last: int) -> None:
    """Cubes hold the marks whose chosen bits are in the range, each once."""
    found = [mark for b, value in cubes_of(bits, first, last) for mark in SMALL if mark & b == value]
    assert sorted(found) == [mark for mark in SMALL if first <= mark & bits <= last]


@given(changes(), changes(), cubes())
def test_changes_of_a_mark(one: SetMark, other: SetMark, cube: Cube) -> None:
    """A change after a change is one; what it makes of marks can be asked before it is made."""
    both = after_both(one, other)
    before = before_change(one, cube)
    for mark in SMALL:
        assert both.of(mark) == other.of(one.of(mark))
        lies_in = before is not None and mark & before[0] == before[1]
        assert lies_in is (one.of(mark) & cube[0] == cube[1])


@given(changes(), changes(), cubes())
def test_changes_that_differ(one: SetMark, other: SetMark, cube: Cube) -> None:
    """A mark is found exactly where two changes differ on one of the set."""
    found = difference((cube,), one, other)
    unlike = [mark for mark in members((cube,)) if one.of(mark) != other.of(mark)]
    assert (found in unlike) if unlike else found is None


def test_every_mark() -> None:
    """The set of all marks is cut like any other."""
    inside, outside = split_marks(EVERY_MARK, (0xFF, 0x41))
    assert inside == ((0xFF, 0x41),)
    assert len(outside) == 8


@st.composite
def ranges(draw: st.DrawFn) -> Ranges:
    """Draw numbers."""
    ends = draw(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=3))
    return joined((min(pair), max(pair)) for pair in ends)


def points(box: PacketSpace) -> set[tuple[int, int]]:
    """Return the members of a box of two dimensions."""
    x, y = ([n for first, last in box[dimension] for n in range(first, last + 1)] for dimension in "xy")
    return {(one, other) for one in x for other in y}


@given(ranges(), ranges(), ranges(), ranges())
def test_a_box_is_cut(x: Ranges, y: Ranges, in_x: Ranges, in_y: Ranges) -> None:
    """What meets constraints and what does not make the whole, without overlap."""
    box, constraints = {"x": x, "y": y}, (("x", in_x), ("y", in_y))
    inside, outside = split(box, constraints)
    wanted = points(box) & points({"x": in_x, "y": in_y})
    assert (points(inside) if inside else set()) == wanted
    pieces = [points(one) for one in outside]
    assert set().union(*pieces) == points(box) - wanted
    assert sum(map(len, pieces)) == len(points(box) - wanted)
    assert is_disjoint(box, constraints) is (not wanted)
    assert (inside is box) is (wanted == points(box))
