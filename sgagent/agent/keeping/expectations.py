"""Remember where network interfaces were found: their links are judged before they can be found again.

A link that is bound by MAC or address can be bound only when it is there and carries them (§9.3). Early in a
boot, or when an agent starts before the network has its addresses, what was found before is expected: the
link is judged by its name until the network interface is found, there or elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from sgagent.core.binding import Binding
from sgagent.core.host_facts import ExpectedLink, HandBinding
from sgagent.core.model import Snapshot


class Expectations:
    """Where network interfaces were found last, and which of them are yet to be found by this agent."""

    def __init__(self, before: Iterable[ExpectedLink], by_hand: Iterable[HandBinding]) -> None:
        """Start with what an earlier agent found.

        Args:
            before: what it found.
            by_hand: bindings of the configuration; what they name is never expected anywhere else.
        """
        by_hand = tuple(by_hand)
        self._names_by_hand = {hand.interface for hand in by_hand}
        ids_by_hand = {hand.network_interface_id for hand in by_hand}
        self._links = {
            link.network_interface_id: link for link in before if link.network_interface_id not in ids_by_hand
        }
        self._missed = set(self._links)

    @property
    def missed(self) -> tuple[ExpectedLink, ...]:
        """Return where network interfaces are expected that were not found yet."""
        return tuple(sorted(self._links[interface_id] for interface_id in self._missed))

    @property
    def links(self) -> tuple[ExpectedLink, ...]:
        """Return where each network interface was found last, whether it still is or not."""
        return tuple(sorted(self._links.values()))

    def follow(self, found: Iterable[Binding], snapshot: Snapshot) -> None:
        """Take in what is found now, and forget what the definitions no longer have."""
        for binding in found:
            if binding.network_interface is not None and binding.interface not in self._names_by_hand:
                interface_id = binding.network_interface.network_interface_id
                self._links[interface_id] = ExpectedLink(
                    interface=binding.interface, network_interface_id=interface_id
                )
                self._missed.discard(interface_id)
        known = snapshot.interface_by_id
        self._links = {key: link for key, link in self._links.items() if key in known}
        self._missed &= self._links.keys()
