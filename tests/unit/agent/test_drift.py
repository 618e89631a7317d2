"""Who changed the table is remembered; against one who does not stop, mending slows down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.agent.drift import (
    CONTESTED_FROM,
    CONTESTED_SECONDS,
    LONGEST_PAUSE_SECONDS,
    QUIET_SECONDS,
    UTMOST_PAUSE_SECONDS,
    DriftWatch,
)
from sgagent.agent.step import Step, StepEnd, Tamperer
from sgagent.dataplane.generation import MISSED, RulesetChange
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog

REPAIR = Step(outcome=StepEnd.APPLIED, was_drift=True, differed=("chain ingress/eth0",))
NFT = RulesetChange(generation=7, process_id=4711, process_name="nft", is_of_table=True)


class Watched:
    """A watch with all that is around it."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self.clock, self.log, self.woken = FakeClock(), FakeLog(), 0
        self.watch = DriftWatch(self.clock, self.log, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def contest(self) -> None:
        """Mend once more than is put up with."""
        for _ in range(CONTESTED_FROM + 1):
            self.watch.follow(REPAIR)

    def pause(self) -> float:
        """Return for how long mending is held back from now on, in tenths of seconds."""
        tenths = 0
        while self.watch.is_held_back:
            self.clock.pass_seconds(0.1)
            tenths += 1
        return tenths / 10


@pytest.fixture
def watched() -> Watched:
    """Return a watch."""
    return Watched()


def test_who_was_heard_last_is_named(watched: Watched) -> None:
    """Once: the next repair is not theirs unless they are heard again."""
    watched.watch.notify(replace(NFT, process_name="other"))
    watched.watch.notify(NFT)
    assert watched.watch.follow(REPAIR).tamperer == Tamperer(process_id=4711, process_name="nft")
    assert watched.watch.follow(REPAIR).tamperer == Tamperer()


def test_changes_of_our_table_wake_the_loop(watched: Watched) -> None:
    """Also where the kernel had too much to tell; nobody is named then."""
    watched.watch.notify(NFT)
    watched.watch.notify(MISSED)
    assert watched.woken == 2
    assert watched.watch.follow(REPAIR).tamperer == Tamperer()


def test_changes_of_other_tables_do_not(watched: Watched) -> None:
    """And whoever makes them is not blamed for ours."""
    watched.watch.notify(NFT)
    watched.watch.notify(replace(NFT, process_id=5, is_of_table=False))
    assert watched.woken == 1
    named = watched.watch.follow(REPAIR).tamperer
    assert named.process_id == 4711


def test_an_ordinary_step_is_nobodys(watched: Watched) -> None:
    """What the definitions ask for is not blamed on anyone."""
    watched.watch.notify(NFT)
    step = Step(outcome=StepEnd.APPLIED)
    assert watched.watch.follow(step) is step


def test_some_repairs_are_no_contest(watched: Watched) -> None:
    """Neither a few at once, nor many with time between."""
    for _ in range(CONTESTED_FROM):
        watched.watch.follow(REPAIR)
    watched.clock.pass_seconds(CONTESTED_SECONDS + 1)
    for _ in range(20):
        watched.watch.follow(REPAIR)
        watched.clock.pass_seconds(CONTESTED_SECONDS / CONTESTED_FROM + 0.1)
    assert not watched.watch.is_contested
    assert not watched.watch.is_held_back
    assert watched.log.events() == []


def test_too_many_repairs_raise_an_alarm_once(watched: Watched) -> None:
    """It names who it is, and is not said again while it lasts."""
    for _ in range(3 * CONTESTED_FROM):
        watched.watch.notify(NFT)
        watched.watch.follow(REPAIR)
    assert watched.watch.is_contested
    [(event, keys)] = watched.log.lines
    assert (event, keys["process_name"], keys["process_id"]) == ("drift_contested", "nft", 4711)


def test_pauses_grow_and_stay_short(watched: Watched) -> None:
    """Each is twice the one before, up to a few seconds."""
    watched.contest()
    pauses = [watched.pause()]
    for _ in range(5):
        watched.watch.follow(REPAIR)
        pauses.append(watched.pause())
    assert pauses == pytest.approx([1, 2, 4, 4, 4, 4], abs=0.2)
    assert max(pauses) <= LONGEST_PAUSE_SECONDS + 0.2


@pytest.mark.parametrize(("took", "pause"), ((5.0, 15.0), (100.0, UTMOST_PAUSE_SECONDS)))
def test_dear_repairs_make_longer_pauses(watched: Watched, took: float, pause: float) -> None:
    """A contest about a large table takes no more of the processor than one about a small one."""
    watched.contest()
    watched.pause()
    watched.watch.follow(replace(REPAIR, compile_seconds=took / 2, apply_seconds=took / 2))
    assert watched.pause() == pytest.approx(pause, abs=0.2)


def test_a_contest_ends_when_it_is_quiet(watched: Watched) -> None:
    """After a while without a repair all is as at first."""
    watched.contest()
    watched.clock.pass_seconds(QUIET_SECONDS - 1)
    watched.watch.poll()
    assert watched.log.events() == ["drift_contested"]
    watched.clock.pass_seconds(1)
    watched.watch.poll()
    assert watched.log.events() == ["drift_contested", "drift_calmed"]
    assert not watched.watch.is_contested
    watched.watch.follow(REPAIR)
    assert not watched.watch.is_held_back


def test_what_the_kernel_refused_is_no_repair(watched: Watched) -> None:
    """It is tried again ever more rarely anyway."""
    for _ in range(2 * CONTESTED_FROM):
        watched.watch.follow(replace(REPAIR, outcome=StepEnd.REFUSED))
    assert not watched.watch.is_contested
