"""The demo shows facts, and says so by its exit code."""

from __future__ import annotations

import pytest

from integration import demo
from sgagent.core.model import Policy


def test_it_shows_flows_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    """A case is shown with its flows, their deciders and hits, and with the daemon's metrics."""
    assert demo.main(["1-web", "6t-the-trap"]) == 0
    shown = capsys.readouterr().out
    assert "anyone reaches HTTPS" in shown
    assert 'sgagent_default_packets_total{direction="ingress",interface="eth0",verdict="drop"} 0.0' in shown
    assert "2 cases, 13 flows, 0 mismatches, 2 tables proved" in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize(
    "case",
    (
        pytest.param("9-source-check", id="a spoofed source stays so", marks=pytest.mark.long),
        pytest.param("11-interface-pattern", id="links come after the agent", marks=pytest.mark.long),
        pytest.param("shop/bastion", id="what goes out is answered", marks=pytest.mark.long),
        pytest.param("10-names", id="names are answered as stated"),
    ),
)
def test_a_case_is_shown_as_it_is(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what its packets need: foreign sources, links of patterns, both ends of pings, a name server."""
    assert demo.main([case]) == 0
    assert " 0 mismatches, 1 tables proved" in capsys.readouterr().out


def test_a_case_that_is_not_there_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing shown is nothing proved: a name that no example has is said, with those that there are."""
    assert demo.main(["1-web", "no-such-case"]) == 2
    told = capsys.readouterr()
    assert not told.out
    assert "no such case: 'no-such-case'" in told.err
    assert "6t-the-trap" in told.err


def test_a_mismatch_stands_out() -> None:
    """A flow that is not as expected says so below its line."""
    row = demo.Row("a", Policy.DROP, Policy.ACCEPT, "default", 1, "drop was expected, accept was seen")
    assert "MISMATCH: drop was expected, accept was seen" in str(row)
