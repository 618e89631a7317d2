"""Where no definitions can be enforced, what is in force stays; else §9.2 says what becomes of the host."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.agent.step import Step, StepEnd
from sgagent.compiler.source_way import open_way
from sgagent.core.binding import Link
from sgagent.core.endpoints import Endpoint, exempt
from sgagent.core.errors import KernelRefusedError
from sgagent.core.model import UDP
from sgagent.core.policy import Exemption
from sgagent.nft.ruleset import Rule, SetMark
from tests.fakes.dataplane import FakeDataplane
from tests.unit.agent.machine import GOOD, Machine
from tests.unit.agent.test_boot import links
from tests.unit.agent.test_steps import BROKEN

HERE, ELSEWHERE = Endpoint.at("192.0.2.10", 443), Endpoint.at("192.0.2.11", 443)
DNS = Endpoint.at("192.0.2.53", 53, UDP)
FAIL_CLOSED = "[enforcement]\nfail_closed = true\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a host that has enforced nothing yet."""
    return Machine(tmp_path / "state")


def test_a_host_without_named_interfaces_is_closed_where_hardware_is(machine: Machine) -> None:
    """No bridge, tunnel or veth is closed, and a link that appears later is, within the same run (§9.2)."""
    machine.host.set_link(Link(name="docker0", index=7, mac_address="02:00:00:00:00:07"))
    agent = machine.reconciler(FAIL_CLOSED)
    first = agent.step(fetch=True)
    assert (first.outcome, first.is_closed, links(first)) == (StepEnd.APPLIED, True, ["eth0"])
    machine.host.add_link("eth1", "02:00:00:00:00:02")
    second = agent.step(fetch=False)
    assert (second.outcome, second.is_closed, links(second)) == (StepEnd.APPLIED, True, ["eth0", "eth1"])


def test_a_new_host_without_documents_is_as_intended(machine: Machine) -> None:
    """It waits for documents and its source is well, unless there are errors or the source is lost."""
    machine.source.is_empty = True
    agent = machine.reconciler()
    step = agent.step(fetch=True)
    assert (step.outcome, step.awaits_documents, step.source_error) == (StepEnd.WAITING, True, None)
    machine.source.write(BROKEN)
    step = agent.step(fetch=True)
    assert (step.awaits_documents, step.is_refused) == (False, True)
    machine.source.is_empty = False
    machine.source.remove()
    step = machine.reconciler().step(fetch=True)
    assert (step.awaits_documents, step.source_error is None) == (False, False)


def test_a_host_that_enforced_misses_its_documents(machine: Machine) -> None:
    """An emptied directory is a source that is down: over a restart, and where the host is closed (§9.2)."""
    machine.source.is_empty = True
    closed = machine.reconciler(FAIL_CLOSED).step(fetch=True)
    assert (closed.is_closed, closed.awaits_documents, closed.source_error is None) == (True, False, False)
    machine.source.write(GOOD)
    agent = machine.reconciler()
    agent.step(fetch=True)
    machine.source.remove()
    for step in (agent.step(fetch=True), machine.reconciler().step(fetch=True)):
        assert step.version is not None
        assert "holds no document" in (step.source_error or "")


def test_a_closed_host_is_known_for_one_after_a_restart(machine: Machine) -> None:
    """The table of a closed host is no policy that an earlier agent left."""
    machine.reconciler(FAIL_CLOSED).step(fetch=True)
    step = machine.reconciler(FAIL_CLOSED).step(fetch=True)
    assert (step.outcome, step.is_closed, step.is_standing) == (StepEnd.UNCHANGED, True, False)


def test_rules_of_an_earlier_agent_stay(machine: Machine, tmp_path: Path) -> None:
    """A table that stands is better than a closed host, and the step says that it is all there is."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    standing = machine.dataplane.ruleset
    machine.source.remove()
    for kept in (tmp_path / "state" / "history").iterdir():
        kept.write_text("scribble")
    step = machine.reconciler(FAIL_CLOSED).step(fetch=True)
    assert (step.outcome, step.is_closed, step.is_standing) == (StepEnd.WAITING, False, True)
    assert machine.dataplane.ruleset == standing


@pytest.mark.parametrize("configuration", ("", FAIL_CLOSED), ids=("has enforced", "closes"))
def test_a_host_whose_rules_go_closes_at_once(machine: Machine, tmp_path: Path, configuration: str) -> None:
    """The look of each second finds that the rules of an earlier agent are gone."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    machine.source.remove()
    for kept in (tmp_path / "state" / "history").iterdir():
        kept.write_text("scribble")
    agent = machine.reconciler(configuration)
    assert (agent.step(fetch=True).is_standing, agent.has_drifted()) == (True, False)
    machine.dataplane.ruleset = None
    assert agent.has_drifted()
    assert agent.step(fetch=False).is_closed
    assert not agent.has_drifted()


