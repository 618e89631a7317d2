"""A bound link that becomes a port of a bridge or bond is reported, and other links are enforced (§9.4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.agent.posture import InterfaceState, Posture
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.status import Status, status_after
from sgagent.agent.step import Step, StepEnd, StepLog
from sgagent.core.binding import Link
from sgagent.core.model import Mode
from tests.fakes.log import FakeLog
from tests.unit.agent.machine import GOOD, MAC, Machine

BY_HAND = '[[interface]]\nname = "eth0"\nsecurity_group_ids = ["sg-1"]\n'
TWO = BY_HAND + '[[interface]]\nname = "eth1"\nsecurity_group_ids = ["sg-1"]\n'
NEXT = GOOD.replace("10.0.0.11", "10.0.0.12")
ETH0 = Link(name="eth0", index=2, mac_address=MAC, has_hardware=True)
KINDS = ("bridge", "bond", "team", "openvswitch")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a host with definitions and two links."""
    made = Machine(tmp_path / "state")
    made.host.add_link("eth1", "02:00:00:00:00:02")
    made.source.write(GOOD)
    return made


def put_on(machine: Machine, kind: str) -> None:
    """Make eth0 the port of a master of a kind."""
    machine.host.set_link(replace(ETH0, master="m0", master_kind=kind))


def status(step: Step) -> Status:
    """Return the status after a step."""
    return status_after(Status(), step, is_fetched=True, now=1.0)


def states(step: Step) -> dict[str, tuple[InterfaceState, str | None, Mode | None]]:
    """Return what becomes of each link."""
    return {one.name: (one.state, one.port_of, one.mode) for one in status(step).interfaces}


def names(step: Step) -> list[str]:
    """Return the links that have rules."""
    return [interface.name for interface in step.policy.interfaces] if step.policy else []


def agents(machine: Machine) -> dict[str, Reconciler]:
    """Return an agent to which eth0 is bound by hand, and one that finds it by its MAC."""
    return {"by hand": machine.reconciler(BY_HAND), "by MAC": machine.reconciler()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ("by hand", "by MAC"))
def test_a_link_that_becomes_a_port_is_not_called_judged(machine: Machine, kind: str, how: str) -> None:
    """Nothing says that it is enforced; the error names the master; what is in the kernel stays as it is."""
    agent = agents(machine)[how]
    agent.step(fetch=True)
    table = machine.dataplane.ruleset
    put_on(machine, kind)
    step = agent.step(fetch=False)
    (problem,) = (one for one in step.problems if one.code == "port_of_master")
    assert "m0" in str(problem)
    assert states(step)["eth0"] == (InterfaceState.PORT, f"{kind} m0", None)
    assert status(step).posture is Posture.IDLE
    assert status(step).errors == 1
    assert machine.dataplane.ruleset == table


@pytest.mark.parametrize("how", ("by hand", "by MAC"))
def test_it_is_judged_again_when_it_is_no_port(machine: Machine, how: str) -> None:
    """Nothing has to be done for that: its rules were there all the time."""
    agent = agents(machine)[how]
    agent.step(fetch=True)
    put_on(machine, "bridge")
    agent.step(fetch=False)
    machine.host.set_link(ETH0)
    step = agent.step(fetch=False)
    assert (step.outcome, step.problems) == (StepEnd.UNCHANGED, ())
    assert states(step)["eth0"] == (InterfaceState.BOUND, None, Mode.ENFORCE)
    assert status(step).posture is Posture.ENFORCING


def test_a_port_of_a_vrf_is_judged(machine: Machine) -> None:
    """A VRF does not hide by which link a packet came."""
    agent = machine.reconciler(BY_HAND)
    agent.step(fetch=True)
    put_on(machine, "vrf")
    step = agent.step(fetch=False)
    assert states(step)["eth0"] == (InterfaceState.BOUND, None, Mode.ENFORCE)
    assert step.problems == ()


@pytest.mark.parametrize("strict", ("", "[enforcement]\nstrict = true\n"), ids=("lenient", "strict"))
def test_other_links_get_newer_definitions(machine: Machine, strict: str) -> None:
    """One link that was put on a bridge does not freeze the policy of the host."""
    agent = machine.reconciler(strict + TWO)
    first = agent.step(fetch=True)
    put_on(machine, "bridge")
    agent.step(fetch=False)
    machine.source.write(NEXT)
    step = agent.step(fetch=True)
    assert step.version not in (None, first.version)
    assert (step.outcome, step.is_refused, names(step)) == (StepEnd.APPLIED, False, ["eth0", "eth1"])
    assert status(step).posture is Posture.ENFORCING
    assert states(step)["eth1"] == (InterfaceState.BOUND, None, Mode.ENFORCE)


def test_a_host_that_boots_with_a_port_is_not_closed(machine: Machine) -> None:
    """The kept definitions are enforced on the other links, though the source is away."""
    machine.reconciler(TWO).step(fetch=True)
    machine.source.remove()
    machine.dataplane.ruleset = None
    put_on(machine, "bond")
    step = machine.reconciler(TWO).step(fetch=True)
    assert (step.outcome, step.is_closed, names(step)) == (StepEnd.APPLIED, False, ["eth0", "eth1"])
    assert states(step)["eth0"][0] is InterfaceState.PORT


def test_a_link_that_comes_into_being_as_a_port(machine: Machine) -> None:
    """A link that is bound by name is named whenever it comes."""
    machine.host.remove_link("eth0")
    agent = machine.reconciler(BY_HAND)
    step = agent.step(fetch=True)
    assert states(step)["eth0"][0] is InterfaceState.ABSENT
    put_on(machine, "bridge")
    step = agent.step(fetch=False)
    assert states(step)["eth0"][0] is InterfaceState.PORT
    machine.host.set_link(ETH0)
    assert states(agent.step(fetch=False))["eth0"][0] is InterfaceState.BOUND


def test_an_unbound_port_is_nobodys_concern(machine: Machine) -> None:
    """Only what has rules is said to be judged."""
    machine.host.set_link(Link(name="eth1", index=3, master="br0", master_kind="bridge"))
    step = machine.reconciler(BY_HAND).step(fetch=True)
    assert states(step)["eth1"][0] is InterfaceState.UNBOUND
    assert step.problems == ()


def test_the_bond_that_shares_the_mac_is_judged(machine: Machine) -> None:
    """A network interface that is found by its MAC moves on to the bond, which its packets show as."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    put_on(machine, "bond")
    machine.host.set_link(Link(name="m0", index=9, mac_address=MAC))
    step = agent.step(fetch=False)
    assert (names(step), step.problems) == (["m0"], ())
    assert states(step)["eth0"] == (InterfaceState.LOWER_DEVICE, "bond m0", Mode.ENFORCE)


def test_health_and_log_say_it_once(machine: Machine) -> None:
    """The page for load balancers fails as long as it lasts; the log has each change of it."""
    log = FakeLog()
    told, published = StepLog(log), PublishedStatus(machine.clock, lambda _: True)
    agent = machine.reconciler(BY_HAND)

    def step() -> None:
        done = agent.step(fetch=True)
        told.log(done)
        published.note_step(done, is_fetched=True)

    step()
    put_on(machine, "bridge")
    step()
    step()
    reasons = published.reasons_not_ready()
    assert "eth0 is a port of the bridge m0, so its packets are not judged" in reasons
    assert log.events().count("interface_not_judged") == 1
    machine.host.set_link(ETH0)
    step()
    assert published.reasons_not_ready() == ()
    assert log.events().count("interface_no_port_any_more") == 1
    assert log.events().count("interface_not_judged") == 1
