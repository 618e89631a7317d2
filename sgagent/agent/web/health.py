"""Say whether the agent lives, and whether the host is as its definitions want it, for probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus

from sgagent.agent.published_status import Board
from sgagent.agent.status import Posture, Status
from sgagent.agent.web.responses import Page, Response, plain
from sgagent.ports import Clock

LONGEST_TURN_SECONDS = 30.0
"""For one turn of the loop. The largest policies take seconds to enforce for the first time."""

STALE_SECONDS = 300.0
"""After which a source that can't be reached makes what is in force too old to trust."""

_LACKS = {
    Posture.NOTHING: "nothing is enforced",
    Posture.IDLE: "nothing is enforced, as the definitions judge no interface of this host",
    Posture.CLOSED: "the host is closed, for lack of a snapshot",
    Posture.STANDING: "only rules that an earlier agent left are in force, for lack of a snapshot",
}
"""Postures in which no snapshot decides about anything."""


def health_pages(board: Board, clock: Clock) -> Mapping[str, Page]:
    """Return the pages ``/healthz`` and ``/readyz`` by their paths."""
    return {
        "/healthz": lambda _: _page(reasons_not_alive(board)),
        "/readyz": lambda _: _page(reasons_not_ready(board, clock)),
    }


def reasons_not_alive(board: Board) -> tuple[str, ...]:
    """Return why the agent should be started anew; nothing if it is alive."""
    seconds = board.seconds_since_turn()
    if seconds <= LONGEST_TURN_SECONDS:
        return ()
    return (f"the loop has not turned for {seconds:.0f} seconds",)


def reasons_not_ready(board: Board, clock: Clock) -> tuple[str, ...]:
    """Return why the host is not as its newest definitions want it; nothing if it is."""
    failed = ("the last step could not be done",) if board.step_fault() else ()
    return (*reasons_not_alive(board), *failed, *_shortcomings(board.status(), clock.now()))


def _shortcomings(status: Status, now: float) -> Iterator[str]:
    if status.posture in _LACKS:
        yield _LACKS[status.posture]
    for interface in status.interfaces:
        if interface.port_of is not None:
            yield f"{interface.name} is a port of the {interface.port_of}, so its packets are not judged"
    if status.is_source_up is False:
        if status.source_reached_at is None:
            yield "the source could not be reached since the agent started"
        elif now - status.source_reached_at > STALE_SECONDS:
            yield f"the source could not be reached for {now - status.source_reached_at:.0f} seconds"
    if status.is_refused:
        yield "the newest definitions have errors, and older ones are in force"
    if status.kernel_error is not None:
        yield "the kernel refused the newest rules"
    if status.is_drift_contested:
        yield "someone else changes the rules again and again"
    if status.is_drift_unhealed:
        yield "someone else changed the rules, and that could not be mended"


def _page(reasons: tuple[str, ...]) -> Response:
    if not reasons:
        return plain(HTTPStatus.OK, "ok\n")
    return plain(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{reason}\n" for reason in reasons))
