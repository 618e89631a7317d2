"""What a host owes to the reconciler."""

from __future__ import annotations

import threading
from typing import Protocol

from sgagent.core.binding import Link
from sgagent.core.model import CidrBlock
from sgagent.ports import Host
from tests.patience import PATIENCE

WITHIN_SECONDS = 1.0 * PATIENCE


class Machine(Protocol):
    """A machine in a test's hands. It starts with loopback alone."""

    @property
    def host(self) -> Host:
        """Return the host."""
        ...

    def add_link(self, name: str, mac_address: str) -> None:
        """Give it a link."""
        ...

    def remove_link(self, name: str) -> None:
        """Take a link away."""
        ...

    def add_address(self, name: str, address: str) -> None:
        """Give a link an address."""
        ...


class HostContract:
    """Run by each host with its fixture ``machine``."""

    def test_loopback_is_told_apart(self, machine: Machine) -> None:
        """It is there from the beginning, and judged by nobody."""
        (loopback,) = machine.host.facts().links
        assert loopback.name == "lo"
        assert loopback.is_loopback
        assert not loopback.has_hardware
        assert loopback.mac_address is None

    def test_links_are_listed_by_name(self, machine: Machine) -> None:
        """Whatever order they came in."""
        for number, name in enumerate(("eth1", "eth0")):
            machine.add_link(name, f"02:00:00:00:00:0{number}")
        assert [link.name for link in machine.host.facts().links] == ["eth0", "eth1", "lo"]
        assert _link(machine, "eth0").mac_address == "02:00:00:00:00:01"

    def test_addresses_are_listed_in_order(self, machine: Machine) -> None:
        """As single addresses, IPv4 before IPv6."""
        machine.add_link("eth0", "02:00:00:00:00:01")
        for address in ("2001:db8::11", "10.0.0.11", "10.0.0.9"):
            machine.add_address("eth0", address)
        expected = tuple(map(CidrBlock.parse, ("10.0.0.9", "10.0.0.11", "2001:db8::11")))
        assert _link(machine, "eth0").addresses == expected

    def test_changes_wake_whoever_watches(self, machine: Machine) -> None:
        """A link that comes, an address and a link that goes are told, and are then in the facts."""
        woken = threading.Event()
        with machine.host.watch(woken.set):
            machine.add_link("eth0", "02:00:00:00:00:01")
            assert woken.wait(WITHIN_SECONDS)
            woken.clear()
            machine.add_address("eth0", "10.0.0.11")
            assert woken.wait(WITHIN_SECONDS)
            assert _link(machine, "eth0").addresses
            woken.clear()
            machine.remove_link("eth0")
            assert woken.wait(WITHIN_SECONDS)
            assert [link.name for link in machine.host.facts().links] == ["lo"]

    def test_a_watch_that_ended_is_silent(self, machine: Machine) -> None:
        """Leaving the context ends it before it returns."""
        woken = threading.Event()
        with machine.host.watch(woken.set):
            pass
        machine.add_link("eth0", "02:00:00:00:00:01")
        assert not woken.wait(0.05)


def _link(machine: Machine, name: str) -> Link:
    return next(link for link in machine.host.facts().links if link.name == name)
