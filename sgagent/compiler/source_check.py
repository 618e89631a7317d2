"""Source check: compile which sources of packets are on their own side of an interface (§12.6).

Only packets that open a session, or whose session is judged again, meet these chains. The rules compare
single addresses themselves, so that a change of the link's addresses replaces the rules of these chains only.
"""

from __future__ import annotations

from sgagent.compiler.class_chains import FamilyChains
from sgagent.compiler.decision_list import Place, Selectors, dhcp_rule, readings
from sgagent.compiler.port_chains import guards_of_maps, guards_of_new
from sgagent.core.addresses import AddressRanges
from sgagent.core.model import Direction, Family
from sgagent.nft import names
from sgagent.nft.ruleset import (
    Chain,
    Element,
    Goto,
    Interval,
    KeyType,
    LookUp,
    Match,
    Operator,
    Rule,
    VerdictMap,
)


def check_sources(own: AddressRanges, place: Place) -> FamilyChains:
    """Return the chains and the map that check sources before the far end is looked up.

    DHCP is accepted before; IPv6's neighbour discovery has passed already.

    Args:
        own: the addresses of the host on the interface, of the family.
        place: whose sessions are judged.
    """
    direction, _, family = place
    by_session, by_header = readings(direction, family)
    name, first = names.sources_chain(*place), names.peers_chain(*place)
    live_name, live_first = names.live_chain(name), names.live_chain(first)
    networks = _networks_map(own, place)
    chains = []
    if networks and direction is Direction.EGRESS:  # the map leads packets and live sessions to one chain
        checked = names.checked_chain(*place)
        guards = guards_of_maps(Goto(live_first), family)
        chains.append(Chain(name=checked, rules=(*guards, Rule((Goto(first),)))))
        first = live_first = checked
    guards = guards_of_new(Goto(live_name), family)
    rules = _rules(own, networks, by_header, first, place)
    chains.append(Chain(name=name, rules=(*guards, *rules)))
    chains.append(Chain(name=live_name, rules=_rules(own, networks, by_session, live_first, place)))
    maps = {networks.name: networks} if networks else {}
    return FamilyChains({chain.name: chain for chain in chains}, maps)


def _rules(
    own: AddressRanges, networks: VerdictMap | None, reading: Selectors, onward: str, place: Place
) -> tuple[Rule, ...]:
    """Return the rules that send spoofed packets to their counter, and others on."""
    direction, interface, _ = place
    spoofed = Goto(names.step_chain("spoofed", direction, interface))
    is_inwards = direction is Direction.INGRESS
    source = reading.peer if is_inwards else reading.local
    rules = [dhcp_rule(reading, *place)]
    if networks:
        rules.append(Rule((LookUp((source,), networks.name),)))
    singles = tuple(Interval(first, last) for first, last in own if first == last)
    if singles:
        operator = Operator.EQUAL if is_inwards else Operator.NOT_EQUAL
        rules.append(Rule((Match(source, singles, operator), spoofed)))
    rules.append(Rule((Goto(onward) if singles or is_inwards else spoofed,)))
    return tuple(rules)


def _networks_map(own: AddressRanges, place: Place) -> VerdictMap | None:
    """Return the map of the host's own networks, which are delegated to it; None where there are none."""
    direction, interface, family = place
    is_inwards = direction is Direction.INGRESS
    goto = Goto(
        names.step_chain("spoofed", direction, interface) if is_inwards else names.checked_chain(*place)
    )
    elements = [Element((Interval(first, last),), goto) for first, last in own if first != last]
    if not elements:
        return None
    key_types = (KeyType.IPV4_ADDR if family is Family.IPV4 else KeyType.IPV6_ADDR,)
    return names.fixed_map(names.prefixes_map(*place), key_types, elements, is_interval=True)
