"""A Host header with a foreign name is refused."""

from __future__ import annotations

import pytest

from sgagent.agent.web.routes import is_own_host

OWN = frozenset({"web-1", "metrics.example"})


@pytest.mark.parametrize(
    "host",
    (
        None,
        "127.0.0.1",
        "127.0.0.1:9469",
        "10.0.0.11:80",
        "[::1]:9469",
        "[2001:db8::1]",
        "localhost:9469",
        "LOCALHOST.",
        "web-1.localhost",
        "Web-1:9469",
        "metrics.example:9469",
    ),
)
def test_who_asks_by_address_or_own_name_is_own_host(host: str | None) -> None:
    """No other site can own these names."""
    assert is_own_host(host, OWN)


@pytest.mark.parametrize(
    "host",
    (
        "",
        "evil.example",
        "web-1.evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:9469",
        "127.0.0.1@evil.example",
        "[::1",
        "::1",
        "2130706433.evil.example",
        "web-1/evil.example",
        "127.0.0.1, evil.example",
    ),
)
def test_any_other_name_may_be_somebody_elses(host: str) -> None:
    """Its owner can resolve it to this host."""
    assert not is_own_host(host, OWN)
