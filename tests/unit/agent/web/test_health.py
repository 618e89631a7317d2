"""When the agent is alive, and when it is ready."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus

import pytest

from sgagent.agent.published_status import LONGEST_TURN_SECONDS, STALE_SECONDS, PublishedStatus
from sgagent.agent.step import Step, StepEnd
from sgagent.agent.web.page import Request, health_pages, plain
from sgagent.core.errors import NOWHERE, Problem, Severity
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from tests.fakes.clock import FakeClock

APPLIED = Step(
    outcome=StepEnd.APPLIED,
    version="v1",
    policy=ResolvedPolicy(interfaces=(ResolvedInterface(name="eth0", security_group_ids=("sg-1",)),)),
)
WAITING = Step(outcome=StepEnd.WAITING, source_error="not there")
AWAY = replace(APPLIED, outcome=StepEnd.UNCHANGED, source_error="not there")
ERROR = Problem(severity=Severity.ERROR, code="code", origin=NOWHERE, message="wrong")


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that does not advance."""
    return FakeClock()


@pytest.fixture
def published(clock: FakeClock) -> PublishedStatus:
    """Return the published status of a healthy agent."""
    published = PublishedStatus(clock, lambda _: True)
    published.note_step(APPLIED, is_fetched=True)
    return published


def test_an_agent_in_step_is_alive_and_ready(published: PublishedStatus) -> None:
    """Both pages say ok, and nothing else."""
    pages = health_pages(published)
    assert {path: page(Request()) for path, page in pages.items()} == {
        "/healthz": plain(HTTPStatus.OK, "ok\n"),
        "/readyz": plain(HTTPStatus.OK, "ok\n"),
    }


def test_a_loop_that_hangs_is_not_alive(published: PublishedStatus, clock: FakeClock) -> None:
    """The time counts from the last turn of the main loop."""
    clock.pass_seconds(LONGEST_TURN_SECONDS)
    assert published.reasons_not_alive() == ()
    clock.pass_seconds(1)
    answer = health_pages(published)["/healthz"](Request())
    assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.content == b"the main loop has not run for 31 seconds\n"
    assert published.reasons_not_ready() == published.reasons_not_alive()
    published.note_totals({})
    assert published.reasons_not_alive() == ()


@pytest.mark.parametrize(
    ("step", "reason"),
    (
        (WAITING, "nothing is enforced"),
        (replace(APPLIED, policy=ResolvedPolicy()), "no interface of this host"),
        (replace(APPLIED, is_closed=True, version=None), "closed"),
        (replace(WAITING, is_standing=True), "previous run"),
        (replace(APPLIED, is_refused=True, problems=(ERROR,)), "have errors"),
        (replace(APPLIED, outcome=StepEnd.REFUSED, kernel_error="no room"), "kernel refused"),
        (
            replace(APPLIED, outcome=StepEnd.REFUSED, kernel_error="no room", was_drift=True),
            "the repair failed",
        ),
    ),
)
def test_what_is_amiss_is_named(published: PublishedStatus, step: Step, reason: str) -> None:
    """A failing probe has the reason, until a step succeeds."""
    published.note_step(step, is_fetched=True)
    answer = health_pages(published)["/readyz"](Request())
    assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert reason in answer.content.decode()
    published.note_step(APPLIED, is_fetched=True)
    assert published.reasons_not_ready() == ()


def test_a_source_may_be_away_for_a_while(published: PublishedStatus, clock: FakeClock) -> None:
    """Definitions are stale after some minutes without the source."""
    clock.pass_seconds(STALE_SECONDS)
    published.note_totals({})
    published.note_step(AWAY, is_fetched=True)
    assert published.reasons_not_ready() == ()
    clock.pass_seconds(1)
    assert published.reasons_not_ready() == ("the source could not be reached for 301 seconds",)


def test_a_source_that_was_never_reached_is_stale_at_once(clock: FakeClock) -> None:
    """Definitions of a previous run may have any age."""
    published = PublishedStatus(clock, lambda _: True)
    published.note_step(AWAY, is_fetched=True)
    assert published.reasons_not_ready() == ("the source could not be reached since the agent started",)


def test_a_step_that_fails_is_named(published: PublishedStatus) -> None:
    """A failed step makes the agent not ready."""
    published.note_totals({}, step_fault="links can't be read")
    assert published.reasons_not_ready() == ("the last step of the main loop failed",)
