"""A change of policy is one moment for every packet: it is judged by the policy before or by the one after.

``SGAGENT_FULL=1`` makes hundreds of changes of each pair; ``SGAGENT_SEED`` sets the first random seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from integration.enforcer import Enforcer, enforcer
from integration.lab import Lab
from integration.pairs import Pair
from integration.storm import bench, random_pair, run_pair, run_random_pair, storm_on, targets_of
from integration.stormpairs import DROP_ON_A_LIST, LARGE, LARGEST, SMALL
from integration.streams import Storm, Tally
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.marks import Sessions

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
CHANGES = 300 if IS_FULL else 4
LARGE_CHANGES = 60 if IS_FULL else 2
LARGEST_CHANGES = 20
MOST_MOMENTS = 20
RANDOM_CHANGES = 60 if IS_FULL else 6
SEEDS = 200 if IS_FULL else 5
FIRST_SEED = int(os.environ.get("SGAGENT_SEED", "1"))


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    """Build the bench."""
    with bench() as built:
        yield built


@pytest.fixture(scope="module")
def storm(host: Lab) -> Iterator[Storm]:
    """Return a storm on the bench."""
    with storm_on(host) as made:
        yield made


def assert_one_moment(tally: Tally) -> None:
    """Assert that no packet had a fate that neither policy gives it, and that enough packets came."""
    assert tally.faults == {}, f"in {tally.changes} changes"
    assert tally.forbidden + tally.allowed > 50 * tally.changes


@pytest.mark.sampled(8)
@pytest.mark.parametrize("pair", SMALL, ids=[pair.name for pair in SMALL])
def test_a_change_is_one_moment(host: Lab, storm: Storm, pair: Pair) -> None:
    """Packets that both forbid never pass, those that both allow are never lost, revoked sessions end."""
    assert_one_moment(run_pair(host, storm, pair, CHANGES))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("pair", LARGE, ids=[pair.name for pair in LARGE])
def test_a_large_change_is_one_moment(host: Lab, storm: Storm, pair: Pair) -> None:
    """So it is where the kernel works on a change for long."""
    assert_one_moment(run_pair(host, storm, pair, LARGE_CHANGES))


@pytest.mark.long
@pytest.mark.parametrize("pair", LARGEST, ids=[pair.name for pair in LARGEST])
def test_the_largest_change_is_one_moment(host: Lab, storm: Storm, pair: Pair) -> None:
    """So it is where a change takes seconds."""
    assert_one_moment(run_pair(host, storm, pair, LARGEST_CHANGES))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_a_random_change_is_one_moment(host: Lab, storm: Storm, seed: int) -> None:
    """So it is for random policies that are a few edits apart; the name of the test has the seed."""
    pair = random_pair(seed)
    tally = run_random_pair(host, storm, pair, RANDOM_CHANGES)
    assert tally.faults == {}, f"in {tally.changes} changes: {pair.name}"


@pytest.fixture
def agent(host: Lab) -> Iterator[Enforcer]:
    """Enforce the first pair's policy before its change."""
    host.host.remove_table("sgagent")
    with enforcer(host) as made:
        made.enforce(DROP_ON_A_LIST.before.policy())
        yield made


@pytest.fixture
def sides(storm: Storm) -> tuple[ResolvedPolicy, ResolvedPolicy]:
    """Aim the storm at the first pair and return its policies."""
    before, after = DROP_ON_A_LIST.before.policy(), DROP_ON_A_LIST.after.policy()
    storm.aim(before, after, targets_of(DROP_ON_A_LIST))
    return before, after


def tally_of(storm: Storm, policy: ResolvedPolicy, apply: Callable[[], None], *numbers: str) -> Tally:
    """Change until these numbers are not zero: on a busy machine, a moment may fall between two packets."""
    tally = Tally()
    while tally.changes < MOST_MOMENTS and not all(getattr(tally, name) for name in numbers):
        tally += storm.change(policy, apply)
    return tally


def test_it_sees_leaks(storm: Storm, agent: Enforcer, sides: tuple[ResolvedPolicy, ResolvedPolicy]) -> None:
    """The tests above can fail: where nothing is bound for a moment, forbidden packets are counted."""

    def go_and_come() -> None:
        agent.enforce(ResolvedPolicy())
        agent.enforce(sides[1])

    tally = tally_of(storm, sides[1], go_and_come, "passed")
    assert tally.passed > 0
    assert tally.lost == 0


def test_it_sees_losses(storm: Storm, agent: Enforcer, sides: tuple[ResolvedPolicy, ResolvedPolicy]) -> None:
    """Where somebody drops all packets for a moment, lost ones are counted, of new and of open sessions."""
    with_drop = (
        "add table inet testdrop;"
        " add chain inet testdrop in { type filter hook prerouting priority -150; policy drop; };"
        " add chain inet testdrop out { type filter hook postrouting priority 300; policy drop; }"
    )

    def shut() -> None:
        agent.lab.load(with_drop.replace(";", ";\n").replace("; ", ";\n") + "\n")
        agent.enforce(sides[1])
        agent.lab.host.nft("delete", "table", "inet", "testdrop")

    tally = tally_of(storm, sides[1], shut, "lost", "live_lost")
    assert tally.lost > 0
    assert tally.live_lost > 0
    assert tally.passed == 0


def test_the_storm_notices_sessions_that_go_on(
    storm: Storm, agent: Enforcer, sides: tuple[ResolvedPolicy, ResolvedPolicy]
) -> None:
    """Where sessions are kept whatever the policy says, those that a change forbids are counted."""
    agent.sessions = Sessions.KEEP
    storm.change(sides[1], partial(agent.enforce, sides[1]))
    assert storm.change(sides[0], partial(agent.enforce, sides[0])).went_on > 0
