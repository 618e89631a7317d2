"""A machine's links in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sgagent.core.binding import HostFacts, Link
from sgagent.core.errors import SgagentError
from sgagent.core.model import CidrBlock
from sgagent.ports import Wake


class FakeHost:
    """Have the links that a test gives it; at first loopback alone."""

    def __init__(self, *links: Link) -> None:
        """Take more links to start with."""
        self._links = {link.name: link for link in (Link(name="lo", index=1, is_loopback=True), *links)}
        self._watchers: list[Wake] = []
        self.fault: SgagentError | OSError | None = None
        """Raised by every look at the links while it is set."""

        self.looks = 0
        """How often the links were looked at."""

    def set_link(self, link: Link) -> None:
        """Add a link, or put it in the place of the one with its name."""
        self._links[link.name] = link
        self._wake()

    def add_link(self, name: str, mac_address: str) -> None:
        """Add a link with hardware under it."""
        index = 1 + max(link.index for link in self._links.values())
        self.set_link(Link(name=name, index=index, mac_address=mac_address, has_hardware=True))

    def remove_link(self, name: str) -> None:
        """Take a link away."""
        del self._links[name]
        self._wake()

    def add_address(self, name: str, address: str) -> None:
        """Give a link an address."""
        link = self._links[name]
        addresses = sorted(
            (*link.addresses, CidrBlock.parse(address)), key=lambda a: (a.family.bits, a.first)
        )
        self.set_link(replace(link, addresses=tuple(addresses)))

    def facts(self) -> HostFacts:
        """Return the links as they are now."""
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        return HostFacts(links=tuple(self._links[name] for name in sorted(self._links)))

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` at each change, until the context is left."""
        self._watchers.append(wake)
        try:
            yield
        finally:
            self._watchers.remove(wake)

    def _wake(self) -> None:
        for wake in tuple(self._watchers):
            wake()
