"""Probes: whether the agent is alive, and whether it enforces the newest definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus

from sgagent.agent.published_status import Board
from sgagent.agent.status import Posture, Status
from sgagent.agent.web.page import Page, Response, plain
from sgagent.ports import Clock

LONGEST_TURN_SECONDS = 30.0
"""For one turn of the main loop. To enforce the largest policies for the first time takes seconds."""

STALE_SECONDS = 300.0
"""After which the definitions of an unreachable source count as too old."""

_WITHOUT_POLICY = {
    Posture.NOTHING: "nothing is enforced",
    Posture.IDLE: "nothing is enforced, as no interface of this host is bound",
    Posture.CLOSED: "no policy loaded; the host is closed",
    Posture.STANDING: "no policy loaded; the previous run's rules stay active",
}
"""Postures in which no definitions are enforced."""


def health_pages(board: Board, clock: Clock) -> Mapping[str, Page]:
    """Return the pages ``/healthz`` and ``/readyz`` by their paths."""
    return {
        "/healthz": lambda _: _page(reasons_not_alive(board)),
        "/readyz": lambda _: _page(reasons_not_ready(board, clock)),
    }


def reasons_not_alive(board: Board) -> tuple[str, ...]:
    """Return why the agent should be restarted; empty if it is alive."""
    seconds = board.seconds_since_turn()
    if seconds <= LONGEST_TURN_SECONDS:
        return ()
    return (f"the main loop has not run for {seconds:.0f} seconds",)


def reasons_not_ready(board: Board, clock: Clock) -> tuple[str, ...]:
    """Return why the host does not enforce its newest definitions; empty if it does."""
    failed = ("the last step of the main loop failed",) if board.step_fault() else ()
    return (*reasons_not_alive(board), *failed, *_shortcomings(board.status(), clock.now()))


def _shortcomings(status: Status, now: float) -> Iterator[str]:
    if status.posture in _WITHOUT_POLICY:
        yield _WITHOUT_POLICY[status.posture]
    for interface in status.interfaces:
        if interface.port_of is not None:
            yield f"{interface.name} is a port of the {interface.port_of}, so its packets are not judged"
    if status.is_source_up is False:
        if status.source_reached_at is None:
            yield "the source could not be reached since the agent started"
        elif now - status.source_reached_at > STALE_SECONDS:
            yield f"the source could not be reached for {now - status.source_reached_at:.0f} seconds"
    if status.step.is_refused:
        yield "the newest definitions have errors; the previous ones stay active"
    if status.step.kernel_error is not None:
        yield "the kernel refused the newest rules"
    if status.is_drift_contested:
        yield "someone else keeps changing the rules"
    if status.is_drift_unhealed:
        yield "someone else changed the rules, and the repair failed"


def _page(reasons: tuple[str, ...]) -> Response:
    if not reasons:
        return plain(HTTPStatus.OK, "ok\n")
    return plain(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{reason}\n" for reason in reasons))
