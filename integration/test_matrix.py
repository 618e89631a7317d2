"""Kernels from 5.10 to the newest, with the distributions that they are of."""

from __future__ import annotations

import pytest

from integration.matrix import ROWS, Row, failures, try_row, why_no_row

pytestmark = [pytest.mark.machines, pytest.mark.long]


@pytest.mark.parametrize("row", ROWS, ids=[row.suite for row in ROWS])
def test_it_runs_there(row: Row) -> None:
    """Demo, 100 changes under a storm, kill, boot, proof, flush, and 40 random policies, by real packets."""
    if reason := why_no_row(row):
        pytest.skip(reason)
    report = try_row(row)
    assert failures(report) == {}
    assert len(report.cases) >= 5, report.console
