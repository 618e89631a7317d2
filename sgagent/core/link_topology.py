"""How links stand on each other, and under which link's name packets pass the hooks (§9.4 to §9.6).

A *lower device* is a port, slave or member of another link, its master. A link *above* another one, like a
VLAN or macvlan, has it for its lower link, and is no master of it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Set as AbstractSet
from dataclasses import dataclass

from sgagent.core.binding import (
    OTHER_NAME,
    VRF_BOUND,
    Binding,
    Bindings,
    BridgeHooks,
    HostFacts,
    IpvlanMode,
    Link,
    is_hidden,
)
from sgagent.core.errors import Problem
from sgagent.core.model import Family
from sgagent.core.policy import UNIDENTIFIED

MASTER_KINDS = frozenset({"bridge", "bond", "team", "openvswitch", "hsr", "batadv"})
"""Kinds of link that can have lower devices, whether they have one now or not."""

KINDS_ABOVE = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"})
"""Kinds of link that pass frames of their own through their lower link."""

FRAMES_OF_PORTS = (0x0180C2000000, 0x0180C200000F)
"""Destinations of frames that masters leave to their ports: no bridge forwards them (IEEE 802.1Q)."""

VRF = "vrf"
"""The kind of a link that routes for its ports."""

_OPEN_VSWITCH = "openvswitch"
"""Ports of all its bridges have one master; which bridge a port is of, rtnetlink does not say."""

_BY_ADDRESS = frozenset({"macvlan", "macvtap"})
_MOST_LEVELS = 16
"""Of links on each other; the kernel allows eight."""


class FindingCode(enum.Enum):
    """The kind of a finding about a link."""

    LOWER_DEVICE = "lower_device"
    """It is bound, and a lower device: its packets show as its master's."""

    OTHER_NAME = "other_name"
    """It is bound, and packets of it pass the hooks under another link's name."""

    BRIDGED_FRAMES = "bridged_frames"
    """It is a bound bridge, and what its ports say to each other is judged as the host's (§9.4)."""

    LINK_ABOVE = "link_above"
    """It is not bound, and stands on a bound link that sees nothing of its packets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFinding:
    """A link whose packets pass a bound link's rules, or its own."""

    link: str
    code: FindingCode
    other: str
    """The master, the link under whose name packets pass, or the bound link under it."""

    message: str
    """The fact, and its meaning for packets."""

    remedy: str


@dataclass(frozen=True, slots=True)
class OtherName:
    """Why packets of a link pass the hooks under another link's name."""

    name: str
    cause: str
    remedy: str


def master_of(link: Link) -> str | None:
    """Return the master of a lower device; None for other links, and for ports of a VRF."""
    return link.master if is_hidden(link) else None


def bound_master(links: Mapping[str, Link], name: str, is_bound: Callable[[str], bool]) -> str | None:
    """Return the bound link that a link is a lower device of, over all levels: of several, the topmost.

    Args:
        links: those of the host, by name.
        name: of the link; it may be bound itself.
        is_bound: returns whether a link of a name is.
    """
    found = [master for master in _masters(links, name) if is_bound(master)]
    return found[-1] if found else None


def lower_devices(links: Mapping[str, Link], is_bound: Callable[[str], bool]) -> dict[str, str]:
    """Return the lower devices of bound links, each with the bound link that is judged for it (§9.5).

    A port of Open vSwitch is judged as its only bound bridge; where several are, it is unidentified.
    """
    bridges = [name for name, link in links.items() if link.kind == _OPEN_VSWITCH and is_bound(name)]
    anyone = (*bridges, UNIDENTIFIED)[0 if len(bridges) == 1 else -1] if bridges else None
    found = {}
    for name, link in links.items():
        master = bound_master(links, name, is_bound)
        if master is None and anyone is not None and name not in bridges and _is_in_switch(links, link):
            master = anyone
        if master is not None:
            found[name] = master
    return found


