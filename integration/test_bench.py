"""The bench measures as it claims: the same policy under each contender, and packets that arrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.churn import Way, measure_churn
from bench.commands import measure_dry_run
from bench.daemon import measure_daemon
from bench.definition_writers import Change, Notice
from bench.durations import Files, measure_durations
from bench.floor import BY_NFT, IN_PROCESS, LOAD, MESSAGE, measure_floor
from bench.linear import Order, render_linear
from bench.packetcost import (
    CONNTRACK_ONLY,
    ESTABLISHED_ONLY,
    NO_FIREWALL,
    OURS,
    Effort,
    compiled_text,
    measure_known,
    measure_new,
)
from bench.policies import BenchPolicy, invent
from bench.policy_changes import PolicyChange
from bench.scrape import measure_scrapes
from bench.sizes import SIZES, Size
from bench.stream import measure_streams
from bench.throughput import measure_throughput
from bench.traffic import Aim, choose
from integration.lab import lab

A_MOMENT = Effort(rounds=2, seconds=0.002, frames=64)


@pytest.fixture
def policy() -> BenchPolicy:
    """Return the smallest policy that is measured."""
    return invent(SIZES[0])


@pytest.fixture
def larger_policy() -> BenchPolicy:
    """Return the smallest policy that is no list: it has a map of members."""
    return invent(SIZES[1])


@pytest.mark.parametrize("order", list(Order))
def test_a_linear_list_is_the_same_policy(order: Order) -> None:
    """The list passes exactly the packets that the compiled ruleset passes."""
    policy = invent(Size(100, 1_000))
    packets = [packet for aim in (Aim.SPREAD, Aim.NONE) for packet in choose(policy, aim, 200)]
    with lab() as host:
        host.load(compiled_text(policy))
        by_ours = host.send_ingress(packets)
    with lab() as host:
        host.load(render_linear(policy.resolved, order))
        by_list = host.send_ingress(packets)
    assert by_list == by_ours
    assert 0 < sum(by_ours) < len(packets)


@pytest.mark.long
def test_new_sessions_are_measured_under_every_contender(policy: BenchPolicy) -> None:
    """Each aim has a cost for each contender, and the baseline costs nothing above itself."""
    costs = list(measure_new(policy, A_MOMENT))
    contenders = {CONNTRACK_ONLY, OURS, *(order.value for order in Order)}
    assert {(cost.aim, cost.contender) for cost in costs} == {
        (aim.value, contender) for aim in Aim for contender in contenders
    }
    assert all(cost.whole.median > 0 for cost in costs)
    assert all(cost.above.median == 0 for cost in costs if cost.contender == CONNTRACK_ONLY)


@pytest.mark.long
def test_known_sessions_are_measured_under_every_contender(policy: BenchPolicy) -> None:
    """The sessions can be opened under each, and then cost something."""
    costs = list(measure_known(policy, A_MOMENT))
    assert {cost.contender for cost in costs} == {CONNTRACK_ONLY, ESTABLISHED_ONLY, NO_FIREWALL, OURS}
    assert all(cost.whole.median > 0 for cost in costs)


@pytest.mark.long
def test_operations_and_commands_are_measured(policy: BenchPolicy, tmp_path: Path) -> None:
    """All operations run to their end on a small policy, and so does a dry run."""
    files = Files.write(policy, tmp_path)
    durations = list(measure_durations(policy, files, repeats=1))
    assert {one.operation for one in durations} >= {"first apply, as a command", "read all counters"}
    command = measure_dry_run(policy.size, files.definitions, verifies=True)
    assert command.status == 0
    assert command.peak_mebibytes > 0


@pytest.mark.long
@pytest.mark.parametrize("notice", (Notice.SIGNAL, pytest.param(Notice.STORE, marks=pytest.mark.long)))
def test_the_daemon_is_measured(larger_policy: BenchPolicy, notice: Notice) -> None:
    """A member joins and leaves, a rule moves, and each change is enforced; the same is done by nft."""
    found = measure_daemon(larger_policy, notice, changes=2)
    assert [changed.change for changed in found.changed] == [change.value for change in Change]
    assert all(min((*changed.enforced, *changed.by_nft)) > 0 for changed in found.changed)
    assert found.mebibytes > 0


@pytest.mark.long
def test_streams_are_measured_through_every_kind_of_change() -> None:
    """Each kind is applied under traffic, of which nothing is lost and nothing leaks, and waits are told."""
    found = measure_streams(SIZES[0], rounds=1, applies=1)
    assert [lost.change for lost in found.losses] == [change.value for change in PolicyChange]
    for lost in found.losses:
        assert min(lost.accepted, lost.known, lost.denied) > 0
        assert (lost.accepted_lost, lost.known_lost, lost.leaked) == (0, 0, 0)
    assert all(waits.half > 0 for by_stream in found.waits.values() for waits in by_stream.values())


@pytest.mark.long
def test_churn_is_measured(larger_policy: BenchPolicy) -> None:
    """Members come and go at a pace, and in the end the kernel has those who are there."""
    found = measure_churn(larger_policy, Way.FILES, seconds=1)
    assert (found.missing, found.left_over) == (0, 0)
    assert found.changes > 0


@pytest.mark.long
def test_scrapes_are_measured(policy: BenchPolicy) -> None:
    """Alone and while changes are applied, and of the changes some while nobody scrapes."""
    found = measure_scrapes(policy, scrapes=1, blocks=1, changes=2)
    assert [len(seconds) for seconds in (found.alone, found.without, found.with_scrapes)] == [1, 2, 2]
    assert found.meanwhile
    assert found.kibibytes > 0


@pytest.mark.long
def test_throughput_is_measured_under_every_contender(policy: BenchPolicy) -> None:
    """A session is let in under each, and carries its messages, in large packets and in small ones."""
    found = measure_throughput(policy, rounds=1)
    assert len({(carried.packets, carried.contender) for carried in found}) == 8
    assert all(carried.gigabits.median > 0 for carried in found)


@pytest.mark.long
def test_the_floor_is_measured(larger_policy: BenchPolicy) -> None:
    """A member is changed in all three ways, a rule and all at once in two, and each takes some time."""
    found = list(measure_floor(larger_policy, repeats=1, loads=1))
    ways = {(took.change, took.way) for took in found}
    two_ways = {(change, way) for change in (Change.RULE.value, LOAD) for way in (IN_PROCESS, BY_NFT)}
    assert ways == two_ways | {(Change.MEMBER.value, way) for way in (MESSAGE, IN_PROCESS, BY_NFT)}
    assert all(took.seconds > 0 for took in found)
