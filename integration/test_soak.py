"""Ten thousand changes of policy leave the daemon as it was: no larger, no slower, nothing held open."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.lab import Lab
from integration.service import service_on
from integration.soak import APPLIES, footprints, soak

MOST_GROWTH = 0.05
"""After the first tenth."""

MOST_SLOWDOWN = 1.3
"""Of what is computed for an apply, as no piece of work suffers from other work exactly as another does."""


@pytest.mark.long
def test_a_daemon_never_grows(one_interface: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Members, rules and groups come and go; each change is an apply."""
    with service_on(one_interface.host, tmp_path) as service:
        done = soak(service, APPLIES, lambda _number, _seconds: None)
    with capsys.disabled():
        print("\n".join(("", *done.rows())))
    for name in done.warm:
        assert done.growth(name) <= MOST_GROWTH
        assert done.end[name].descriptors <= done.warm[name].descriptors + 2
    assert done.slowdown <= MOST_SLOWDOWN


@pytest.mark.long
def test_each_change_is_an_apply(one_interface: Lab, tmp_path: Path) -> None:
    """A short soak has as many applies as there were changes, and measures both processes."""
    told: list[int] = []
    with service_on(one_interface.host, tmp_path) as service:
        done = soak(service, 12, lambda number, _seconds: told.append(number))
        assert service.metric("sgagent_apply_total", outcome="applied") == 1 + done.applies
        assert set(footprints(service)) == {"agent", "applier"}
    assert told == []
    assert 0 < done.first.median <= done.first.worst_of_hundred
    assert 0 < done.first.processor < 1
    assert 0 < done.first.yardstick < 1
    assert all(footprint.kibibytes > 1000 for footprint in done.end.values())
