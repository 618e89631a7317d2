"""Totals when counters are about to be deleted, or to count something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sgagent.agent.counters import RETRY_SECONDS, CounterPoller, CounterTotals
from sgagent.agent.state.counter_file import CounterFile
from sgagent.agent.status import Resets
from sgagent.core.counter_keys import CounterKey
from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.core.model import Policy
from sgagent.nft.ruleset import Counter
from sgagent.nft.transactions import RESET_WATCH, AddCounter, AddTable, Delete, Plan
from sgagent.ports import CounterValue
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataplane
from tests.words import rule_counter

NAME, OTHER = "rule/eth0/sgr-web", "rule/eth0/sgr-dns"
WEB = rule_counter("sgr-web")
DROPPED = replace(WEB, policy=Policy.DROP)
DNS = replace(WEB, rule_id="sgr-dns")


@pytest.fixture
def dataplane() -> FakeDataplane:
    """Return a table with two counters."""
    made = FakeDataplane()
    made.apply(Plan((AddTable(), *(AddCounter(Counter(name=name)) for name in (NAME, OTHER)))))
    return made


def poller(dataplane: FakeDataplane, directory: Path, clock: FakeClock | None = None) -> CounterPoller:
    """Return the counting of an agent that was just started."""
    return CounterPoller(dataplane, CounterFile(directory, "this boot"), clock or FakeClock())


def delete(poller: CounterPoller, dataplane: FakeDataplane) -> None:
    """Delete a counter as the agent does; then its rule comes back."""
    poller.read(frozenset({NAME}))
    dataplane.apply(Plan((Delete("counter", NAME),)))
    poller.forget(frozenset({NAME}))
    dataplane.apply(Plan((AddCounter(Counter(name=NAME)),)))


def packets(poller: CounterPoller, key: CounterKey) -> int:
    """Return the total of a key once it is counted."""
    name = NAME if key in (WEB, DROPPED) else OTHER
    poller.follow({name: key}, frozenset())
    poller.read()
    return poller.counters.totals[key].packets


def test_a_rule_that_changes_policy_keeps_its_hits_apart(dataplane: FakeDataplane, tmp_path: Path) -> None:
    """What was accepted since the last reading does not become what is dropped."""
    mine = poller(dataplane, tmp_path)
    mine.follow({NAME: WEB}, frozenset())
    dataplane.count(NAME, 5, 300)
    mine.follow({NAME: DROPPED}, frozenset())
    dataplane.count(NAME, 2, 120)
    mine.read()
    assert packets(mine, DROPPED) == 2
    assert packets(mine, WEB) == 5


def test_no_total_goes_back_where_a_rule_changes_its_policy(dataplane: FakeDataplane, tmp_path: Path) -> None:
    """Both are shown as long as the rule is there, also by the next agent; their sum does not go back."""
    mine = poller(dataplane, tmp_path)
    mine.follow({NAME: WEB}, frozenset())
    dataplane.count(NAME, 5, 300)
    for _ in range(2):
        mine.follow({NAME: DROPPED}, frozenset())
        mine.read()
        assert mine.counters.totals == {DROPPED: CounterValue(0, 0), WEB: CounterValue(5, 300)}
        mine = poller(dataplane, tmp_path)
    mine.follow({OTHER: DNS}, frozenset())
    mine.read()
    assert mine.counters.totals == {DNS: CounterValue(0, 0)}


def test_a_policy_that_changes_between_readings_is_followed(dataplane: FakeDataplane, tmp_path: Path) -> None:
    """What was counted since the last reading counts for the new policy then."""
    mine = poller(dataplane, tmp_path)
    mine.follow({NAME: WEB}, frozenset())
    dataplane.count(NAME, 5, 300)
    dataplane.fault = NotPermittedError("no CAP_NET_ADMIN")
    mine.follow({NAME: DROPPED}, frozenset())
    dataplane.fault = None
    mine.read()
    assert packets(mine, DROPPED) == 5


def test_totals_that_could_not_be_kept_are_kept_once_there_is_room(
    dataplane: FakeDataplane, tmp_path: Path
) -> None:
    """By the next reading, also if it has nothing new."""
    mine = poller(dataplane, tmp_path)
    mine.follow({NAME: WEB}, frozenset())
    draft = tmp_path / ".counters.json.new"
    draft.mkdir()
    dataplane.count(NAME, 5, 300)
    mine.poll()
    assert "Is a directory" in (mine.fault or "")
    draft.rmdir()
    mine.poll()
    assert mine.fault is None
    assert packets(poller(dataplane, tmp_path), WEB) == 5


def test_what_the_last_agent_counted_is_read_before_it_goes(dataplane: FakeDataplane, tmp_path: Path) -> None:
    """A rule that went while no agent ran: what it counted is there when it comes back."""
    last = poller(dataplane, tmp_path)
    last.follow({NAME: WEB, OTHER: DNS}, frozenset())
    dataplane.count(NAME, 5, 300)
    last.read()
    dataplane.count(NAME, 7, 420)
    dataplane.count(OTHER, 1, 60)

    mine = poller(dataplane, tmp_path)
    mine.read(frozenset({NAME}))  # a removal that is refused
    delete(mine, dataplane)
    assert packets(mine, DNS) == 1
    assert packets(mine, WEB) == 12


def test_what_is_deleted_counts_for_the_policy_it_had(dataplane: FakeDataplane, tmp_path: Path) -> None:
    """Although an earlier policy had more hits."""
    clock = FakeClock()
    last = poller(dataplane, tmp_path, clock)
    for key in (DROPPED, WEB, DROPPED):
        last.follow({NAME: key}, frozenset())
        last.read()
        clock.pass_seconds(10)
        dataplane.count(NAME, 3, 180)
    last.read()
    dataplane.count(NAME, 4, 240)

    mine = poller(dataplane, tmp_path)
    delete(mine, dataplane)
    assert packets(mine, WEB) == 3
    assert packets(mine, DROPPED) == 10


def test_a_counter_that_nobody_knows_is_deleted_unread(dataplane: FakeDataplane, tmp_path: Path) -> None:
    """Without what an earlier agent kept, nobody knows what it counted."""
    mine = poller(dataplane, tmp_path)
    dataplane.count(NAME, 5, 300)
    delete(mine, dataplane)
    assert packets(mine, WEB) == 0


@dataclass
class Watched:
    """A table of two rules, whose counters an agent looks at, and what others do to them."""

    dataplane: FakeDataplane
    poller: CounterPoller

    def poll(self) -> int:
        """Look, and return the total of the first rule."""
        self.poller.poll()
        return self.poller.counters.totals[WEB].packets


@pytest.fixture
def watched(dataplane: FakeDataplane, tmp_path: Path) -> Watched:
    """Return a table that an agent watches."""
    mine = poller(dataplane, tmp_path)
    mine.follow({NAME: WEB, OTHER: DNS}, frozenset())
    found = Watched(dataplane, mine)
    found.poll()
    return found


@pytest.mark.parametrize("later", (1, 4, 5, 6, 500))
def test_what_is_counted_after_a_reset_counts(watched: Watched, later: int) -> None:
    """Whether it is less than what was read before, the same, or more; and the reset is noticed."""
    watched.dataplane.count(NAME, 5, 300)
    assert watched.poll() == 5
    watched.dataplane.reset_counters()
    watched.dataplane.count(NAME, later, 60 * later)
    assert watched.poll() == 5 + later
    assert watched.poller.resets == Resets(1, FakeClock().now())
    watched.dataplane.count(NAME, 7, 420)
    assert watched.poll() == 5 + later + 7
    assert watched.poller.resets.count == 1


def test_each_reset_is_noticed_if_a_look_is_between(watched: Watched) -> None:
    """The watch is set anew each time; what is lost is at most what was counted since the last look."""
    for turn in range(1, 6):
        watched.dataplane.count(NAME, 3, 180)
        watched.dataplane.reset_counters()
        watched.dataplane.count(NAME, 3, 180)
        assert watched.poll() == 3 * turn
        assert watched.poller.resets.count == turn


def test_the_reset_of_one_counter_is_noticed_if_it_shows_less(watched: Watched) -> None:
    """The others go on from what they were."""
    watched.dataplane.count(NAME, 5, 300)
    watched.dataplane.count(OTHER, 5, 300)
    watched.poll()
    watched.dataplane.reset_counters(NAME)
    watched.dataplane.count(NAME, 2, 120)
    watched.dataplane.count(OTHER, 2, 120)
    assert watched.poll() == 7
    assert watched.poller.counters.totals[DNS].packets == 7
    assert watched.poller.resets.count == 1


def test_a_reset_while_no_agent_ran_is_noticed_by_the_next(watched: Watched, tmp_path: Path) -> None:
    """The kernel keeps the watch, and the file what was counted before."""
    watched.dataplane.count(NAME, 5, 300)
    watched.poll()
    watched.dataplane.reset_counters()
    watched.dataplane.count(NAME, 9, 540)
    again = poller(watched.dataplane, tmp_path)
    again.follow({NAME: WEB, OTHER: DNS}, frozenset())
    assert Watched(watched.dataplane, again).poll() == 14
    assert again.resets.count == 1


def test_a_reset_that_a_step_reads_first_counts_once(watched: Watched) -> None:
    """The watch is not set anew within a step, and what was noticed there is not noticed again."""
    watched.dataplane.count(NAME, 5, 300)
    watched.poll()
    watched.dataplane.reset_counters()
    watched.dataplane.count(NAME, 6, 360)
    watched.poller.read()
    watched.dataplane.count(NAME, 1, 60)
    assert watched.poll() == 12
    assert watched.poller.resets.count == 1
    watched.dataplane.reset_counters()
    watched.dataplane.count(NAME, 8, 480)
    assert watched.poll() == 20
    assert watched.poller.resets.count == 2


def test_a_reset_is_noticed_if_a_reading_fails(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next reading counts what came since, and the reset."""
    watched.dataplane.count(NAME, 5, 300)
    watched.poll()
    watched.dataplane.reset_counters()
    watched.dataplane.count(NAME, 6, 360)
    answers = [watched.dataplane.read_counters()]

    def read_counters() -> Mapping[str, CounterValue]:
        if not answers:
            raise KernelRefusedError("another process keeps changing the ruleset")
        return answers.pop()

    with monkeypatch.context() as patch:
        patch.setattr(watched.dataplane, "read_counters", read_counters)
        with pytest.raises(KernelRefusedError):
            watched.poller.read()
    assert watched.poll() == 11
    assert watched.poller.resets.count == 1


