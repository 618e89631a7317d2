"""Links on which network interfaces were found before, and where they are expected again (§9.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sgagent.core.binding import Binding, Bindings, HostFacts, Link, is_hidden
from sgagent.core.model import NetworkInterface, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ExpectedLink:
    """Where a network interface was found before, by MAC or address, and so is expected again."""

    interface: str
    network_interface_id: str
    is_plain: bool = False
    """Whether the link could have no lower devices (§9.5)."""


def bind_expected(
    found: Bindings, expected: Iterable[ExpectedLink], snapshot: Snapshot, facts: HostFacts
) -> Bindings:
    """Return the bindings with those that were made before, by MAC or address, and can't be made yet.

    Early in a boot links are not there, have no address, or go by another name. What was bound before is then
    judged by name, whether it exists or not, unless a link of that name is seen to be another's, or its own
    network interface is found on another link.

    Args:
        found: what could be bound.
        expected: what was bound before.
        snapshot: the definitions.
        facts: the links of the host.
    """
    links, expected = {link.name: link for link in facts.links}, tuple(expected)
    already = {one.network_interface.network_interface_id for one in found.bindings if one.network_interface}
    bindings = {binding.interface: binding for binding in found.bindings}
    for one in expected:
        interface = snapshot.interface_by_id.get(one.network_interface_id)
        is_by_hand = any(pattern.matches(one.interface) for pattern in found.patterns)
        link = links.get(one.interface)
        is_elsewhere = link is not None and one.network_interface_id in already
        if interface is None or is_by_hand or is_elsewhere or not _may_become(link, interface):
            continue
        bindings.setdefault(one.interface, Binding.of(interface, one.interface, link))
    plain = frozenset(one.interface for one in expected if one.is_plain and one.interface not in links)
    return replace(found, bindings=tuple(bindings[name] for name in sorted(bindings)), plain=plain)


def _may_become(link: Link | None, interface: NetworkInterface) -> bool:
    """Return whether a link that can't be identified yet may turn out to be the network interface's."""
    if link is None:
        return True
    has_other_mac = interface.mac_address is not None and interface.mac_address != link.mac_address
    return not (link.is_loopback or is_hidden(link) or has_other_mac)
