"""Nothing that befalls the agent lets in what is denied, ends what is allowed, or loses a count."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from integration.faults import FAULTS, Fault
from integration.ordeal import OPEN, ordeal, toll
from integration.reliability import suffer

QUICK = [fault for fault in FAULTS if fault.quick_tries]


@pytest.mark.parametrize("fault", QUICK, ids=[fault.strike.__name__ for fault in QUICK])
def test_a_fault_costs_nothing(fault: Fault, tmp_path: Path) -> None:
    """All that is denied stays out, what is allowed goes on, and everything is counted."""
    outcome = suffer(fault, fault.quick_tries, tmp_path, Random(11))
    assert outcome.toll.tried > 0
    assert outcome.toll.broken == 0
    assert fault.may_leak or outcome.toll.leaked == 0
    assert fault.may_keep_out or outcome.toll.kept_out == 0
    assert fault.may_miscount or outcome.toll.uncounted == 0


def test_an_open_host_is_noticed(tmp_path: Path) -> None:
    """The tests above can fail: without the table what is denied gets in, and is missed in the counters."""
    with ordeal(tmp_path, Random(1)) as made:
        made.service.kill()
        made.service.namespace.nft("delete table inet sgagent")
        made.a_moment(0.2)
        made.service.start()
        paid = toll(made)
    assert paid.leaked > 0
    assert paid.uncounted > 0


def test_a_shut_host_is_noticed(tmp_path: Path) -> None:
    """They can fail the other way too: what somebody else drops is missed."""
    with ordeal(tmp_path, Random(1)) as made:
        made.lab.load(
            "table inet somebody {\nchain c {\ntype filter hook prerouting priority -149; policy accept;\n"
            f"tcp dport {OPEN} drop\n}}\n}}\n"
        )
        made.a_moment(0.2)
        paid = toll(made)
    assert paid.leaked == 0
    assert paid.kept_out > 0
