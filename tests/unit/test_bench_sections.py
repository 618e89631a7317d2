"""What benches make of their figures: tables, and goals that are met or missed."""

from __future__ import annotations

import pytest

from bench.daemon import AtWork, Changed, judge
from bench.desks import Change, Notice
from bench.goals import Goal
from bench.section import figure, goal_table, percentile, table
from bench.sizes import SIZES, Size


@pytest.mark.parametrize(
    ("value", "text"),
    (
        (0.0, "0"),
        (0.98765, "0.988"),
        (1.0, "1"),
        (12.345, "12.3"),
        (0.00123, "0.00123"),
        (12_345.6, "12,346"),
    ),
)
def test_three_digits_are_shown(value: float, text: str) -> None:
    """Whole numbers stay whole, and small ones keep what counts."""
    assert figure(value) == text


def test_a_percentile_is_one_of_the_values() -> None:
    """99 of 100 values are not above it, and nothing is made up between two values."""
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([3.0], 99) == 3.0


def test_a_missed_goal_is_seen() -> None:
    """The table says of each goal whether it is met."""
    goals = [Goal("fast", "at most 2", 1.5, is_met=True), Goal("small", "at most 1", 1.5, is_met=False)]
    assert [line.split(" | ")[-1] for line in goal_table(goals)][2:4] == ["met |", "**missed** |"]


def test_a_table_has_a_row_for_each() -> None:
    """Head, rule, rows, and an empty line that ends it."""
    assert list(table(("a", "b"), [("1", "2")])) == ["| a | b |", "|---|---|", "| 1 | 2 |", ""]


def at_work(size: Size, change: Change, enforced: float, by_nft: float) -> AtWork:
    """Return a daemon for which every change of a kind took the same."""
    changed = Changed(
        change=change.value,
        notice=Notice.SIGNAL.value,
        enforced=(enforced,) * 100,
        processor_seconds=enforced,
        by_nft=(by_nft,) * 100,
        processor_seconds_by_nft=by_nft,
    )
    return AtWork(size=size, start_seconds=1.0, mebibytes=80.0, mebibytes_later=80.0, changed=(changed,))


@pytest.mark.parametrize(
    ("change", "enforced", "is_met"),
    (
        (Change.MEMBER, 0.024, True),
        (Change.MEMBER, 0.026, False),
        (Change.RULE, 0.029, True),
        (Change.RULE, 0.031, False),
    ),
)
def test_changes_are_held_to_what_nft_takes(change: Change, enforced: float, *, is_met: bool) -> None:
    """A member twice and five milliseconds, a rule three times; small policies are not judged."""
    found = [at_work(size, change, enforced, 0.01) for size in SIZES[1:3]]
    assert [goal.is_met for goal in judge(found)] == [is_met]
