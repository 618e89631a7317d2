"""How often a server is asked."""

from __future__ import annotations

from random import Random

import pytest

from sgagent.sources.poller import (
    CHANGED_SECONDS,
    LONGEST_PUT_OFF_SECONDS,
    LONGEST_RETRY_SECONDS,
    SHORTEST_SECONDS,
    PollInterval,
)


@pytest.mark.parametrize(("chance", "seconds"), ((0.0, 27.0), (0.5, 30.0), (1.0, 33.0)))
def test_questions_of_many_hosts_spread(chance: float, seconds: float) -> None:
    """Each waits a tenth more or less than the interval."""
    assert PollInterval(30, lambda: chance).after_answer() == pytest.approx(seconds)


def test_retries_grow_apart_and_stay_below_a_minute() -> None:
    """The limit doubles with each failure, and an answer resets it."""
    pace = PollInterval(30, lambda: 1.0)
    waits = [pace.after_failure() for _ in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, *[LONGEST_RETRY_SECONDS] * 3]
    pace.after_answer()
    assert pace.after_failure() == 1


def test_retries_take_any_part_of_the_limit() -> None:
    """A fleet that lost its server comes back spread over the whole of it, and never in a busy loop."""
    pace, random = PollInterval(30, Random(1).random), Random(1)
    waits = [pace.after_failure() for _ in range(1_000)]
    expected = [max(SHORTEST_SECONDS, min(60.0, 2.0**tries) * random.random()) for tries in range(1_000)]
    assert waits == expected
    assert min(waits) >= SHORTEST_SECONDS
    assert min(waits[10:]) < 2
    assert max(waits) > 58


def test_a_long_interval_bounds_retries_too() -> None:
    """Who is content with an hour is not asked for more."""
    pace = PollInterval(3600, lambda: 1.0)
    assert [pace.after_failure() for _ in range(14)][-1] == 3600


def test_a_server_can_send_us_away_but_not_for_good() -> None:
    """What it asks for is waited, up to ten minutes."""
    pace = PollInterval(30, lambda: 0.0)
    assert pace.after_failure(120) == 120
    assert pace.after_failure(1e9) == LONGEST_PUT_OFF_SECONDS


@pytest.mark.parametrize(
    ("took", "is_changed", "seconds"),
    ((60, False, 0.0), (30, False, 0.0), (0.1, False, 30.0), (5, True, CHANGED_SECONDS)),
)
def test_a_long_poll(took: float, is_changed: bool, seconds: float) -> None:  # noqa: FBT001 - a parameter of the test
    """A server that waits is asked again at once; one that does not is asked as any other."""
    pace = PollInterval(30, lambda: 0.5)
    wait = pace.after_long_poll(took=took, wait=60, is_changed=is_changed)
    assert wait == pytest.approx(seconds)
