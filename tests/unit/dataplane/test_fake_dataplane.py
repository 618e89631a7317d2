"""The fake data plane keeps the contract of the real one."""

from __future__ import annotations

import pytest

from sgagent.core.errors import KernelRefusedError
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import MarkTest
from sgagent.nft.transactions import AddTable
from sgagent.ports import CounterValue, Observed
from tests.contract import tables
from tests.contract.dataplane import DataplaneContract, bring
from tests.fakes.dataplane import FakeDataplane


@pytest.fixture
def dataplane() -> FakeDataplane:
    """Return a data plane without a table."""
    return FakeDataplane()


class TestFakeDataplane(DataplaneContract):
    """Everything that the kernel is held to."""


def test_counts_go_on_over_applies(dataplane: FakeDataplane) -> None:
    """A counter that stands keeps its value."""
    bring(dataplane, tables.WHOLE)
    dataplane.count("rule/eth0/web", 2, 120)
    bring(dataplane, tables.ANOTHER_VERDICT)
    assert dataplane.read_counters()["rule/eth0/web"] == CounterValue(2, 120)


def test_foreign_things_are_removed_by_a_plan(dataplane: FakeDataplane) -> None:
    """What was foreign is gone after the plan that names it."""
    bring(dataplane, tables.WHOLE)
    dataplane.foreign = (
        "chain nat",
        "ct helper ftp",
        "policy prerouting",
        "rule ingress/eth0",
        "set evil",
        "table sgagent",
    )
    assert isinstance(bring(dataplane, tables.WHOLE).operations[0], AddTable)
    assert dataplane.observe() == Observed(ruleset=tables.WHOLE)


def test_marks_are_cleared_by_mask_and_test(dataplane: FakeDataplane) -> None:
    """Only bits of the mask go, and only of marks that meet a test."""
    dataplane.marks = [0x10001, 0x20001, 0x40001, 0x1]
    tests = (MarkTest(0x20000, 0x20000), MarkTest(0x70000, 0x40000))
    assert dataplane.clear_marks(0xFFFF0000, tests) == 2
    assert dataplane.marks == [0x10001, 0x1, 0x1, 0x1]
    assert dataplane.clear_marks(0xFFFF0000) == 1
    assert dataplane.marks == [0x1, 0x1, 0x1, 0x1]


def test_a_refusal_can_be_ordered(dataplane: FakeDataplane) -> None:
    """Tests of callers can let the kernel refuse."""
    dataplane.refusal = KernelRefusedError("File exists", "chain x")
    with pytest.raises(KernelRefusedError, match="chain x: File exists"):
        dataplane.apply(make_plan(tables.WHOLE, None))
    assert dataplane.observe() == Observed(ruleset=None)
