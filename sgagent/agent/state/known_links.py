"""Remember on which links network interfaces were found, so that rules apply before they are found again.

A link that is bound by MAC or address can be bound only when it is there and has them (§9.3). Early in a
boot, before the network has its addresses, the agent expects each network interface on the link where it was
found before: that link gets its rules by name until the network interface is found, there or elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sgagent.core.binding import Binding, ExpectedLink, HandBinding
from sgagent.core.model import Snapshot


@dataclass(frozen=True, slots=True)
class KnownLinks:
    """Where network interfaces were found last, and which of them this agent has not found yet."""

    _by_id: Mapping[str, ExpectedLink]
    _missed: frozenset[str]
    """Ids of network interfaces."""

    _names_by_hand: frozenset[str]

    @classmethod
    def left(cls, before: Iterable[ExpectedLink], by_hand: Iterable[HandBinding]) -> KnownLinks:
        """Return what an agent knows that starts.

        Args:
            before: what an earlier agent found.
            by_hand: bindings of the configuration; what they name is never expected anywhere else.
        """
        by_hand = tuple(by_hand)
        ids_by_hand = {hand.network_interface_id for hand in by_hand}
        links = {
            link.network_interface_id: link for link in before if link.network_interface_id not in ids_by_hand
        }
        return cls(links, frozenset(links), frozenset(hand.interface for hand in by_hand))

    @property
    def missed(self) -> tuple[ExpectedLink, ...]:
        """Return the links on which the network interfaces are expected that were not found yet."""
        return tuple(sorted(self._by_id[interface_id] for interface_id in self._missed))

    @property
    def links(self) -> tuple[ExpectedLink, ...]:
        """Return where each network interface was found last, whether it is still there or not."""
        return tuple(sorted(self._by_id.values()))

    def following(self, found: Iterable[Binding], snapshot: Snapshot) -> KnownLinks:
        """Return these links with what is found now, without what the definitions no longer have."""
        new = {
            binding.network_interface.network_interface_id: ExpectedLink(
                interface=binding.interface,
                network_interface_id=binding.network_interface.network_interface_id,
            )
            for binding in found
            if binding.network_interface is not None and binding.interface not in self._names_by_hand
        }
        known = snapshot.interface_by_id
        links = {key: link for key, link in {**self._by_id, **new}.items() if key in known}
        return replace(self, _by_id=links, _missed=(self._missed - new.keys()) & links.keys())
