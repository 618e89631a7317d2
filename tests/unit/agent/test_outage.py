"""A source that is away for hours, or delivers what is refused: what is in force stays, and is said once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.agent.daemon import FETCH_AGAIN_SECONDS
from sgagent.agent.manual_override import HeldBack
from sgagent.agent.state.directory import Trigger
from sgagent.agent.step import Step, StepEnd, StepLog
from tests.fakes.log import FakeLog
from tests.unit.agent.machine import GOOD
from tests.unit.agent.running import Running
from tests.waiting import wait_until

pytestmark = pytest.mark.one_python

HOUR = 3600.0
BROKEN = GOOD.replace("security_groups:", "nonsense:", 1)
NEXT = GOOD.replace("10.0.0.11", "10.0.0.12")


def let_pass(running: Running, seconds: float, times: int) -> None:
    """Let time pass, each time until the source was asked again."""
    assert seconds >= FETCH_AGAIN_SECONDS
    for _ in range(times):
        fetches = running.machine.source.fetches
        running.clock.pass_seconds(seconds)
        wait_until(lambda fetches=fetches: running.machine.source.fetches > fetches, "a fetch")  # type: ignore[misc]  # a default binds the loop's value


def test_a_source_may_be_away_for_hours(running: Running) -> None:
    """Nothing changes, the status and the age of the snapshot tell, and what comes then is followed."""

    def script() -> None:
        before = running.machine.dataplane.ruleset
        version = running.published.status.snapshot_version
        running.machine.source.remove()
        running.wait_for("source_failed")
        let_pass(running, 2 * HOUR, 3)
        status = running.published.status
        assert running.machine.dataplane.ruleset == before
        assert (status.is_source_up, status.snapshot_version) == (False, version)
        assert status.step.source_error is not None
        running.machine.source.write(NEXT)
        running.wait_for("source_recovered")
        running.wait_for("ruleset_applied", 2)

    running.while_it_runs(script)
    assert [running.log.events().count(event) for event in ("source_failed", "source_recovered")] == [1, 1]


def test_an_agent_may_start_while_the_source_is_away(running: Running) -> None:
    """However long ago the last good definitions came, they are enforced."""
    machine = running.machine
    running.while_it_runs(lambda: None)
    machine.source.remove()
    machine.clock.pass_seconds(100 * HOUR)
    machine.dataplane.ruleset = None
    step = machine.reconciler().step(fetch=True)
    assert (step.outcome, step.policy is not None) == (StepEnd.APPLIED, True)
    assert machine.dataplane.ruleset is not None


def test_what_is_refused_is_refused_once(running: Running) -> None:
    """Not at each fetch that finds it unchanged, though the errors stay in the status."""

    def script() -> None:
        running.machine.source.write(BROKEN)
        running.wait_for("snapshot_refused")
        let_pass(running, FETCH_AGAIN_SECONDS, 3)
        assert running.published.status.step.is_refused
        running.machine.source.write(NEXT)
        running.wait_for("ruleset_applied", 2)

    running.while_it_runs(script)
    assert running.log.events().count("snapshot_refused") == 1
    assert running.log.events().count("ruleset_applied") == 2


@pytest.mark.parametrize(
    "outage",
    (
        Step(outcome=StepEnd.UNCHANGED, held_back="v2", source_error="away"),
        Step(outcome=StepEnd.UNCHANGED, held_back="v2", is_refused=True),
    ),
)
def test_a_version_that_is_held_back_is_logged_once(outage: Step) -> None:
    """Not at each step of an outage; when that is over, once more."""
    log, held = FakeLog(), HeldBack(version="v1", origin=Trigger.APPLY, since=1.0, held_back="v2")
    step_log = StepLog(log)
    counts = []
    reached = replace(outage, source_error=None, is_refused=False)
    for step in (reached, outage, outage, outage, reached, reached):
        step_log.log(step)
        step_log.log_hold(held)
        counts.append(log.events().count("source_held_back"))
    assert counts == [1, 1, 1, 1, 2, 2]
