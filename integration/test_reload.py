"""Policies change under full traffic: nothing that is denied leaks, nothing that is allowed is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

import pytest

from integration.enforcer import Enforcer, enforcer, one_group, policy_of
from integration.flood import ALLOWED, CLIENT, HOST, flooding, watch, watched
from integration.lab import Lab, wait_for
from integration.traffic import traffic
from sgagent.core.policy import ResolvedPolicy

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
RELOADS = 300 if IS_FULL else 60


@pytest.fixture
def agent(one_interface: Lab) -> Iterator[Enforcer]:
    """Take hold of a host with an address."""
    one_interface.add_host_addresses([str(HOST)])
    with enforcer(one_interface) as made:
        yield made


def changing_policies(random: Random) -> Iterator[ResolvedPolicy]:
    """Return one policy after the other that agree about the flood and about nothing else."""
    while True:
        others = [
            f"{random.choice(('ingress', 'egress'))} {random.choice(('accept', 'drop'))}"
            f" {random.randint(1, 100)} tcp {random.randint(1000, 1400)}"
            f" from 192.0.2.{random.randint(1, 250)}"
            for _ in range(random.randint(0, 200))
        ]
        yield policy_of(
            one_group(
                "ingress accept 2 tcp 80 from 198.51.100.0/24",
                "ingress drop 1 tcp 82 from 198.51.100.7",
                "ingress accept 2 tcp 82 from 0.0.0.0/0",
                *others,
            ),
            eth0="sg-1",
        )


@pytest.mark.long
def test_reloads_leak_nothing_and_lose_nothing(agent: Enforcer, capsys: pytest.CaptureFixture[str]) -> None:
    """While policies follow each other, every new session is judged by the one before or the one after.

    A session that was open all the time loses no byte, and counters never go back.
    """
    random = Random(7)
    policies = changing_policies(random)
    agent.enforce(next(policies))
    watch(agent.lab)
    with traffic(agent.lab) as busy:
        busy.open("web", agent.lab.peer, str(CLIENT), agent.lab.host, (str(HOST), ALLOWED))
        with busy.running():
            with flooding(agent.lab) as flood:
                highest = agent.hits()["rule/eth0/sgr-0"]
                for _ in range(RELOADS):
                    agent.enforce(next(policies))
                    hits = agent.hits()["rule/eth0/sgr-0"]
                    assert hits >= highest
                    highest = hits
            busy.settle({"web"})
    seen = watched(agent.lab)
    with capsys.disabled():
        print(
            f"\n  {RELOADS} reloads under {3 * flood.sent} new sessions: {seen['leaked']} leaked,"
            f" {flood.sent - seen['allowed']} lost",
            end="",
        )
    assert seen["sent"] == 3 * flood.sent
    assert seen["leaked"] == 0
    assert seen["allowed"] == flood.sent


def test_the_watch_notices_a_leak(agent: Enforcer) -> None:
    """Without a policy the same flood passes whole: the test above can fail."""
    watch(agent.lab)
    with flooding(agent.lab) as flood:
        wait_for(lambda: flood.sent > 0, "a first round")
    assert watched(agent.lab)["leaked"] == 2 * flood.sent
