"""The probes of service managers and load balancers."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.web.page import Page, Response, plain


def health_pages(published: PublishedStatus) -> Mapping[str, Page]:
    """Return the probes by their paths: whether the agent is alive, and enforces the newest definitions."""
    return {
        "/healthz": lambda _: _probe(published.reasons_not_alive()),
        "/readyz": lambda _: _probe(published.reasons_not_ready()),
    }


def _probe(reasons: tuple[str, ...]) -> Response:
    if not reasons:
        return plain(HTTPStatus.OK, "ok\n")
    return plain(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{reason}\n" for reason in reasons))
