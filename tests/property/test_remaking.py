"""What is made again of what changed is what is made of everything."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sgagent.core.memo import Remade, Revised, changed_places, common_ends, gone_and_come, remake

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


others_in_places = st.dictionaries(st.integers(0, 11), st.sampled_from(POOL), max_size=3)


@given(sequences, st.lists(others_in_places, max_size=3))
def test_revised_values_tell_where_others_stood(
    first: tuple[tuple[int], ...], revisions: list[dict[int, tuple[int]]]
) -> None:
    """They are as any tuple is, and tell of whatever stood before what comparing all of it would tell."""
    editions = [Revised(first)]
    for revision in revisions:
        others = {place: value for place, value in revision.items() if place < len(first)}
        editions.append(editions[-1].but(others))
        assert editions[-1] == tuple(others.get(place, value) for place, value in enumerate(editions[-2]))
        assert (editions[-1] is editions[-2]) == (editions[-1] == editions[-2])
    for before in editions:
        for after in editions:
            assert changed_places(before, after) == changed_places(tuple(before), tuple(after))


@given(sequences, sequences)
def test_what_went_and_what_came(before: tuple[tuple[int], ...], after: tuple[tuple[int], ...]) -> None:
    """What is in one alone went or came; nothing did that is only somewhere else."""
    gone, come = gone_and_come(before, after)
    assert {*before} - {*after} <= {*gone}
    assert {*after} - {*before} <= {*come}
    assert not {*gone} & {*come}
    assert {*gone} <= {*before}
    assert {*come} <= {*after}
