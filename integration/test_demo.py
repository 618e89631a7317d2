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


@pytest.mark.long
def test_foreign_sources_are_tried_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """A spoofed source stays so: the host gets no address of it."""
    assert demo.main(["9-source-check"]) == 0
    assert " 0 mismatches, 1 tables proved" in capsys.readouterr().out


@pytest.mark.long
def test_links_of_patterns_come_after_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    """They have another name while it starts; hits are those of the pattern."""
    assert demo.main(["11-interface-pattern"]) == 0
    assert " 0 mismatches, 1 tables proved" in capsys.readouterr().out


@pytest.mark.long
def test_what_goes_out_is_answered_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A ping that leaves the host as well: both ends of it have to be there."""
    assert demo.main(["shop/bastion"]) == 0
    assert " 0 mismatches, 1 tables proved" in capsys.readouterr().out


def test_names_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    """By a name server beyond the wire, whose answers the file of packets states."""
    assert demo.main(["10-names"]) == 0
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
