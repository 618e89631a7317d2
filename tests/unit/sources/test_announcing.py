"""One change is told at once, and counts once it is known to be the only one; many are told together."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Mapping

import pytest

from sgagent.sources.files.announcing import Announcer
from sgagent.sources.files.bursts import OVERDUE_SECONDS, Bursts
from sgagent.sources.files.settling import ALONE_SECONDS, LONGEST_SECONDS, QUIET_SECONDS, BurstState
from tests.patience import PATIENCE

WATCH = "groups.d"
A_MOMENT = ALONE_SECONDS / 5


class Told:
    """An announcer on a clock of its own, and what it told."""

    def __init__(self, bursts: Bursts | None = None, watch: str = WATCH) -> None:
        """Start at zero."""
        self.now = 0.0
        self.times: list[float] = []
        """When it told."""

        self.armed_at: list[float] = []
        """When it had all watched."""

        self.is_news = False
        """Whether some of it was not watched until then."""

        self.bursts = bursts or Bursts(lambda: self.now)
        self.announcer = Announcer(watch, lambda: self.times.append(self.now), self.bursts, lambda: self.now)

    def change(self, after: float, name: str = "web.yaml", state: BurstState = BurstState.WHOLE) -> None:
        """Let a file change, after so many seconds."""
        self.now += after
        self.announcer.note(name, state)
        self.announcer.tell(self.now, self.arm)

    def wait(self) -> None:
        """Let it be as late as the announcer waits for."""
        due = self.announcer.due()
        assert due is not None
        self.now = due
        self.announcer.tell(self.now, self.arm)

    def arm(self) -> bool:
        """Have all watched."""
        self.armed_at.append(self.now)
        return self.is_news


@pytest.fixture
def told() -> Told:
    """Give an announcer that has nothing to tell."""
    return Told()


def is_settled(bursts: Bursts) -> bool:
    """Do as the one who reads does."""
    bursts.begin_reading()
    return bursts.has_settled()


def test_one_change_is_told_at_once_and_once(told: Told) -> None:
    """Nobody has to wait for what may be read already; that it stayed alone is no news."""
    told.change(after=1.0)
    assert told.times == [1.0]
    told.wait()
    assert told.now == pytest.approx(1.0 + ALONE_SECONDS)
    assert told.times == [1.0]
    assert told.announcer.due() is None
    assert is_settled(told.bursts)


def test_who_reads_waits_until_it_is_known(told: Told) -> None:
    """Nothing may come of a first change before there could have been a second."""
    told.change(after=1.0)
    answers: list[bool] = []
    reader = threading.Thread(target=lambda: answers.append(is_settled(told.bursts)))
    reader.start()
    assert answers == []
    told.wait()
    reader.join(10.0 * PATIENCE)
    assert answers == [True]


@pytest.mark.parametrize("state", (BurstState.WHOLE, BurstState.COMPLETE, BurstState.INCOMPLETE))
@pytest.mark.parametrize("name", ("web.yaml", "app.yaml"))
def test_a_second_change_makes_the_first_one_half(told: Told, name: str, state: BurstState) -> None:
    """What was read of the first is worth nothing then; both are told when they have settled."""
    told.change(after=1.0)
    told.change(after=A_MOMENT, name=name, state=state)
    assert not is_settled(told.bursts)
    told.wait()
    assert told.times == [1.0, told.now]
    assert is_settled(told.bursts)


def test_what_a_slow_reader_took_of_a_burst_stays_half(told: Told) -> None:
    """The burst may be over before all has been worked out that follows from its first change."""
    told.change(after=1.0)
    told.bursts.begin_reading()
    told.change(after=A_MOMENT, name="app.yaml")
    told.wait()
    assert not told.bursts.has_settled()
    assert is_settled(told.bursts), "it is read again, as that was told"


def test_what_was_read_of_the_next_burst_is_half_as_well(told: Told) -> None:
    """What one burst settled with is read again with the next, if that begins before it has had an effect."""
    told.change(after=1.0, state=BurstState.COMPLETE)
    told.wait()
    told.bursts.begin_reading()
    told.change(after=A_MOMENT)
    told.change(after=A_MOMENT, name="app.yaml")
    assert not told.bursts.has_settled()
    told.wait()
    assert is_settled(told.bursts)


@pytest.mark.parametrize("state", (BurstState.COMPLETE, BurstState.INCOMPLETE))
def test_what_was_written_in_place_is_not_told_early(told: Told, state: BurstState) -> None:
    """It may not be there to its end."""
    told.change(after=1.0, state=state)
    assert told.times == []
    told.wait()
    assert told.times == [told.now]
    assert told.now >= 1.0 + QUIET_SECONDS


def test_changes_without_a_pause_are_enforced_all_the_same(told: Told) -> None:
    """What settled in the end may be taken, though the next change is under way by the time it is read."""
    told.change(after=1.0)
    while len(told.times) < 2:
        told.change(after=A_MOMENT)
        assert told.now >= 1.0 + OVERDUE_SECONDS or not is_settled(told.bursts)
    assert told.now == pytest.approx(1.0 + LONGEST_SECONDS, abs=2 * A_MOMENT)
    told.change(after=A_MOMENT)
    told.change(after=A_MOMENT)
    assert is_settled(told.bursts)
    assert not is_settled(told.bursts), "that held once"


@pytest.mark.parametrize("pause", (QUIET_SECONDS, 1.2 * QUIET_SECONDS, LONGEST_SECONDS))
def test_bursts_without_a_pause_are_enforced_all_the_same(told: Told, pause: float) -> None:
    """Whoever writes again whenever all has settled can't keep it from counting for long."""
    read = 0
    while told.now < 10 * LONGEST_SECONDS:
        told.change(after=pause, state=BurstState.COMPLETE)
        told.wait()
        told.bursts.begin_reading()
        told.change(after=A_MOMENT, state=BurstState.COMPLETE)
        read += told.bursts.has_settled()
        told.wait()
    assert read >= 10 * LONGEST_SECONDS / (2 * LONGEST_SECONDS + 2 * pause)


