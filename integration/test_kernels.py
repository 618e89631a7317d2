"""Kernels of other suites decide, remember and are restarted on as this suite's does.

The tests are those of the other modules, run in a guest. Below Linux 6.9 nobody can own a table: what is
about that is left out there.
"""

from __future__ import annotations

import pytest

from integration.stockkernel import of_suite, release_of, run_tests, why_not

CHOSEN = (
    *("test_examples.py", "test_daemon_life.py", "test_check_text.py::test_a_rendered_table_is_accepted"),
    "test_units.py",
    "test_dataplane.py::TestLibnftablesDataplane",
    "test_sessions_in_kernel.py",
    "test_sessions.py",
    "test_storm.py::test_a_change_is_one_moment[drop_on_a_list]",
    "test_storm.py::test_a_change_is_one_moment[network_is_cut]",
    "test_storm.py::test_a_change_is_one_moment[map_of_udp_ranges]",
)
SECONDS = 3600.0

pytestmark = [pytest.mark.machines, pytest.mark.long]


@pytest.mark.parametrize("suite", ("bullseye", "bookworm", "sid"))
def test_it_does_as_it_should(suite: str) -> None:
    """Verdicts, sessions, restarts, the data plane's contract, and changes under a storm."""
    if reason := why_not(of_suite(suite)):
        pytest.skip(reason)
    report = run_tests([f"integration/{name}" for name in CHOSEN], seconds=SECONDS, kernel=of_suite(suite))
    assert report.release == release_of(of_suite(suite))
    failures = {f"{case.module} {case.name}": case.failure for case in report.cases if case.failure}
    assert failures == {}
    assert len(report.cases) >= 100, report.console
