"""Before the network is there, what was enforced last is, and the source is not asked (§9.2, §9.3)."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from sgagent.agent.state.directory import KeptDocuments, StateDirectory
from sgagent.agent.step import Step, StepEnd
from sgagent.cli.boot import LastGood, describe, enforce_last_good, load_last_good_settings
from sgagent.core.errors import UsageError
from sgagent.core.expected_links import ExpectedLink
from sgagent.documents import DocumentFile
from sgagent.settings import parse_settings
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataplane
from tests.fakes.host import FakeHost
from tests.unit.agent.machine import GOOD, MAC, Machine

BY_ADDRESS = GOOD.replace(f"mac_address: '{MAC}', ", "")
FAIL_CLOSED = (
    "[enforcement]\nfail_closed = true\n[[interface]]\nname = 'eth7'\nsecurity_group_ids = ['sg-1']\n"
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return the state directory of a host, not made yet."""
    return tmp_path / "state"


@pytest.fixture
def machine(state: Path) -> Machine:
    """Return a host that has enforced nothing yet."""
    return Machine(state)


def boot(state: Path, host: FakeHost | None = None, configuration: str = "") -> tuple[Step, FakeDataplane]:
    """Boot a host without a table, and at first without links."""
    dataplane = FakeDataplane()
    settings = parse_settings(configuration, "sgagent.toml")
    step = enforce_last_good(settings, host or FakeHost(), dataplane, LastGood(state), FakeClock())
    return step, dataplane


def links(step: Step) -> list[str]:
    """Return the links that are judged."""
    return [interface.name for interface in step.policy.interfaces] if step.policy else []


def newest(state: Path) -> Path:
    """Return the file of the newest kept definitions."""
    return max((state / "history").iterdir())


def test_the_last_good_policy_is_enforced_on_links_yet_to_come(machine: Machine, state: Path) -> None:
    """The name under which a MAC was found is judged before there is such a link."""
    machine.source.write(GOOD)
    before = machine.reconciler().step(fetch=True)
    step, dataplane = boot(state)
    assert (step.outcome, step.version, links(step)) == (StepEnd.APPLIED, before.version, ["eth0"])
    assert dataplane.ruleset == machine.dataplane.ruleset
    assert describe(step) == f"enforcing {before.version} on eth0"


def test_what_was_found_by_address_is_judged_before_it_has_one(machine: Machine, state: Path) -> None:
    """Addresses come with the network, that is after this."""
    machine.source.write(BY_ADDRESS)
    machine.host.add_address("eth0", "10.0.0.11")
    machine.reconciler().step(fetch=True)
    host = FakeHost()
    host.add_link("eth0", MAC)
    assert links(boot(state, host)[0]) == ["eth0"]


