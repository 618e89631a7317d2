"""Elements in parts are as a tuple of the same, whatever became of them, and tell what changed."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sgagent.nft.diff import differing_elements
from sgagent.nft.maps import Elements
from sgagent.nft.ruleset import Accept, Drop, Element, Goto, Interval, Verdict

NUMBERS = 1_200
"""Enough for several parts, for some to be divided, and for all of one to go."""

VERDICTS: tuple[Verdict, ...] = (Accept(), Drop(), Goto("a"))


def element(number: int, verdict: Verdict) -> Element:
    """Return the element of a number."""
    return Element((Interval.single(number),), verdict)


numbers = st.integers(0, NUMBERS)
changes = st.tuples(numbers, st.sampled_from((1, 2, 30, 600)), st.sampled_from((None, *VERDICTS)))
"""From which number on, of how many numbers, and to what: None takes elements away."""


@given(
    st.sets(numbers, max_size=5), st.integers(0, NUMBERS), st.lists(changes, max_size=4), st.integers(0, 4)
)
def test_any_change_is_as_of_a_tuple(
    some: set[int], many: int, wanted: list[tuple[int, int, Verdict | None]], seen: int
) -> None:
    """Numbers come, go and lead elsewhere; what stood at any time before differs by just that."""
    held = {number: element(number, Drop()) for number in (*some, *range(many))}
    elements = [Elements.of([held[number] for number in sorted(held)])]
    for first, count, verdict in wanted:
        changed = elements[-1]
        for number in range(first, first + count):
            held.pop(number, None)
            if verdict is not None:
                held[number] = element(number, verdict)
            changed = changed.but(number, held.get(number))
        elements.append(changed)
        expected = tuple(held[number] for number in sorted(held))
        assert changed == expected
        assert expected == changed
        assert changed == Elements.of(expected)
        assert hash(changed) == hash(expected)
        assert (len(changed), changed[:2], changed[2:]) == (len(expected), expected[:2], expected[2:])
        assert all(changed.parts)
    before, after = elements[min(seen, len(wanted))], elements[-1]
    stood, stand = {*before}, {*after}
    gone, come = differing_elements(before, after)
    assert gone == tuple(one for one in before if one not in stand)
    assert come == tuple(one for one in after if one not in stood)
