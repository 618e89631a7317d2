"""What an agent leaves of its table, and which later agent believes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sgagent.agent.reconciler import Reconciler
from sgagent.agent.state.tables import STANDING_FILE, StandingTable, StandingTableFile
from sgagent.agent.step import StepEnd
from sgagent.nft.ruleset import Ruleset
from tests.unit.agent.machine import GOOD, Machine

BOOT = "this boot"
OPEN_WEB = GOOD.replace(
    "  - security_group_id: sg-1\n",
    """  - security_group_id: sg-1
    rules:
      - {direction: ingress, policy: accept, protocol: tcp, port_range: 80/80,
         authorization_object: 0.0.0.0/0}
""",
)


def enforced(agent: Reconciler) -> Ruleset:
    """Have an agent do its first step, and return the table that it left."""
    agent.step(fetch=True)
    assert agent.settled_table is not None
    return agent.settled_table


def next_agent(machine: Machine, left: StandingTable) -> Reconciler:
    """Return an agent that takes up a table that nobody has listed since."""
    machine.dataplane.is_left_unlisted = True
    agent = machine.reconciler()
    agent.left_table = left
    return agent


def test_the_next_agent_knows_what_stands(machine: Machine) -> None:
    """It compiles the table that was left, and does nothing to it."""
    table = enforced(machine.reconciler())
    agent = next_agent(machine, StandingTable.of(table, BOOT, 1, 2))
    assert agent.step(fetch=True).outcome is StepEnd.UNCHANGED
    assert machine.dataplane.recognized == [table]
    agent.step(fetch=True)
    assert len(machine.dataplane.recognized) == 1, "in the first step alone"


def test_with_other_definitions_the_table_is_listed(machine: Machine) -> None:
    """What the next agent would enforce is not what stands."""
    table = enforced(machine.reconciler())
    machine.source.write(OPEN_WEB)
    agent = next_agent(machine, StandingTable.of(table, BOOT, 1, 2))
    assert agent.step(fetch=True).outcome is StepEnd.APPLIED
    assert machine.dataplane.recognized == []


def test_with_other_bits_of_the_mark_the_table_is_listed(machine: Machine) -> None:
    """What the table says of marks has another meaning then."""
    table = enforced(machine.reconciler())
    left = StandingTable.of(table, BOOT, 1, 2)
    agent = next_agent(machine, replace(left, state=left.state.replace("0xffff0000", "0xfff00000")))
    agent.step(fetch=True)
    assert machine.dataplane.recognized == []


def test_a_map_under_its_second_name_is_found_again(machine: Machine) -> None:
    """A change of rules and members together has them change places."""
    web = OPEN_WEB.replace("0.0.0.0/0", "10.9.0.0/16")
    machine.source.write(web)
    agent = machine.reconciler()
    enforced(agent)
    machine.source.write(web.replace("10.9.0.0/16", "10.8.0.0/16").replace("80/80", "81/81"))
    agent.step(fetch=True)
    assert agent.settled_table is not None
    left = StandingTable.of(agent.settled_table, BOOT, 1, 2)
    assert next_agent(machine, left).step(fetch=True).outcome is StepEnd.UNCHANGED
    assert machine.dataplane.recognized == [agent.settled_table]


def test_a_file_is_taken_once(tmp_path: Path, machine: Machine) -> None:
    """Whoever takes it leaves none to believe later."""
    table, file = enforced(machine.reconciler()), StandingTableFile(tmp_path, BOOT)
    file.keep(table, 7, 12)
    assert file.take() == StandingTable.of(table, BOOT, 7, 12)
    assert not (tmp_path / STANDING_FILE).exists()
    assert file.take() is None


def test_a_file_of_another_boot_is_of_no_use(tmp_path: Path, machine: Machine) -> None:
    """The kernel numbers rulesets anew; the file goes all the same."""
    StandingTableFile(tmp_path, "the boot before").keep(enforced(machine.reconciler()), 7, 12)
    assert StandingTableFile(tmp_path, BOOT).take() is None
    assert not (tmp_path / STANDING_FILE).exists()


def test_a_damaged_file_is_none(tmp_path: Path, machine: Machine) -> None:
    """It has a checksum, as all that the agent keeps."""
    file = StandingTableFile(tmp_path, BOOT)
    file.keep(enforced(machine.reconciler()), 7, 12)
    path = tmp_path / STANDING_FILE
    path.write_bytes(path.read_bytes().replace(b"12", b"13"))
    assert file.take() is None
    assert not path.exists()


def test_a_directory_that_takes_nothing_keeps_nothing(tmp_path: Path, machine: Machine) -> None:
    """The next agent lists the table, as after a crash."""
    (tmp_path / "file").write_text("no directory")
    file = StandingTableFile(tmp_path / "file", BOOT)
    file.keep(enforced(machine.reconciler()), 7, 12)
    assert file.take() is None