def test_a_thread_that_came_late_loses_nothing(told: Told) -> None:
    """A second change that is seen long after it was due is told all the same."""
    told.change(after=1.0)
    told.change(after=2 * LONGEST_SECONDS, name="app.yaml")
    assert told.times == [1.0, told.now]
    assert is_settled(told.bursts)


def test_a_thread_that_is_kept_waiting_after_it_looked_loses_nothing(told: Told) -> None:
    """A second change may come after it has looked for one, and before it gets to say that there was none."""
    told.change(after=1.0)
    looked_at = 1.0 + A_MOMENT
    told.now = 1.0 + 2 * ALONE_SECONDS
    told.announcer.tell(looked_at, told.arm)
    assert told.announcer.due() == 1.0 + ALONE_SECONDS, "it looks once more, now that it is time"
    told.announcer.note("app.yaml", BurstState.WHOLE)
    told.announcer.tell(told.now, told.arm)
    assert not is_settled(told.bursts)
    told.wait()
    assert is_settled(told.bursts)


def test_another_watch_counts_as_well() -> None:
    """Documents are not taken while their signature is one change of many, but what settled there is."""
    documents = Told()
    signature = Told(documents.bursts, "sgagent.sig")
    documents.change(after=1.0)
    documents.wait()
    signature.change(after=documents.now)
    signature.change(after=A_MOMENT)
    assert not is_settled(documents.bursts)
    signature.wait()
    assert is_settled(documents.bursts)


def test_changes_in_two_places_belong_together() -> None:
    """Documents are not taken without the signature that was moved right behind them."""
    documents = Told()
    signature = Told(documents.bursts, "sgagent.sig")
    documents.change(after=1.0)
    documents.bursts.begin_reading()
    signature.change(after=documents.now + A_MOMENT)
    documents.wait()
    signature.wait()
    assert not documents.bursts.has_settled()
    assert is_settled(documents.bursts), "it is read again, as that was told"
    assert signature.times[-1] == signature.now


def test_changes_in_two_places_belong_together_though_one_is_noted_late() -> None:
    """The other thread may be kept from noting it until the first change has stayed alone where it was."""
    documents = Told()
    signature = Told(documents.bursts, "sgagent.sig")
    documents.change(after=1.0)
    documents.bursts.begin_reading()
    documents.wait()
    signature.change(after=documents.now)
    signature.wait()
    assert not documents.bursts.has_settled()
    assert is_settled(documents.bursts), "it is read again, as that was told"
    assert signature.times


