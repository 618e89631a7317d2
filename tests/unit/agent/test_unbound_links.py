"""What should be bound on this host and is not is told: status, log and metrics (§2.3)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from sgagent.agent.posture import BOUND_STATES
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.status import Status, status_after
from sgagent.agent.step import Step, StepLog
from sgagent.cli.lockout_guard import links_unbound, refuse_to_lock_out
from sgagent.core.errors import UsageError
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile
from tests.fakes.log import FakeLog
from tests.unit.agent.control.test_protocol import STATUS
from tests.unit.agent.machine import GOOD, MAC, Machine

OTHER_MAC = GOOD.replace(MAC, "02:00:00:00:00:99")
TWO = GOOD + f"  - {{network_interface_id: eni-2, mac_address: '{MAC[:-1]}2', security_group_ids: [sg-1]}}\n"
HAND = '[[interface]]\nname = "{}"\nsecurity_group_ids = ["sg-1"]\n'


def told(step: Step) -> tuple[int | None, list[str]]:
    """Return how many links are bound, and what should be and is not."""
    status = status_after(Status(), step, is_fetched=True, now=1.0)
    return status.bound_links, list(map(str, status.step.missing_links))


def test_a_network_interface_that_changed_its_mac_is_missing(machine: Machine) -> None:
    """Also for an agent that starts later; its link is open, which is an error in the log."""
    reconciler, log = machine.reconciler(), FakeLog()
    step_log = StepLog(log)
    before = reconciler.step(fetch=True)
    step_log.log(before)
    assert told(before) == (1, [])
    machine.source.write(OTHER_MAC)
    after = reconciler.step(fetch=True)
    step_log.log(after)
    assert told(after) == (0, ["eni-1, on eth0 before"])
    assert log.keys_of("interface_unbound")["interface"] == "eth0"
    assert told(machine.reconciler().step(fetch=True)) == (0, ["eni-1, on eth0 before"])
    machine.source.write(GOOD)
    assert told(reconciler.step(fetch=True)) == (1, [])


def test_a_link_that_is_bound_by_name_and_renamed_is_an_error_in_the_log(machine: Machine) -> None:
    """It is open; one that goes is none, nor one that comes under a name that was never bound."""
    machine.source.write(OTHER_MAC)
    reconciler, log = machine.reconciler(HAND.format("eth0")), FakeLog()
    step_log = StepLog(log)
    step_log.log(reconciler.step(fetch=True))
    (eth0,) = (link for link in machine.host.facts().links if link.name == "eth0")
    machine.host.add_link("eth7", "02:00:00:00:00:07")
    step_log.log(reconciler.step(fetch=False))
    machine.host.remove_link("eth0")
    step_log.log(reconciler.step(fetch=False))
    assert "interface_unbound" not in log.events()
    machine.host.set_link(eth0)
    step_log.log(reconciler.step(fetch=False))
    machine.host.remove_link("eth0")
    machine.host.set_link(replace(eth0, name="ethx"))
    step_log.log(reconciler.step(fetch=False))
    assert log.keys_of("interface_unbound")["interface"] == "ethx"
    step_log.log(reconciler.step(fetch=False))
    assert log.events().count("interface_unbound") == 1


def test_network_interfaces_of_other_hosts_are_not_missing(machine: Machine) -> None:
    """Documents may be those of a fleet."""
    machine.source.write(TWO)
    assert told(machine.reconciler().step(fetch=True)) == (1, [])


def test_where_nothing_is_bound_every_network_interface_is_missing(machine: Machine) -> None:
    """Nobody can tell which of them is meant."""
    machine.source.write(TWO.replace(MAC, "02:00:00:00:00:99"))
    assert told(machine.reconciler().step(fetch=True)) == (0, ["eni-1", "eni-2"])


def test_a_name_that_the_configuration_binds_is_missing_until_it_is_there(machine: Machine) -> None:
    """A pattern need not match anything."""
    assert told(machine.reconciler(HAND.format("eth7")).step(fetch=True)) == (
        1,
        ["eth7, by the configuration"],
    )
    machine.host.add_link("eth7", "02:00:00:00:00:07")
    assert told(machine.reconciler(HAND.format("eth7")).step(fetch=True)) == (2, [])
    assert told(machine.reconciler(HAND.format("br-*")).step(fetch=True)) == (1, [])


def test_a_link_that_is_gone_is_missing(machine: Machine) -> None:
    """Until the documents have its network interface no more."""
    reconciler = machine.reconciler()
    reconciler.step(fetch=True)
    machine.host.remove_link("eth0")
    assert told(reconciler.step(fetch=True)) == (0, ["eni-1, on eth0 before"])
    machine.source.write(GOOD.partition("network_interfaces")[0])
    assert told(reconciler.step(fetch=True)) == (0, [])


def test_apply_refuses_to_unbind_a_link() -> None:
    """It names the link; a policy that still filters it is none of its business."""
    bound = tuple(one.name for one in STATUS.interfaces if one.state in BOUND_STATES)
    assert bound
    assert links_unbound(ResolvedPolicy(), STATUS) == bound
    with pytest.raises(UsageError, match=f"would open {bound[0]}"):
        refuse_to_lock_out(ResolvedPolicy(), STATUS, "say --yes")
    refuse_to_lock_out(ResolvedPolicy(), replace(STATUS, interfaces=()), "say --yes")


def test_what_apply_unbinds_is_expected_no_more(machine: Machine) -> None:
    """Whoever said ``--yes`` knows; a link that is not there is expected all the same."""
    reconciler = machine.reconciler()
    orders = machine.commands(reconciler, FakeLog())
    reconciler.step(fetch=True)
    step = partial(_step, reconciler)
    documents = (DocumentFile("by-hand.yaml", OTHER_MAC.encode()),)
    orders.apply(step, reconciler.parse(documents), None)
    assert [str(one) for one in step().missing_links] == ["eni-1"]


def _step(reconciler: Reconciler, *, fetch: bool = False) -> Step:
    return reconciler.step(fetch=fetch)
