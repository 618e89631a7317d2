"""What a boot without the agent's program loads follows what is in force, and nothing that is on trial."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from sgagent.agent.control.requests import ModeCommand
from sgagent.agent.state.directory import StateDirectory
from sgagent.agent.state.tables import FALLBACK_FILE, BootFallback, render_fallback
from sgagent.agent.step import Step
from sgagent.cli.boot import LastGood
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedPolicy
from tests.unit.agent.machine import GOOD, Machine
from tests.words import group, policy_of

POLICY = policy_of(group("sg-1"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a host that has enforced nothing yet."""
    return Machine(tmp_path / "state")


def kept(machine: Machine) -> str | None:
    """Return what the file holds."""
    path = machine.state.directory / FALLBACK_FILE
    return path.read_text() if path.exists() else None


def test_it_is_there_once_something_is_enforced(machine: Machine) -> None:
    """A host that never enforced anything has none; it goes where the configuration only observes."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    assert kept(machine) is None
    machine.source.write(GOOD)
    agent.step(fetch=True)
    assert 'iifname "eth0" goto closed/ingress' in (kept(machine) or "")
    machine.reconciler("[enforcement]\nmode = 'observe'\n").step(fetch=True)
    assert kept(machine) is None


def test_it_is_there_where_a_host_is_closed_for_lack_of_a_policy(machine: Machine) -> None:
    """With ``fail_closed`` the boot would close the host, too (§9.2)."""
    machine.reconciler("[enforcement]\nfail_closed = true\n").step(fetch=True)
    assert 'iifname "eth0" goto closed/ingress' in (kept(machine) or "")


def test_it_lets_the_fail_safe_list_through(machine: Machine) -> None:
    """What the configuration says at the next start is in it after the first step."""
    machine.source.write(GOOD)
    machine.reconciler().step(fetch=True)
    entry = "[[failsafe]]\ndirection='ingress'\ncidr='192.0.2.10/32'\nprotocol='tcp'\nport_range='22/22'\n"
    machine.reconciler(entry).step(fetch=True)
    assert "closed/ingress/ipv4 tcp dport 22 ip saddr 192.0.2.10 accept" in (kept(machine) or "")


def test_a_mode_on_trial_does_not_change_it(machine: Machine) -> None:
    """A boot would end the trial; once it is confirmed, the file follows."""
    machine.source.write(GOOD)
    agent = machine.reconciler()
    agent.step(fetch=True)
    before, commands = kept(machine), machine.commands(agent, structlog.get_logger())

    def step(*, fetch: bool = False) -> Step:
        return agent.step(fetch=fetch)

    commands.switch_mode(step, ModeCommand(interface=None, mode=Mode.OBSERVE, confirm_within=60.0))
    assert kept(machine) == before is not None
    commands.confirm(step)
    assert kept(machine) is None


def test_a_boot_leaves_it_as_it_is(tmp_path: Path) -> None:
    """What is kept was put there by an agent that saw more links."""
    fallback = BootFallback(LastGood(tmp_path))
    fallback.follow(POLICY)
    assert not (tmp_path / FALLBACK_FILE).exists()


def test_it_is_written_only_if_it_changes(tmp_path: Path) -> None:
    """Steps are many, and each write waits for the disk."""
    fallback, path = BootFallback(StateDirectory(tmp_path)), tmp_path / FALLBACK_FILE
    fallback.follow(POLICY)
    first = path.stat().st_ino
    fallback.follow(POLICY)
    assert path.stat().st_ino == first
    BootFallback(StateDirectory(tmp_path)).follow(POLICY)
    assert path.stat().st_ino == first
    fallback.follow(ResolvedPolicy())
    assert not path.exists()


def test_a_state_directory_that_takes_nothing_is_a_fault(tmp_path: Path) -> None:
    """It shows in the status; what was there stays."""
    (tmp_path / "state").write_text("a file")
    fallback = BootFallback(StateDirectory(tmp_path / "state"))
    fallback.follow(POLICY)
    assert "the fallback of the boot" in (fallback.fault or "")
    assert render_fallback(ResolvedPolicy()) is None
