"""No fault of the agent lets denied packets in, ends an allowed session, or loses a count."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from integration.agent_under_traffic import OPEN, AgentUnderTraffic, agent_under_traffic, count_losses
from integration.faults import FAULTS, Fault
from integration.lab import wait_for
from integration.parts import with_parts
from integration.reliability import DEATHS_PART, DOCUMENT, FAULTS_PART, SOAK_PART, STORM_PART, try_fault
from integration.stormpairs import KINDS

QUICK = [fault for fault in FAULTS if fault.quick_tries]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("fault", QUICK, ids=[fault.strike.__name__ for fault in QUICK])
def test_a_fault_costs_nothing(fault: Fault, tmp_path: Path) -> None:
    """All denied packets stay out, allowed sessions go on, and everything is counted."""
    outcome = try_fault(fault, fault.quick_tries, tmp_path, Random(11))
    assert outcome.losses.tried > 0
    assert outcome.losses.broken == 0
    assert fault.may_leak or outcome.losses.leaked == 0
    assert fault.may_keep_out or outcome.losses.kept_out == 0
    assert fault.may_miscount or outcome.losses.uncounted == 0


def counted(made: AgentUnderTraffic, name: str) -> int:
    """Return how many packets were counted before or behind the agent."""
    return made.lab.counters("testwatch")[name][0]


def test_an_open_host_is_noticed(tmp_path: Path) -> None:
    """The tests above can fail: without the table denied packets get in, and are missed in the counters."""
    with agent_under_traffic(tmp_path, Random(1)) as made:
        made.service.kill()
        made.service.namespace.nft("delete table inet sgagent")
        wait_for(lambda: counted(made, "leaked") > 0, "a denied packet")
        made.service.start()
        paid = count_losses(made)
    assert paid.leaked > 0
    assert paid.uncounted > 0


def test_a_shut_host_is_noticed(tmp_path: Path) -> None:
    """They can fail the other way too: packets that somebody else drops are missed."""
    with agent_under_traffic(tmp_path, Random(1)) as made:
        made.lab.load(
            "table inet somebody {\nchain c {\ntype filter hook prerouting priority -149; policy accept;\n"
            f"tcp dport {OPEN} drop\n}}\n}}\n"
        )
        wait_for(lambda: counted(made, "came_open") > counted(made, "entered"), "a packet that is dropped")
        paid = count_losses(made)
    assert paid.leaked == 0
    assert paid.kept_out > 0


def test_the_document_has_the_tables() -> None:
    """A row for each fault, each kind of change and each process that is killed, and the soak."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [fault.name for fault in FAULTS if f"| {fault.name} |" not in text] == []
    assert "| memory of the applier, MiB |" in text
    assert [name for name in KINDS if f"| {name} (" not in text] == []
    assert "| the daemon |" in text
    assert "| the applier |" in text
    parts = (FAULTS_PART, STORM_PART, DEATHS_PART, SOAK_PART)
    changed = with_parts(text, {part: f"{part} anew\n" for part in parts})
    for part in parts:
        assert f"begin -->\n{part} anew\n<!-- {part}: end" in changed