def _is_in_switch(links: Mapping[str, Link], link: Link) -> bool:
    """Return whether a link is a port of Open vSwitch, or a lower device of one."""
    names = (link.name, *_masters(links, link.name))
    return any(links[name].master_kind == _OPEN_VSWITCH for name in names if name in links)


def _masters(links: Mapping[str, Link], name: str) -> Iterator[str]:
    """Yield the master of a link, that one's master, and so on."""
    for _ in range(_MOST_LEVELS):
        link = links.get(name)
        master = link and master_of(link)
        if not master:
            return
        yield master
        name = master


def may_have_lower_devices(links: Mapping[str, Link], name: str) -> bool:
    """Return whether a link is, or can become, the master of another; False where there is no such link."""
    link = links.get(name)
    if link is None:
        return False
    return link.kind in MASTER_KINDS or any(master_of(one) == name for one in links.values())


def _underneath(links: Mapping[str, Link], link: Link) -> Iterator[str]:
    """Yield the names of the links that a link above stands on, and of their masters, over all levels."""
    for low in _lowers(links, link):
        yield low
        yield from _masters(links, low)


def _lowers(links: Mapping[str, Link], link: Link) -> Iterator[str]:
    """Yield the lower link of a link above, that one's, and so on."""
    for _ in range(_MOST_LEVELS):
        if link.kind not in KINDS_ABOVE or link.lower is None:
            return
        yield link.lower
        if link.lower not in links:
            return
        link = links[link.lower]


def other_name(facts: HostFacts, link: Link) -> OtherName | None:
    """Return under which other name packets to a link pass the hooks, and why; None if they do not (§9.6).

    Where br_netfilter calls the IP hooks for a bridge, it calls them with the bridge as the link, and the
    kernel does not call them again for a macvlan or VLAN above it.
    """
    if link.kind == "ipvlan" and link.ipvlan_mode is IpvlanMode.L3S and link.lower:
        cause = f"{link.name} is an ipvlan of mode l3s, whose packets come in as those of {link.lower}"
        return OtherName(link.lower, cause, "give it mode l2 or l3")
    links = {one.name: one for one in facts.links}
    above = link
    for low in _lowers(links, link):
        bridge = links.get(low)
        if bridge is not None and bridge.kind == "bridge" and _is_shown(facts.bridge_hooks, bridge, above):
            return _under_bridge(facts.bridge_hooks, link, bridge)
        if bridge is not None:
            above = bridge
    return None


def _is_shown(hooks: BridgeHooks, bridge: Link, above: Link) -> bool:
    """Return whether br_netfilter shows frames of a link directly above a bridge as the bridge's.

    Whether a VLAN-aware bridge has a port that takes the VLAN's frames untagged can change at any time.
    """
    if not hook_settings(hooks, bridge):
        return False
    return above.kind in _BY_ADDRESS or bridge.is_vlan_aware or hooks.tagged


def _under_bridge(hooks: BridgeHooks, link: Link, bridge: Link) -> OtherName:
    settings = " and ".join(hook_settings(hooks, bridge))
    cause = (
        f"{link.name} stands on the bridge {bridge.name}, and br_netfilter ({settings}) shows its packets"
        f" as those of {bridge.name}"
    )
    return OtherName(bridge.name, cause, f"set {settings} to 0, or bind {bridge.name}")


def hook_settings(hooks: BridgeHooks, bridge: Link) -> tuple[str, ...]:
    """Return the settings by which br_netfilter calls the IP hooks for a bridge, if it does."""
    own = (f"nf_call_iptables of {bridge.name}",) if bridge.calls_ip_hooks else ()
    return (*(_SYSCTLS[family] for family in hooks.families), *own)


_SYSCTLS = {
    Family.IPV4: "net.bridge.bridge-nf-call-iptables",
    Family.IPV6: "net.bridge.bridge-nf-call-ip6tables",
}


