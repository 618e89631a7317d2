"""What is made again of what changed is what is made of everything."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sgagent.core.remaking import Remade, changed_places, common_ends, remake

POOL = tuple((number,) for number in range(6))
"""Values that are told apart by identity."""


def halved(value: tuple[int]) -> tuple[int]:
    """Make the same of several values."""
    return (value[0] // 2,)


sequences = st.lists(st.sampled_from(POOL), max_size=12).map(tuple)


@given(st.lists(sequences, min_size=1, max_size=5))
def test_making_again_is_making_of_everything(givens: list[tuple[tuple[int], ...]]) -> None:
    """Whatever was made before, of however many, each value is what it would be made of nothing."""
    before: Remade[tuple[int], tuple[int]] | None = None
    for given_now in givens:
        before = remake(given_now, halved, before)
        assert before.given == given_now
        assert before.made == tuple(map(halved, given_now))


@given(sequences, st.data())
def test_only_what_changed_is_made_again(given_first: tuple[tuple[int], ...], data: st.DataObject) -> None:
    """Of as many values as before, those that stand or moved are taken over; all, if all are equal."""
    first = remake(given_first, halved, None)
    asked: list[tuple[int]] = []

    def noting(value: tuple[int]) -> tuple[int]:
        asked.append(value)
        return halved(value)

    given_second = tuple(data.draw(st.sampled_from((value, value, POOL[0]))) for value in given_first)
    second = remake(given_second, noting, first)
    places = changed_places(given_first, given_second)
    moved = {given_first[place] for place in places}
    assert asked == [given_second[place] for place in places if given_second[place] not in moved]
    assert (second.made is first.made) == (second.made == first.made)


@given(sequences, sequences, sequences)
def test_what_both_begin_and_end_with(
    head: tuple[tuple[int], ...], one: tuple[tuple[int], ...], other: tuple[tuple[int], ...]
) -> None:
    """Both ends are the very same values, and do not overlap, in either sequence."""
    before, after = (*head, *one), (*head, *other)
    first, last = common_ends(before, after)
    assert len(head) <= first
    assert first + last <= min(len(before), len(after))
    assert before[:first] == after[:first]
    assert before[len(before) - last :] == after[len(after) - last :]