def test_a_reading_that_is_partly_older_than_the_reset_counts_both_parts() -> None:
    """A dump takes a moment: of one counter it has the value before the reset, of the watch that after it."""
    counters = CounterTotals()
    keys: dict[str, CounterKey] = {NAME: WEB, OTHER: DNS}
    counters.add({NAME: CounterValue(5, 300), OTHER: CounterValue(5, 300)}, keys)
    mixed = {NAME: CounterValue(9, 540), OTHER: CounterValue(6, 360)}
    after = {NAME: CounterValue(2, 120), OTHER: CounterValue(7, 420)}
    counters.begin_anew(mixed, after, keys, frozenset(), 0.0)
    counters.add(after, keys)
    assert counters.totals[WEB].packets == 9 + 2
    assert counters.totals[DNS].packets == 5 + 7


def test_a_kernel_that_refuses_the_watch_is_asked_later(dataplane: FakeDataplane, tmp_path: Path) -> None:
    """Not at each look; a reset is noticed where a counter shows less."""
    clock = FakeClock()
    mine = poller(dataplane, tmp_path, clock)
    mine.follow({NAME: WEB}, frozenset())
    dataplane.watch_refusal = KernelRefusedError("no room")
    for _ in range(3):
        mine.poll()
    assert dataplane.watches_asked == 1
    dataplane.watch_refusal = None
    clock.pass_seconds(RETRY_SECONDS)
    mine.poll()
    mine.poll()
    assert dataplane.watches_asked == 2
    assert dataplane.read_counters()[RESET_WATCH] == CounterValue(1, 1)
