"""Base chains: where packets enter the table, and the rules for those of known and live sessions.

Every packet of a link meets the rules of its entry chain first: they accept known sessions by their mark, and
send all others on, to the source check where there is one (§12.6), and then to where the far end decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sgagent.compiler.selectors import (
    AUTHENTICATION,
    COMES_IN,
    Place,
    Selectors,
    dhcp_rule,
    guards_of_maps,
    guards_of_new,
    has_units,
    readings,
    returning,
)
from sgagent.core.addresses import AddressRanges, ranges_of
from sgagent.core.link_topology import FRAMES_OF_PORTS
from sgagent.core.model import ICMP, ICMPV6, Direction, Family
from sgagent.core.openers import ANSWERING, OPENING_FLAGS, counts_reopened
from sgagent.core.policy import (
    LINK_LOCAL,
    LOOPBACK,
    MULTICAST_LISTENER_TYPES,
    NEIGHBOUR_DISCOVERY_TYPES,
    InvalidPackets,
    ResolvedInterface,
    ResolvedPolicy,
)
from sgagent.nft import names, ruleset as nft
from sgagent.nft.marks import (
    EnforcementState,
    MarkLayout,
    allowed_marks,
    elsewhere_bits,
    elsewhere_marks,
)

PREROUTING = nft.Hook(name="prerouting", hook_priority=-150)
"""After conntrack (-200), before DNAT (-100): what comes in is judged as it is on the wire (§2.2)."""

POSTROUTING = nft.Hook(name="postrouting", hook_priority=300)
"""After SNAT (100)."""


FEW_INTERFACES = 2
"""Up to so many are compared one after the other, which costs a packet less than a look-up."""


def reached_judges(policy: ResolvedPolicy) -> tuple[ResolvedInterface, ...]:
    """Return the judges that a link leads to, one that may come included; the table needs no others.

    Links of a pattern whose sources are checked have judges of their own. What closes links until they are
    identified is needed where a link may be so.
    """
    checked = [one.judge for one in policy.patterns if one.judge.own_addresses is not None]
    identified = set(policy.identified) - {interface.name for interface in policy.interfaces}
    reached = [*map(policy.behind, policy.prefixes), *map(policy.meant, identified), policy.stranger]
    reached += map(policy.judge, policy.lower_devices)
    return tuple(
        judge
        for judge in policy.judges
        if (judge not in checked and judge is not policy.guard) or judge in reached
    )


def base_chains(
    policy: ResolvedPolicy, layout: MarkLayout, state: EnforcementState
) -> tuple[list[nft.Chain], list[nft.VerdictMap]]:
    """Return the chains that packets meet before their far end is looked up, and the maps of links.

    Args:
        policy: what to enforce.
        layout: our bits of the conntrack mark.
        state: the policy generation under which accepted sessions are remembered, and who has which slot.
    """
    judges = reached_judges(policy)
    links = [_Link(judge, layout, state) for judge in judges]
    chains = [
        chain for link in links for opened in Direction for chain in (link.live(opened), link.accept(opened))
    ]
    chains += (chain for link in links for chain in link.answers())
    if links:
        chains.append(nft.Chain(name=names.NEIGHBOURS_CHAIN, rules=tuple(always_allowed_icmpv6())))
    otherwise, noting = _elsewhere(layout, state)
    chains += noting
    maps: list[nft.VerdictMap] = []
    for hook, direction in ((PREROUTING, Direction.INGRESS), (POSTROUTING, Direction.EGRESS)):
        if len(links) == 1 and not (policy.patterns or policy.lower_devices or policy.stranger):
            # The base chain is that of the one bound link, which spares each packet the way there.
            elsewhere = nft.Match(LINK[direction], (nft.Symbol(links[0].name),), nft.Operator.NOT_EQUAL)
            rules = [nft.Rule((elsewhere, otherwise)), *links[0].entry(direction)]
        else:
            chains += (
                nft.Chain(name=names.entry_chain(direction, link.name), rules=link.entry(direction))
                for link in links
            )
            if direction is Direction.INGRESS and policy.drops_frames_of_ports:
                chains.append(_unbound(otherwise))
                rules, found = _dispatch(direction, policy, nft.Goto(names.UNBOUND_CHAIN))
            else:
                rules, found = _dispatch(direction, policy, otherwise)
            maps += found
        chains.append(nft.Chain(name=hook.name, hook=hook, rules=tuple(rules)))
    chains += (link.tracked(direction) for link in links for direction in Direction)
    return chains, maps


def _elsewhere(layout: MarkLayout, state: EnforcementState) -> tuple[nft.Verdict, list[nft.Chain]]:
    """Return where packets of links go that nothing judges, and the chain for it, if there is one.

    It marks entries that are opened there as opened elsewhere than at each link with a slot: not theirs to
    open or to shut anything (§6.4).
    """
    bits = elsewhere_bits(layout, state)
    if not bits:
        return nft.Accept(), []
    rules = (_note_opening(bits), _note_announced(bits, layout.mask), nft.Rule((nft.Accept(),)))
    return nft.Goto(names.ELSEWHERE_CHAIN), [nft.Chain(name=names.ELSEWHERE_CHAIN, rules=rules)]


def _unbound(otherwise: nft.Verdict) -> nft.Chain:
    """Return the chain for links that nothing judges: it drops packets that only ports get by now (§9.5)."""
    of_ports = nft.Match(nft.ETHER_DADDR, (nft.Interval(*FRAMES_OF_PORTS),))
    rules = (nft.Rule((of_ports, nft.Drop())), nft.Rule((otherwise,)))
    return nft.Chain(name=names.UNBOUND_CHAIN, rules=rules)


def _note_opening(put: int, mask: int | None = None) -> nft.Rule:
    """Return the rule that marks the entry that a packet opens, unless it is marked already, and accepts.

    The state comes first: most packets are not the first.

    Args:
        put: the bits to set.
        mask: those that have to be clear; None for all. Where no mark is needed to accept a session, those
            of others stay as they are: a program that compares a whole mark would lose the session.
    """
    is_untouched = _marked(nft.ALL_BITS if mask is None else mask, 0)
    return nft.Rule((_are("new"), is_untouched, nft.SetMark(keep=nft.ALL_BITS, put=put), nft.Accept()))


def _note_announced(put: int, mask: int) -> nft.Rule:
    """Return the rule that marks the entry that a packet opens which another session announced, and accepts.

    It has the mark of that session, which says nothing of this one.

    Args:
        put: the bits to set.
        mask: all that are ours.
    """
    state = (_are("related"), _IS_ORIGINAL, _IS_ANNOUNCED, _IS_NO_ERROR)
    return _accept_with(state, nft.ALL_BITS & ~mask, put)


LINK = {Direction.INGRESS: nft.META_IIFNAME, Direction.EGRESS: nft.META_OIFNAME}
"""What says through which link a packet passes."""


def _dispatch(
    direction: Direction, policy: ResolvedPolicy, otherwise: nft.Verdict
) -> tuple[list[nft.Rule], list[nft.VerdictMap]]:
    """Return the rules that send each link's packets to where they are judged, and their map.

    Names come first. A link whose name is not there is judged by the longest prefix that its name begins
    with, or as those are to which nothing is bound.
    """
    selector = LINK[direction]

    def onward(judge: ResolvedInterface | None) -> nft.Verdict:
        return nft.Goto(names.entry_chain(direction, judge.name)) if judge else otherwise

    verdicts = {name: onward(policy.meant(name)) for name in policy.identified}
    verdicts |= {interface.name: onward(interface) for interface in policy.interfaces}
    verdicts |= {name: onward(policy.judge(name)) for name in policy.lower_devices}
    rules = [
        nft.Rule((nft.Match(selector, (nft.NamePrefix(prefix),)), onward(policy.behind(prefix))))
        for prefix in policy.prefixes
    ]
    last = policy.stranger
    if last is not None or any(map(LOOPBACK.startswith, policy.prefixes)):
        verdicts.setdefault(LOOPBACK, otherwise)
    if last is not None or otherwise != nft.Accept():
        rules.append(nft.Rule((onward(last),)))
    if len(verdicts) <= FEW_INTERFACES:
        matches = ((nft.Match(selector, (nft.Symbol(name),)), verdicts[name]) for name in sorted(verdicts))
        return [*map(nft.Rule, matches), *rules], []
    elements = (nft.Element((nft.Symbol(name),), verdict) for name, verdict in verdicts.items())
    links = names.fixed_map(f"links/{direction.value}", (selector.key_type,), elements, is_interval=False)
    return [nft.Rule((nft.LookUp((selector,), links.name),)), *rules], [links]


@dataclass(frozen=True, slots=True)
class _Link:
    """Compile the entry to one link."""

    judge: ResolvedInterface
    layout: MarkLayout
    state: EnforcementState

    @property
    def name(self) -> str:
        """Return the name of the link, or the pattern of its name."""
        return self.judge.name

    def first_chain(self, opened: Direction, family: Family, name: str | None = None) -> str:
        """Return the chain where judging begins, for sessions opened in the direction."""
        is_checked = self.judge.own_addresses is not None
        chain = names.sources_chain if is_checked else names.peers_chain
        return chain(opened, name or self.name, family)

    def entry(self, direction: Direction) -> tuple[nft.Rule, ...]:
        """Return the rules that every packet of the direction meets.

        There is one rule that leads to where new sessions of a family are judged, as the kernel validates all
        that is there once for each.
        """
        backward = _reverse(direction)
        ipv4, ipv6 = (nft.Goto(self.first_chain(direction, family)) for family in Family)
        tracked = _are("established", "related", *({_INVALID} - {*self._untied}))
        to_invalid = nft.Goto(names.invalid_chain(direction, self.name))
        return (
            *self._reopened(direction),
            *self._known(direction, backward),
            nft.Rule((tracked, nft.Jump(names.tracked_chain(direction, self.name)))),
            nft.Rule((_IS_IPV4, ipv4)),
            nft.Rule((_are(*self._untied), _IS_FRAGMENT, to_invalid)),
            nft.Rule((_are(*self._untied), nft.Jump(names.NEIGHBOURS_CHAIN))),
            nft.Rule((ipv6,)),
        )

    def tracked(self, direction: Direction) -> nft.Chain:
        """Return the chain for packets that are neither known, nor open a session, nor are untracked.

        Of the sessions whose packets come in, those whose original packets do were opened inwards; those
        whose replies do, outwards. For packets that go out it is the other way round. But a reply of an entry
        that was not opened so here is evaluated by its own header (§6.4), and it comes back from here. An
        error about such an entry is about no session of this link.
        """
        backward = _reverse(direction)
        elsewhere = self._elsewhere(backward)
        to_invalid = nft.Goto(names.invalid_chain(direction, self.name))
        drops_invalid = _INVALID not in self._untied
        rules = [nft.Rule((_are(_INVALID), to_invalid))] if drops_invalid else []
        rules += self._errors_about_known(direction)
        if elsewhere is not None:
            no_errors = [_are("established")] if drops_invalid else []
            rules.append(nft.Rule((_IS_REPLY, elsewhere, *no_errors, nft.Return())))
            rules += [nft.Rule((_IS_REPLY, elsewhere, to_invalid))] if drops_invalid else []
        rules += [
            nft.Rule((_IS_REPLY, nft.Goto(names.live_session_chain(backward, self._replies_to(backward))))),
            nft.Rule((nft.Goto(names.live_session_chain(direction, self.name)),)),
        ]
        return nft.Chain(name=names.tracked_chain(direction, self.name), rules=tuple(rules))

    def _replies_to(self, opened: Direction) -> str:
        """Return the name in whose chains replies of live sessions are judged that were opened so."""
        has_answers = opened is Direction.EGRESS and has_units(self.judge)
        return names.answers_of(self.name) if has_answers else self.name

    def _elsewhere(self, opened: Direction) -> nft.Match | None:
        """Return the match on entries that were not opened so here; None where that is not known."""
        test = elsewhere_marks(self.name, opened, self.layout, self.state)
        return test and _marked(*test)

    @property
    def _untied(self) -> tuple[str, ...]:
        """Return the states of packets without a session that are evaluated by their header (§6.6)."""
        is_evaluated = self.judge.invalid is InvalidPackets.EVALUATE
        return (_INVALID, "untracked") if is_evaluated else ("untracked",)

    def _reopened(self, onward: Direction) -> Iterator[nft.Rule]:
        """Yield the rule that has what may open a session in the entry of an older one evaluated (§13.1)."""
        if counts_reopened(self.judge, onward) and self._allowed(onward) is not None:
            evaluated = nft.Goto(names.live_session_chain(onward, self.name))
            yield nft.Rule((OPENS_TCP, _are("established"), _IS_ORIGINAL, evaluated))

    def _known(self, onward: Direction, backward: Direction) -> tuple[nft.Rule, ...]:
        """Return the rules that accept packets of sessions that the current policy allowed (§3, step 1).

        The rule for original packets compares the mark first, the rule for replies compares the direction
        first. The first packet of a session has no mark and is no reply, so each rule rejects it after one
        comparison. That of a session that a connection tracking helper expects has the mark of the session
        that announced it: it is related, and evaluated (§6.5).
        """
        forward, back = (self._allowed(opened) for opened in (onward, backward))
        if forward is None or back is None:
            return ()
        is_no_first = nft.Match(nft.CT_STATE, (nft.Symbol("related"),), nft.Operator.NOT_EQUAL)
        return (
            nft.Rule((forward, _IS_ORIGINAL, is_no_first, nft.Accept())),
            nft.Rule((_IS_REPLY, back, nft.Accept())),
        )

    def _errors_about_known(self, onward: Direction) -> Iterator[nft.Rule]:
        """Yield the rules that accept ICMP errors about allowed sessions, sent as original packets (§6.5).

        They are related, too; no helper expects a session of ICMP. Behind an authentication header only the
        status tells them from packets of a session that one expects.
        """
        forward = self._allowed(onward)
        if forward is None:
            return
        for number in (ICMP.wire_number, ICMPV6.wire_number, AUTHENTICATION):
            is_error = nft.Match(nft.META_L4PROTO, (nft.Interval.single(number),))
            unannounced = (_IS_NOT_ANNOUNCED,) if number == AUTHENTICATION else ()
            yield nft.Rule((forward, _IS_ORIGINAL, is_error, *unannounced, nft.Accept()))

    def _allowed(self, opened: Direction) -> nft.Match | None:
        """Return the match on marks of allowed sessions; None if no session is remembered as allowed."""
        test = allowed_marks(self.name, opened, self.layout, self.state)
        return test and _marked(*test)

    def accept(self, opened: Direction) -> nft.Chain:
        """Return the chain that remembers a session as allowed, and accepts."""
        rules = (*self._pass_answers(opened), *self._remember(opened), nft.Rule((nft.Accept(),)))
        return nft.Chain(name=names.accept_chain(opened, self.name), rules=rules)

    def _pass_answers(self, opened: Direction) -> Iterator[nft.Rule]:
        """Yield the rule that remembers no session by an answer that does not show whose it is (§6.3)."""
        if opened is Direction.EGRESS and self.judge.egress.has_users:
            yield nft.Rule((COMES_IN, nft.Accept()))

    def _remember(self, opened: Direction) -> Iterator[nft.Rule]:
        """Yield the rules that set the mark.

        A mark of the current generation keeps its bits of acceptance, which other interfaces may have set;
        under any other generation they mean nothing any more. An entry stays one that was opened elsewhere,
        or the other way, until one of its own packets opens it here; an error says nothing of who opened it.
        """
        layout, test = self.layout, allowed_marks(self.name, opened, self.layout, self.state)
        noted = elsewhere_bits(layout, self.state, but=(self.name, opened))
        if noted:
            yield _note_opening(noted | test.value, layout.mask) if test else _note_opening(noted)
            yield _note_announced(noted | (test.value if test else 0), layout.mask)
        slot, mask = self.state.slot(self.name), layout.generation_mask
        if test is None or slot is None:
            return
        yield nft.Rule((_are("related"), nft.Accept()))
        current = _marked(mask, test.value & mask)
        kept = nft.ALL_BITS & ~(mask | layout.acceptance_mask)
        yield from self._remember_answers(opened, current, kept)
        here, bit = layout.elsewhere_bit(slot, opened), test.value & ~mask
        yield _accept_with((current,), nft.ALL_BITS & ~here, bit)
        yield _accept_with((), kept & ~here, test.value)

    def _remember_answers(self, opened: Direction, current: nft.Match, kept: int) -> Iterator[nft.Rule]:
        """Yield the rules for replies that were evaluated by their own header.

        What answers one has to pass: it is remembered as what opened a session of the other direction. One
        that can open no session passes alone. No other replies that come here move in this direction.

        Args:
            opened: the direction.
            current: the match on marks of the current generation.
            kept: what stays of others.
        """
        backward = _reverse(opened)
        test = allowed_marks(self.name, backward, self.layout, self.state)
        elsewhere = self._elsewhere(backward)
        if test is None or elsewhere is None:
            return
        goes_out = replace(COMES_IN, operator=nft.Operator.NOT_EQUAL)
        answers = (_IS_REPLY, elsewhere, COMES_IN if opened is Direction.INGRESS else goes_out)
        yield from (nft.Rule((*answers, one, nft.Accept())) for one in _OPENS_NOTHING)
        yield _accept_with((*answers, current), nft.ALL_BITS, test.value & ~self.layout.generation_mask)
        yield _accept_with(answers, kept, test.value)

    def live(self, opened: Direction, name: str | None = None) -> nft.Chain:
        """Return the chain that judges live sessions opened in the direction, by family."""
        name = name or self.name
        ipv4, ipv6 = (names.live_chain(self.first_chain(opened, family, name)) for family in Family)
        rules = (nft.Rule((_IS_IPV4, nft.Goto(ipv4))), nft.Rule((nft.Goto(ipv6),)))
        return nft.Chain(name=names.live_session_chain(opened, name), rules=rules)

    def answers(self) -> Iterator[nft.Chain]:
        """Yield the chain that judges answers of live sessions apart, and those that lead back from there."""
        opened, name = Direction.EGRESS, self._replies_to(Direction.EGRESS)
        if name == self.name:
            return
        yield self.live(opened, name)
        ends = ["default", "accept", *(["spoofed"] if self.judge.own_addresses is not None else [])]
        for end in ends:
            onward = nft.Goto(names.step_chain(end, opened, self.name))
            yield nft.Chain(name=names.step_chain(end, opened, name), rules=(nft.Rule((onward,)),))


_INVALID = "invalid"


def _reverse(direction: Direction) -> Direction:
    return Direction.EGRESS if direction is Direction.INGRESS else Direction.INGRESS


def _marked(bits: int, value: int) -> nft.Match:
    """Return the match on marks of which some bits have a value."""
    mask = None if bits == nft.ALL_BITS else bits  # the kernel tells no mask of all bits from none
    return nft.Match(nft.CT_MARK, (nft.Interval.single(value),), mask=mask)


def _accept_with(matches: tuple[nft.Match, ...], keep: int, put: int) -> nft.Rule:
    """Return the rule that changes the mark of sessions, and accepts."""
    return nft.Rule((*matches, nft.SetMark(keep=keep | put, put=put), nft.Accept()))


def _are(*states: str) -> nft.Match:
    """Return the match on packets of one of these states."""
    return nft.Match(nft.CT_STATE, tuple(map(nft.Symbol, sorted(states))))


_IS_ORIGINAL, _IS_REPLY = (nft.Match(nft.CT_DIRECTION, (nft.Symbol(word),)) for word in ("original", "reply"))
_IS_NOT_ANNOUNCED = nft.Match(nft.CT_STATUS, (nft.Interval.single(0),), mask=nft.EXPECTED)
_IS_ANNOUNCED = nft.Match(nft.CT_STATUS, (nft.Interval.single(nft.EXPECTED),), mask=nft.EXPECTED)
_IS_NO_ERROR = nft.Match(
    nft.META_L4PROTO,
    (nft.Interval.single(ICMP.wire_number), nft.Interval.single(ICMPV6.wire_number)),
    nft.Operator.NOT_EQUAL,
)
OPENS_TCP = nft.Match(nft.TCP_FLAGS, tuple(map(nft.Interval.single, OPENING_FLAGS)))
OPENS_NO_TCP = replace(OPENS_TCP, operator=nft.Operator.NOT_EQUAL)
_OPENS_NOTHING = (nft.Match(nft.META_L4PROTO, tuple(map(nft.Interval.single, ANSWERING))), OPENS_NO_TCP)
"""The matches on answers that open no session, whatever opened theirs."""

_IS_FRAGMENT = nft.Match(nft.FRAGMENT_HEADER, (nft.Symbol("exists"),))
"""The match on fragments of IPv6 that conntrack did not put together: no rule can read what is in them."""

_IS_IPV4 = nft.Match(nft.META_NFPROTO, (nft.Symbol("ipv4"),))


def always_allowed_icmpv6() -> Iterator[nft.Rule]:
    """Yield the rules for neighbour discovery and multicast listeners (§7.1), without any set."""
    unspecified, link_local = nft.Interval.single(0), nft.Interval(*LINK_LOCAL)
    near = [(nft.Match(nft.IP6_SADDR, (ends,)),) for ends in (unspecified, link_local)]
    for types, hops, sources in ((NEIGHBOUR_DISCOVERY_TYPES, 255, [()]), (MULTICAST_LISTENER_TYPES, 1, near)):
        of_hops = nft.Match(nft.IP6_HOPLIMIT, (nft.Interval.single(hops),))
        for ends in ranges_of(types):  # neighbours joined, as the kernel lists them
            of_type = nft.Match(nft.ICMPV6_TYPE, (nft.Interval(*ends),))
            yield from (nft.Rule((of_type, of_hops, *source, nft.Accept())) for source in sources)


def check_sources(own: AddressRanges, place: Place) -> tuple[list[nft.Chain], list[nft.VerdictMap]]:
    """Return the chains and the map, if it takes one, that check sources before the far end is looked up.

    Only packets that open a session, or whose session is judged again, meet these chains. The rules compare
    single addresses themselves, so that a change of the link's addresses replaces the rules of these chains
    only. DHCP is accepted before; IPv6's neighbour discovery has passed already.

    Args:
        own: the addresses of the host on the interface, of the family.
        place: whose sessions are judged.
    """
    direction, interface, family = place
    is_inwards = direction is Direction.INGRESS
    spoofed = nft.Goto(names.step_chain("spoofed", direction, interface))
    name, first = names.sources_chain(*place), names.peers_chain(*place)
    live_name, live_first = names.live_chain(name), names.live_chain(first)
    chains, maps = [], []
    if blocks := [nft.Interval(*ends) for ends in own if ends[0] != ends[1]]:  # what is delegated to the host
        goto = spoofed if is_inwards else nft.Goto(names.checked_chain(*place))
        elements = (nft.Element((block,), goto) for block in blocks)
        prefix, key_types = names.of_family("prefixes", *place), (nft.ADDRESS_TYPES[family],)
        maps.append(names.fixed_map(prefix, key_types, elements, is_interval=True))
        if not is_inwards:  # the map leads packets and live sessions to one chain
            live_checked = names.live_chain(goto.chain)
            for chain, head, onward in (
                (goto.chain, guards_of_maps(live_checked, family), first),
                (live_checked, (returning(direction),), live_first),
            ):
                chains.append(nft.Chain(name=chain, rules=(*head, nft.Rule((nft.Goto(onward),)))))
            first = live_first = goto.chain
    singles = tuple(nft.Interval(*ends) for ends in own if ends[0] == ends[1])

    def rules(reading: Selectors, onward: str) -> Iterator[nft.Rule]:
        """Yield the rules that send spoofed packets to their counter, and others on."""
        source = reading.peer if is_inwards else reading.local
        yield dhcp_rule(reading, *place)
        yield from (nft.Rule((nft.LookUp((source,), one.name),)) for one in maps)
        if singles:
            operator = nft.Operator.EQUAL if is_inwards else nft.Operator.NOT_EQUAL
            yield nft.Rule((nft.Match(source, singles, operator), spoofed))
        yield nft.Rule((nft.Goto(onward) if singles or is_inwards else spoofed,))

    by_session, by_header = readings(direction, family)
    guards = guards_of_new(live_name, family)
    chains.append(nft.Chain(name=name, rules=(*guards, *rules(by_header, first))))
    chains.append(nft.Chain(name=live_name, rules=tuple(rules(by_session, live_first))))
    return chains, maps