def _bound_links(bound: Bindings) -> Iterator[tuple[Binding, Link]]:
    """Yield the links that there are and that are bound by name or pattern, with their bindings."""
    by_name = {binding.interface: binding for binding in bound.bindings}
    for link in bound.facts.links:
        of_patterns = (one for pattern, one in bound.patterns.items() if pattern.matches(link.name))
        binding = by_name.get(link.name) or next(of_patterns, None)
        if binding is not None and not link.is_loopback:
            yield binding, link


def other_names(bound: Bindings) -> Iterator[OtherName]:
    """Yield why packets of bound links pass the hooks under other names."""
    found = (other_name(bound.facts, link) for _, link in _bound_links(bound))
    return (one for one in found if one is not None)


def fault_of(facts: HostFacts, link: Link) -> str | None:
    """Return why rules of a link can't be enforced on it; None if they can."""
    if link.kind == VRF:
        return f"{link.name} is a VRF, and the kernel does not track what it sends"
    other = other_name(facts, link)
    return None if other is None else other.cause


def link_problems(bound: Bindings) -> Iterator[Problem]:
    """Yield an error for each bound link that is a VRF (§9.5), or whose packets have another name (§9.6)."""
    for binding, link in _bound_links(bound):
        fault = fault_of(bound.facts, link)
        if fault is not None and link.kind == VRF:
            remedy = f"bind the ports of {link.name}"
            yield Problem.error(binding.origin, VRF_BOUND, None, f"{fault} (§9.5)", remedy)
        elif (other := other_name(bound.facts, link)) is not None:
            yield Problem.error(binding.origin, OTHER_NAME, None, f"{fault} (§9.6)", other.remedy)


def findings(facts: HostFacts, bound: AbstractSet[str]) -> tuple[LinkFinding, ...]:
    """Return the findings about bound links and those above them, sorted.

    Args:
        facts: the links of the host.
        bound: the names of those that are bound, or that a pattern means.
    """
    links = {link.name: link for link in facts.links}
    found = {(one.link, one.code.value): one for one in _of_bound(facts, links, bound)}
    for name, link in links.items():
        under = next((low for low in _underneath(links, link) if low in bound), None)
        is_judged = name in bound or bound_master(links, name, bound.__contains__) is not None
        if under is not None and not is_judged:
            found[name, FindingCode.LINK_ABOVE.value] = _above(link, under)
    return tuple(found[key] for key in sorted(found))


def _of_bound(facts: HostFacts, links: Mapping[str, Link], bound: AbstractSet[str]) -> Iterator[LinkFinding]:
    for name in sorted(bound & links.keys()):
        link = links[name]
        if (master := master_of(link)) is not None:
            yield LinkFinding(
                link=name,
                code=FindingCode.LOWER_DEVICE,
                other=master,
                message=f"{name} is bound, and a port of {master}: its packets show as those of {master}",
                remedy=f"bind {master}, or take {name} out of it",
            )
        settings = hook_settings(facts.bridge_hooks, link) if link.kind == "bridge" else ()
        if settings and sum(one.master == name for one in facts.links) > 1:
            yield _bridged(name, " and ".join(settings))
        if (other := other_name(facts, link)) is not None:
            yield LinkFinding(
                link=name,
                code=FindingCode.OTHER_NAME,
                other=other.name,
                message=f"{other.cause}: its rules see none of what comes in",
                remedy=other.remedy,
            )


def _bridged(name: str, settings: str) -> LinkFinding:
    return LinkFinding(
        link=name,
        code=FindingCode.BRIDGED_FRAMES,
        other=name,
        message=f"br_netfilter ({settings}) shows frames between ports of {name} to the hooks of IP: they are"
        f" judged as what enters and leaves by {name}",
        remedy=f"set {settings} to 0, or accept in both directions what they may say to each other",
    )


def _above(link: Link, bound: str) -> LinkFinding:
    return LinkFinding(
        link=link.name,
        code=FindingCode.LINK_ABOVE,
        other=bound,
        message=f"{link.name} ({link.kind}) stands on {bound} and is not bound: it is open both ways, as the"
        f" rules of {bound} see none of its packets",
        remedy=f'bind {link.name}, or set unbound_interfaces = "closed"',
    )
