"""When a burst of changes is told."""

from __future__ import annotations

import pytest

from sgagent.sources.files.settling import (
    ALONE_SECONDS,
    LONGEST_SECONDS,
    QUIET_SECONDS,
    UNSETTLED_SECONDS,
    BurstState,
    Settling,
)


def test_without_changes_nothing_is_due() -> None:
    """Nothing is waited for."""
    assert Settling().due() is None


def test_a_complete_change_is_due_soon() -> None:
    """Only the rest of the burst is waited for."""
    settling = Settling()
    settling.note("web.yaml", 10.0, BurstState.COMPLETE)
    assert settling.due() == pytest.approx(10.0 + QUIET_SECONDS)


def test_a_file_that_was_replaced_alone_is_due_at_once() -> None:
    """Whoever moves whole files into place has written them elsewhere."""
    settling = Settling()
    settling.note("web.yaml", 10.0, BurstState.WHOLE)
    assert settling.due() == pytest.approx(10.0 + ALONE_SECONDS)


@pytest.mark.parametrize("name", ("web.yaml", "app.yaml"))
@pytest.mark.parametrize("state", (BurstState.WHOLE, BurstState.COMPLETE))
def test_a_second_change_makes_a_burst(name: str, state: BurstState) -> None:
    """Files that are replaced one directly after the other are read together."""
    settling = Settling()
    settling.note("web.yaml", 10.0, BurstState.WHOLE)
    settling.note(name, 10.004, state)
    assert settling.due() == pytest.approx(10.004 + QUIET_SECONDS)


def test_a_burst_of_replacements_is_told_all_the_same() -> None:
    """It puts its first change off no longer than any other burst."""
    settling = Settling()
    for hundredth in range(200):
        settling.note("web.yaml", 10.0 + hundredth / 100, BurstState.WHOLE)
    assert settling.due() == pytest.approx(10.0 + LONGEST_SECONDS)


def test_a_file_that_is_being_written_is_waited_for() -> None:
    """A file that is still open may be half of what it will be."""
    settling = Settling()
    settling.note("web.yaml", 10.0, BurstState.INCOMPLETE)
    assert settling.due() == pytest.approx(10.0 + UNSETTLED_SECONDS)


def test_the_last_change_of_a_name_counts() -> None:
    """An editor that moves a file away and writes it anew has not removed it."""
    settling = Settling()
    settling.note("web.yaml", 10.0, BurstState.INCOMPLETE)
    settling.note("web.yaml", 10.01, BurstState.COMPLETE)
    assert settling.due() == pytest.approx(10.01 + QUIET_SECONDS)


def test_one_name_that_is_not_settled_holds_up_the_others() -> None:
    """Two files that change together are read together."""
    settling = Settling()
    settling.note("web.yaml", 10.0, BurstState.INCOMPLETE)
    settling.note("app.yaml", 10.01, BurstState.COMPLETE)
    assert settling.due() == pytest.approx(10.0 + UNSETTLED_SECONDS)


def test_a_burst_without_end_is_told_all_the_same() -> None:
    """A file that is written without a pause can't keep others from being enforced."""
    settling = Settling()
    for tenth in range(100):
        settling.note("web.yaml", 10.0 + tenth / 10, BurstState.INCOMPLETE)
    assert settling.due() == pytest.approx(10.0 + LONGEST_SECONDS)


def test_what_was_told_is_forgotten() -> None:
    """The next burst has all the time again."""
    settling = Settling()
    settling.note("web.yaml", 10.0, BurstState.INCOMPLETE)
    settling.clear()
    assert settling.due() is None
    settling.note("web.yaml", 20.0, BurstState.INCOMPLETE)
    assert settling.due() == pytest.approx(20.0 + UNSETTLED_SECONDS)
