"""The signature of what is in force is kept, so that nothing older takes its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.core.errors import KernelRefusedError
from sgagent.ports import DeliveredPart
from sgagent.signatures import Signed
from sgagent.sources.verified_parse import read_signature, signature_file
from tests.unit.agent.machine import GOOD, Machine

BROKEN = "version: 1\nnonsense: true\n"


def signed(serial: int) -> Signed:
    """Return a signature of some publication."""
    return Signed(serial=serial, digest=f"digest-{serial}", key_id="key", expires_at=None)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give a host with signed definitions."""
    machine = Machine(tmp_path / "state")
    machine.source.signed = signed(7)
    machine.source.write(GOOD)
    return machine


def kept(machine: Machine) -> Signed | None:
    """Return the signature that is kept."""
    return read_signature(signature_file(machine.state.directory))


def test_the_signature_of_what_is_enforced_is_kept(machine: Machine) -> None:
    """Also where the same documents were signed anew."""
    reconciler = machine.reconciler()
    for serial in (7, 8):
        machine.source.signed = signed(serial)
        reconciler.step(fetch=True)
        assert kept(machine) == signed(serial)


def test_what_is_refused_leaves_no_serial(machine: Machine) -> None:
    """The older one is still in force, so it can be delivered again."""
    reconciler = machine.reconciler()
    reconciler.step(fetch=True)
    machine.source.signed = signed(8)
    machine.source.write(BROKEN)
    reconciler.step(fetch=True)
    assert kept(machine) == signed(7)


def test_what_the_kernel_refuses_leaves_none_either(machine: Machine) -> None:
    """It is not in force."""
    machine.dataplane.refusal = KernelRefusedError("No space left on device")
    machine.reconciler().step(fetch=True)
    assert kept(machine) is None


def test_the_signatures_of_several_sources_are_kept_by_source(tmp_path: Path) -> None:
    """Each in a file of its own, which the source reads."""
    machine = Machine(tmp_path / "state")
    machine.source.write(GOOD)
    fetched = machine.source.fetch()
    parts = tuple(DeliveredPart(place=f"file /{n}", signed=signed(n)) for n in (1, 2))
    machine.source.fetch = lambda: replace(fetched, parts=parts)  # type: ignore[method-assign] # a source of several
    machine.reconciler().step(fetch=True)
    found = [read_signature(signature_file(machine.state.directory, part.place)) for part in parts]
    assert found == [signed(1), signed(2)]
    assert kept(machine) is None


def test_a_signature_that_can_not_be_kept_is_told_once(machine: Machine) -> None:
    """And kept as soon as that can be."""
    reconciler = machine.reconciler()
    path = signature_file(machine.state.directory)
    path.mkdir(parents=True)
    for _ in range(2):
        reconciler.step(fetch=True)
        (fault,) = reconciler.state_faults
        assert "the signature could not be saved" in fault
    path.rmdir()
    reconciler.step(fetch=True)
    assert kept(machine) == signed(7)
    assert reconciler.state_faults == ()
