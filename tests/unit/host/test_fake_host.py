"""The fake host keeps the contract that the kernel's links are held to in integration/test_host.py."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.contract.host import HostContract, Machine
from tests.fakes.host import FakeHost


@dataclass
class FakeMachine:
    """The fake is its own machine."""

    host: FakeHost = field(default_factory=FakeHost)

    def add_link(self, name: str, mac_address: str) -> None:
        """Give it a link."""
        self.host.add_link(name, mac_address)

    def remove_link(self, name: str) -> None:
        """Take a link away."""
        self.host.remove_link(name)

    def add_address(self, name: str, address: str) -> None:
        """Give a link an address."""
        self.host.add_address(name, address)


class TestFakeHost(HostContract):
    """Everything that the kernel is held to."""

    @pytest.fixture
    def machine(self) -> Machine:
        """Give a fake with loopback alone."""
        return FakeMachine()