def test_all_are_asked_again_once_a_change_has_stayed_alone() -> None:
    """What came elsewhere within its time may have come after that thread had been asked."""
    documents = Told()
    signature = Told(documents.bursts, "sgagent.sig")
    answers: list[bool] = []
    with documents.bursts.questions(WATCH) as first, documents.bursts.questions("sgagent.sig") as second:
        documents.change(after=1.0)
        reader = threading.Thread(target=lambda: answers.append(is_settled(documents.bursts)))
        reader.start()
        answer(documents.bursts, {WATCH: first, "sgagent.sig": second})
        documents.wait()
        assert select.select([second], [], [], 10.0 * PATIENCE)[0]
        signature.change(after=documents.now)
        answer(documents.bursts, {WATCH: first, "sgagent.sig": second})
        reader.join(10.0 * PATIENCE)
    assert answers == [False]


def answer(bursts: Bursts, questions: Mapping[str, int]) -> None:
    """Answer a question that was asked everywhere, once it is."""
    for watch, question in questions.items():
        assert select.select([question], [], [], 10.0 * PATIENCE)[0]
        os.eventfd_read(question)
        bursts.answer(watch)


def test_a_late_reader_takes_no_half(told: Told) -> None:
    """Changes that nobody put off but the one who reads are waited for like any other."""
    told.change(after=1.0)
    told.wait()
    told.now += 2 * LONGEST_SECONDS
    told.change(after=A_MOMENT)
    told.bursts.begin_reading()
    told.change(after=A_MOMENT)
    assert not told.bursts.has_settled()
    told.wait()
    assert is_settled(told.bursts)


def test_what_follows_what_was_told_for_lack_of_patience_belongs_to_it(told: Told) -> None:
    """A burst that was in effect in part a moment ago, as somebody reloaded, has the rest of its time."""
    while len(told.times) < 2:
        told.change(after=A_MOMENT)
        if told.now < LONGEST_SECONDS - 10 * A_MOMENT:
            told.bursts.begin_reading()
    assert not is_settled(told.bursts)
    told.bursts.begin_reading()
    told.change(after=A_MOMENT)
    told.now += ALONE_SECONDS
    told.announcer.tell(told.now, told.arm)
    assert not told.bursts.has_settled()
    told.wait()
    assert is_settled(told.bursts)


def test_what_was_reloaded_waits_no_more(told: Told) -> None:
    """Who asks whether there is more has the thread look once more, which is no change."""
    told.change(after=1.0)
    told.change(after=A_MOMENT)
    told.bursts.begin_reading()
    told.announcer.tell(told.now, told.arm)
    assert not is_settled(told.bursts)
    told.wait()
    told.change(after=LONGEST_SECONDS)
    told.bursts.begin_reading()
    told.change(after=A_MOMENT)
    assert not told.bursts.has_settled()


def test_what_is_given_up_before_it_was_told_is_read_again(told: Told) -> None:
    """A watch may end as it has heard of a change, before it could note it."""
    with told.bursts.questions(WATCH):
        told.bursts.begin_reading()
    assert not told.bursts.has_settled()
    assert is_settled(told.bursts)


def test_what_is_given_up_holds_up_nobody(told: Told) -> None:
    """A watch that ends may leave behind half of something, and a question without an answer."""
    answers: list[bool] = []
    with told.bursts.questions(WATCH) as question:
        told.change(after=1.0)
        reader = threading.Thread(target=lambda: answers.append(is_settled(told.bursts)))
        reader.start()
        assert select.select([question], [], [], 10.0 * PATIENCE)[0]
    reader.join(10.0 * PATIENCE)
    assert answers == [False]
    assert is_settled(told.bursts)


def test_what_happened_but_was_not_noted_yet_is_waited_for(told: Told) -> None:
    """The thread that watches may have been kept from saying so."""
    answers: list[bool] = []
    with told.bursts.questions(WATCH) as question:
        reader = threading.Thread(target=lambda: answers.append(is_settled(told.bursts)))
        reader.start()
        assert select.select([question], [], [], 10.0 * PATIENCE)[0]
        told.change(after=1.0)
        told.change(after=A_MOMENT)
        told.bursts.answer(WATCH)
        reader.join(10.0 * PATIENCE)
    assert answers == [False]


def test_all_is_watched_when_it_is_told(told: Told) -> None:
    """Whatever is read of a burst is watched: later changes are not missed."""
    told.change(after=1.0)
    told.change(after=A_MOMENT)
    assert told.armed_at == []
    told.wait()
    assert told.armed_at == [told.now]
    assert told.times == [1.0, told.now]


def test_what_was_read_before_it_was_watched_is_read_again(told: Told) -> None:
    """A document may be a link to another directory, in which something changed meanwhile."""
    told.change(after=1.0)
    told.is_news = True
    told.wait()
    assert told.armed_at == [told.now]
    assert told.times == [1.0, told.now]