def test_the_daemon_takes_over_without_a_change(machine: Machine, state: Path) -> None:
    """Its first step finds what it would have made."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    _, machine.dataplane = boot(state, machine.host)
    assert machine.reconciler().step(fetch=True).outcome is StepEnd.UNCHANGED


def test_the_daemon_expects_what_was_found_until_it_is_found_again(machine: Machine) -> None:
    """A daemon that starts before the network has addresses keeps the link judged, and then follows it."""
    machine.source.write(BY_ADDRESS)
    machine.host.add_address("eth0", "10.0.0.11")
    machine.reconciler().step(fetch=True)
    machine.host.add_link("eth0", MAC)
    agent = machine.reconciler()
    assert links(agent.step(fetch=True)) == ["eth0"]
    machine.host.add_link("lan0", MAC)
    machine.host.add_address("lan0", "10.0.0.11")
    agent.step(fetch=False)
    assert links(agent.step(fetch=False)) == ["lan0"]


def test_a_link_that_goes_at_shutdown_is_still_expected(machine: Machine, state: Path) -> None:
    """Networks lose their addresses while the daemon is still there to see it."""
    machine.source.write(GOOD)
    agent = machine.reconciler()
    agent.step(fetch=True)
    machine.host.remove_link("eth0")
    assert links(agent.step(fetch=False)) == []
    assert links(boot(state)[0]) == ["eth0"]


def test_nothing_is_expected_of_what_left_the_definitions(machine: Machine, state: Path) -> None:
    """A network interface that was taken away binds no link at the next boot."""
    machine.source.write(GOOD)
    agent = machine.reconciler()
    agent.step(fetch=True)
    machine.source.write("version: 1\nsecurity_groups: [{security_group_id: sg-1}]\n")
    agent.step(fetch=True)
    step, _ = boot(state)
    assert (step.is_closed, links(step)) == (False, [])


def test_a_host_that_never_enforced_stays_open(state: Path) -> None:
    """Installing a package locks nobody out, at the next boot neither (§9.2)."""
    step, dataplane = boot(state)
    assert (step.outcome, dataplane.ruleset) == (StepEnd.WAITING, None)
    assert "stays open" in describe(step)
    assert not state.exists()


def test_a_host_that_lost_all_is_closed(
    machine: Machine, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So is one whose configuration says so; what is wrong with the files is said."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    newest(state).write_text("scribble")
    step, _ = boot(state, machine.host)
    assert (step.is_closed, links(step)) == (True, ["eth0"])
    assert str(newest(state)) in capsys.readouterr().err
    assert describe(step) == "closed, as no policy is loaded: eth0"
    closed, _ = boot(state.with_name("nothing"), configuration=FAIL_CLOSED)
    assert (closed.is_closed, links(closed)) == (True, ["eth7"])


def test_a_damaged_file_costs_one_version(machine: Machine, state: Path) -> None:
    """The definitions before are enforced; restarts in between don't count."""
    machine.source.write(GOOD)
    before = machine.reconciler().step(fetch=True)
    machine.source.write(GOOD.replace("10.0.0.11", "10.0.0.12"))
    machine.reconciler().step(fetch=True)
    machine.reconciler().step(fetch=True)
    newest(state).write_bytes(newest(state).read_bytes()[:-20])
    step, _ = boot(state)
    assert (step.version, links(step)) == (before.version, ["eth0"])


def test_booting_changes_nothing_that_is_kept(machine: Machine, state: Path) -> None:
    """The files are what the daemon left, byte by byte."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    host = FakeHost()
    host.add_link("renamed0", MAC)
    assert links(boot(state, host)[0]) == ["eth0", "renamed0"]
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_links_are_kept_with_the_definitions(state: Path) -> None:
    """They come back as they were; a file of a later format is not guessed at."""
    link = ExpectedLink(interface="eth0", network_interface_id="eni-1")
    kept = KeptDocuments(version="v", documents=(DocumentFile("a.yaml", GOOD.encode()),), links=(link,))
    StateDirectory(state).keep(kept)
    assert StateDirectory(state).load() == (kept, ())
    newest(state).write_bytes(newest(state).read_bytes().replace(b'"format": 3', b'"format": 4'))
    assert StateDirectory(state).load()[0] is None


def test_a_broken_configuration_is_replaced_by_the_one_before(state: Path, tmp_path: Path) -> None:
    """What is wrong with it is told all the same; without one before, it is all there is to tell."""
    broken = tmp_path / "sgagent.toml"
    broken.write_text("[enforcement]\nmoed = 'observe'\n")
    options = argparse.Namespace(config=broken)
    with pytest.raises(UsageError, match="moed"):
        load_last_good_settings(options, StateDirectory(state))
    StateDirectory(state).keep_configuration("[enforcement]\nfail_closed = true\n")
    assert not StateDirectory(state).has_enforced()
    settings, fault = load_last_good_settings(options, StateDirectory(state))
    assert settings.enforcement.fail_closed
    assert "moed" in str(fault)


def test_a_good_configuration_is_followed_at_once(state: Path, tmp_path: Path) -> None:
    """The one before matters only where there is no other."""
    good = tmp_path / "sgagent.toml"
    good.write_text("[enforcement]\nstrict = true\n")
    StateDirectory(state).keep_configuration("[enforcement]\nfail_closed = true\n")
    settings, fault = load_last_good_settings(argparse.Namespace(config=good), StateDirectory(state))
    assert (settings.enforcement.strict, settings.enforcement.fail_closed, fault) == (True, False, None)
