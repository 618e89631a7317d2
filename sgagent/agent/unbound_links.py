"""Links that should be bound and are not: the documents name them, and nothing filters them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sgagent.agent.definitions import KnownLinks
from sgagent.core.binding import HandBinding, HostFacts
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy


@dataclass(frozen=True, slots=True, order=True)
class MissingLink:
    """A network interface, or a name that the configuration binds, that no link of this host is."""

    network_interface_id: str | None
    """Null where the configuration names the groups itself."""

    interface: str | None
    """The link that it was or should be; null where it was never found here."""

    def __str__(self) -> str:
        """Return it in words."""
        if self.network_interface_id is None:
            return f"{self.interface}, by the configuration"
        return self.network_interface_id + (f", on {self.interface} before" if self.interface else "")


def missing_links(
    by_hand: Iterable[HandBinding],
    known: KnownLinks,
    snapshot: Snapshot,
    policy: ResolvedPolicy,
    facts: HostFacts,
) -> tuple[MissingLink, ...]:
    """Return the bindings of the documents and the configuration, of this host, that no link has.

    Documents may be those of a fleet: a network interface counts if it was found on this host before. Where
    nothing is bound at all each counts, as nobody can tell which of them is meant.
    """
    there = {link.name for link in facts.links if not link.is_loopback}
    found: list[tuple[str | None, str | None]] = [*_by_hand(by_hand, there), *known.unbound()]
    if not any(policy.judge(name) in policy.bound for name in there):
        ids = {link_id for link_id, _ in found}
        others = (one.network_interface_id for one in snapshot.network_interfaces)
        found += ((one, None) for one in others if one not in ids)
    return tuple(sorted((MissingLink(*one) for one in found), key=str))


def _by_hand(by_hand: Iterable[HandBinding], there: set[str]) -> Iterator[tuple[str | None, str]]:
    for one in by_hand:
        if one.pattern is None and one.interface not in there:
            yield one.network_interface_id, one.interface
