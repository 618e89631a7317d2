"""A memo gives what making everything anew gives, and makes only what changed."""

from __future__ import annotations

from functools import partial

from hypothesis import given, strategies as st

from sgagent.core.memo import Memo, Seam, gone_and_come

POOL = tuple((number,) for number in range(6))
"""Values that are told apart by identity."""

sequences = st.lists(st.sampled_from(POOL), max_size=12).map(tuple)


@given(st.lists(st.tuples(sequences, sequences), min_size=1, max_size=6))
def test_only_what_changed_is_made_again(givens: list[tuple[tuple[tuple[int], ...], ...]]) -> None:
    """Each result is right; one is made only for objects that were not together the last time."""
    memo, asked = Memo(), list[tuple[object, object]]()

    def added(one: tuple[int], other: tuple[int]) -> tuple[int]:
        asked.append((one, other))
        return (one[0] + other[0],)

    before: list[tuple[tuple[int], tuple[int]]] | None = None
    results: tuple[tuple[int], ...] = ()
    for first, second in givens:
        pairs = list(zip(first, second, strict=False))
        asked.clear()
        found = memo.each("sums", added, [one for one, _ in pairs], [other for _, other in pairs])
        assert found == tuple((one[0] + other[0],) for one, other in pairs)
        if len(set(pairs)) == len(pairs):
            assert set(asked) == set(pairs) - set(before or ())
        assert (found is results) == (pairs == before) or not pairs
        before, results = pairs, found


def test_the_last_result_is_taken_for_the_same_objects_only() -> None:
    """Equal objects are not the same, and neither are more or fewer."""
    memo, some, equal = Memo(), [1], [1]
    first = memo.get("sum", (some,), object)
    assert memo.get("sum", (some,), object) is first
    assert memo.get("other", (some,), object) is not first
    second = memo.get("sum", (equal,), object)
    assert second is not first
    assert memo.get("sum", (equal, equal), object) is not second
    assert memo.get("sum", (some,), object) is not first


def test_an_equal_value_stays_the_same_object() -> None:
    """So that what depends on it is not made again."""
    memo, value = Memo(), [1]
    assert memo.same("value", value) is value
    assert memo.same("value", [1]) is value
    other = [2]
    assert memo.same("value", other) is other
    assert memo.update("value", lambda before: [*(before or ()), 3]) == [2, 3]


def test_what_is_made_of_objects_that_are_gone_is_forgotten() -> None:
    """An object may get the identity of one that is gone; its result must not."""
    memo = Memo()
    for number in range(1_000):
        assert memo.each("numbers", lambda one: one[0], [[number]]) == (number,)
        assert memo.get("number", ([number],), partial(int, number)) == number


def test_a_part_lives_while_each_step_asks_for_it() -> None:
    """It keeps its results though nothing in it is asked for; a step without it ends it."""
    memo = Memo()
    first = memo.part(Seam.ADDRESS_MAP, "eth0")
    assert memo.part(Seam.ADDRESS_MAP, "eth1") is not first
    assert memo.part(Seam.DIRTY_CLASSES, "eth0") is not first
    result = first.get("result", (memo,), object)
    for _ in range(3):
        memo.turn()
        assert memo.part(Seam.ADDRESS_MAP, "eth0") is first
    assert first.get("result", (memo,), object) is result
    memo.turn()
    memo.turn()
    assert memo.part(Seam.ADDRESS_MAP, "eth0") is not first


distinct = st.lists(st.sampled_from(POOL), unique=True).map(tuple)


@given(distinct, distinct)
def test_what_went_and_what_came(before: tuple[tuple[int], ...], after: tuple[tuple[int], ...]) -> None:
    """What is in one alone went or came; nothing did that is only somewhere else."""
    gone, come = gone_and_come(before, after)
    assert gone == [one for one in before if one not in after]
    assert come == [one for one in after if one not in before]
