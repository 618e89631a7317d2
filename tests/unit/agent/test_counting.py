"""Totals when counters are about to be deleted, or to count something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.agent.counters import Counting
from sgagent.agent.state.counter_file import CounterFile
from sgagent.core.errors import NotPermittedError
from sgagent.core.model import Direction, Policy
from sgagent.nft.names import CounterKey, RuleCounter
from sgagent.nft.ruleset import Counter
from sgagent.nft.transactions import AddCounter, AddTable, Delete, Plan
from sgagent.ports import CounterValue
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataplane

NAME, OTHER = "rule/eth0/sgr-web", "rule/eth0/sgr-dns"
WEB = RuleCounter(
    interface="eth0",
    security_group_id="sg-1",
    rule_id="sgr-web",
    direction=Direction.INGRESS,
    policy=Policy.ACCEPT,
)
DROPPED = replace(WEB, policy=Policy.DROP)
DNS = replace(WEB, rule_id="sgr-dns")


@pytest.fixture
def dataplane() -> FakeDataplane:
    """Return a table with two counters."""
    made = FakeDataplane()
    made.apply(Plan((AddTable(), *(AddCounter(Counter(name=name)) for name in (NAME, OTHER)))))
    return made


def counting(dataplane: FakeDataplane, directory: Path, clock: FakeClock | None = None) -> Counting:
    """Return the counting of an agent that was just started."""
    return Counting(dataplane, CounterFile(directory, "this boot"), clock or FakeClock())


def delete(counting: Counting, dataplane: FakeDataplane) -> None:
    """Delete a counter as the agent does; then its rule comes back."""
    counting.read(frozenset({NAME}))
    dataplane.apply(Plan((Delete("counter", NAME),)))
    counting.forget(frozenset({NAME}))
    dataplane.apply(Plan((AddCounter(Counter(name=NAME)),)))


def packets(counting: Counting, key: CounterKey) -> int:
    """Return the total of a key once it is counted."""
    name = NAME if key in (WEB, DROPPED) else OTHER
    counting.follow({name: key}, frozenset())
    counting.read()
    return counting.accounting.totals[key].packets


def test_a_rule_that_changes_its_policy_keeps_its_hits_apart(
    dataplane: FakeDataplane, tmp_path: Path
) -> None:
    """What was accepted since the last reading does not become what is dropped."""
    mine = counting(dataplane, tmp_path)
    mine.follow({NAME: WEB}, frozenset())
    dataplane.count(NAME, 5, 300)
    mine.follow({NAME: DROPPED}, frozenset())
    dataplane.count(NAME, 2, 120)
    mine.read()
    assert packets(mine, DROPPED) == 2
    assert packets(mine, WEB) == 5


def test_no_total_goes_back_where_a_rule_changes_its_policy(dataplane: FakeDataplane, tmp_path: Path) -> None:
    """Both are shown as long as the rule is there, also by the next agent; their sum does not go back."""
    mine = counting(dataplane, tmp_path)
    mine.follow({NAME: WEB}, frozenset())
    dataplane.count(NAME, 5, 300)
    for _ in range(2):
        mine.follow({NAME: DROPPED}, frozenset())
        mine.read()
        assert mine.accounting.totals == {DROPPED: CounterValue(0, 0), WEB: CounterValue(5, 300)}
        mine = counting(dataplane, tmp_path)
    mine.follow({OTHER: DNS}, frozenset())
    mine.read()
    assert mine.accounting.totals == {DNS: CounterValue(0, 0)}


def test_a_policy_that_changes_while_counters_can_not_be_read_is_followed(
    dataplane: FakeDataplane, tmp_path: Path
) -> None:
    """What was counted since the last reading counts for the new policy then."""
    mine = counting(dataplane, tmp_path)
    mine.follow({NAME: WEB}, frozenset())
    dataplane.count(NAME, 5, 300)
    dataplane.fault = NotPermittedError("no CAP_NET_ADMIN")
    mine.follow({NAME: DROPPED}, frozenset())
    dataplane.fault = None
    mine.read()
    assert packets(mine, DROPPED) == 5


def test_what_the_last_agent_counted_is_read_before_it_is_deleted(
    dataplane: FakeDataplane, tmp_path: Path
) -> None:
    """A rule that went while no agent ran: what it counted is there when it comes back."""
    last = counting(dataplane, tmp_path)
    last.follow({NAME: WEB, OTHER: DNS}, frozenset())
    dataplane.count(NAME, 5, 300)
    last.read()
    dataplane.count(NAME, 7, 420)
    dataplane.count(OTHER, 1, 60)

    mine = counting(dataplane, tmp_path)
    mine.read(frozenset({NAME}))  # a removal that is refused
    delete(mine, dataplane)
    assert packets(mine, DNS) == 1
    assert packets(mine, WEB) == 12


def test_what_is_deleted_counts_for_the_policy_that_it_had_last(
    dataplane: FakeDataplane, tmp_path: Path
) -> None:
    """Although an earlier policy had more hits."""
    clock = FakeClock()
    last = counting(dataplane, tmp_path, clock)
    for key in (DROPPED, WEB, DROPPED):
        last.follow({NAME: key}, frozenset())
        last.read()
        clock.pass_seconds(10)
        dataplane.count(NAME, 3, 180)
    last.read()
    dataplane.count(NAME, 4, 240)

    mine = counting(dataplane, tmp_path)
    delete(mine, dataplane)
    assert packets(mine, WEB) == 3
    assert packets(mine, DROPPED) == 10


def test_a_counter_that_nobody_knows_is_deleted_unread(dataplane: FakeDataplane, tmp_path: Path) -> None:
    """Without what an earlier agent kept, nobody knows what it counted."""
    mine = counting(dataplane, tmp_path)
    dataplane.count(NAME, 5, 300)
    delete(mine, dataplane)
    assert packets(mine, WEB) == 0