def test_a_host_whose_rules_go_stays_where_nothing_was_enforced(machine: Machine, tmp_path: Path) -> None:
    """An agent that knows of no definitions closes nothing, and asks for no step again and again."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    machine.source.remove()
    shutil.rmtree(tmp_path / "state")
    agent = machine.reconciler()
    assert agent.step(fetch=True).is_standing
    machine.dataplane.ruleset = None
    assert agent.has_drifted()
    step = agent.step(fetch=False)
    assert (step.outcome, step.is_closed, step.is_standing) == (StepEnd.WAITING, False, False)
    assert not agent.has_drifted()


def test_definitions_end_it(machine: Machine) -> None:
    """A closed host follows the first definitions that can be enforced, and they stay when they are gone."""
    agent = machine.reconciler(FAIL_CLOSED)
    assert agent.step(fetch=True).is_closed
    machine.source.write(GOOD)
    opened = agent.step(fetch=True)
    assert (opened.outcome, opened.is_closed) == (StepEnd.APPLIED, False)
    machine.source.remove()
    after = agent.step(fetch=True)
    assert (after.outcome, after.is_closed, after.version) == (StepEnd.UNCHANGED, False, opened.version)


def test_the_way_to_the_source_is_opened_in_rules_that_stay(machine: Machine, tmp_path: Path) -> None:
    """An agent that lost its state gets through to a source that has moved (§7.4)."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    before = machine.dataplane.ruleset
    assert before is not None
    machine.source.remove()
    machine.counters_at_zero.clear()
    shutil.rmtree(tmp_path / "state")
    machine.source.reached_at = (HERE,)
    agent = machine.reconciler()
    step = agent.step(fetch=True)
    assert (step.outcome, step.is_standing, step.opened_to) == (StepEnd.WAITING, True, (HERE,))
    assert machine.dataplane.ruleset == open_way(before, [HERE])
    assert machine.counters_at_zero == []
    assert agent.step(fetch=True).opened_to == ()
    machine.source.reached_at = (ELSEWHERE,)
    assert agent.step(fetch=True).opened_to == (ELSEWHERE,)
    assert machine.dataplane.ruleset == open_way(before, [ELSEWHERE])
    machine.source.reached_at = ()
    machine.source.write(GOOD)
    assert agent.step(fetch=True).outcome is StepEnd.APPLIED
    assert machine.dataplane.ruleset == before


@pytest.mark.parametrize("is_readable", (True, False), ids=("readable", "unreadable"))
def test_rules_of_others_in_the_way_are_named(machine: Machine, tmp_path: Path, *, is_readable: bool) -> None:
    """They stay, as it is not known what for; who looks why the source is lost is told to delete them."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    table, others = machine.dataplane.ruleset, (Rule((SetMark(keep=1, put=1),)),)
    assert table is not None
    if is_readable:
        chains = (
            replace(chain, rules=chain.rules + others) if chain.name == "postrouting" else chain
            for chain in table.chains
        )
        machine.dataplane.ruleset = table = replace(table, chains=tuple(chains))
    else:
        machine.dataplane.foreign = ("rule postrouting",)
    machine.source.remove()
    shutil.rmtree(tmp_path / "state")
    machine.source.reached_at = (HERE,)
    step = machine.reconciler().step(fetch=True)
    assert (step.is_standing, step.opened_to, step.kernel_error) == (True, (), None)
    assert machine.dataplane.ruleset == table
    assert "the way to it stays closed, as other programs have rules in postrouting" in str(step.source_error)


def test_name_servers_are_let_through_until_the_source_is_found(machine: Machine, tmp_path: Path) -> None:
    """Only as long as there are no definitions; with some, only the source is on the list (§7.4)."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    machine.source.remove()
    shutil.rmtree(tmp_path / "state")
    agent = machine.reconciler(name_servers=lambda: (DNS,))
    assert agent.step(fetch=True).opened_to == (DNS,)
    machine.source.write(GOOD)
    agent.step(fetch=True)
    assert failsafes(agent.step(fetch=True)) == ()
    machine.source.remove()
    for _ in range(3):
        assert failsafes(agent.step(fetch=True)) == ()
        machine.clock.pass_seconds(3600.0)


def test_a_closed_host_finds_its_source(machine: Machine) -> None:
    """A host that is closed before it ever reached its source may still ask where that is."""
    step = machine.reconciler(FAIL_CLOSED, name_servers=lambda: (DNS,)).step(fetch=True)
    assert (step.is_closed, failsafes(step)) == (True, exempt([DNS]))


def test_a_closed_host_whose_definitions_are_damaged_finds_its_source(machine: Machine) -> None:
    """What was kept counts as nothing as soon as it proves to be unreadable, in the same step."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    machine.source.remove()
    machine.dataplane.ruleset = None
    small = f"[limits]\ndocument_bytes = 10\n{FAIL_CLOSED}"
    step = machine.reconciler(small, name_servers=lambda: (DNS,)).step(fetch=True)
    assert (step.is_closed, failsafes(step)) == (True, exempt([DNS]))


def failsafes(step: Step) -> tuple[Exemption, ...]:
    """Return what no group can block on the first interface outwards."""
    assert step.policy is not None
    return step.policy.interfaces[0].egress.failsafe


def test_damage_is_reported_though_the_kernel_refuses_to_close_the_host(machine: Machine) -> None:
    """What is wrong with a kept file depends on no kernel; it is noted once, over any number of steps."""
    machine.source.write(GOOD.replace("[10.0.0.11]", "[10.0.0.11, 10.0.0.12]"))
    machine.reconciler().step(fetch=True)
    machine.source.remove()
    machine.dataplane = FakeDataplane()
    agent = machine.reconciler("[limits]\naddresses = 1\n")
    for outcome in (StepEnd.REFUSED, StepEnd.REFUSED, StepEnd.APPLIED):
        is_refused = outcome is StepEnd.REFUSED
        machine.dataplane.refusal = KernelRefusedError("No space left on device") if is_refused else None
        assert agent.step(fetch=True).outcome is outcome
        (fault,) = agent.state_faults
        assert "more than 1 addresses" in fault
    assert agent.definitions.kept is None
