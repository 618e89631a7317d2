"""What a change of table or policy can mean: for which far ends packets may meet another fate than before.

For all others, packets take the same way through the same chains, and the policy says the same of them. So
what was compared for them before holds. It is kept as pairs of a tail and what it had to do: the mark, and so
what the tail does, may be another by now.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

from sgagent.core.addresses import AddressRanges, Ranges, joined, without
from sgagent.core.memo import gone_and_come
from sgagent.core.model import Direction, Family
from sgagent.core.policy import LINK_LOCAL, ResolvedInterface, ResolvedRule
from sgagent.nft import names, ruleset as nft
from sgagent.nft.diff import differing_elements
from sgagent.verify.fate_comparison import Subject
from sgagent.verify.packets import Phase
from sgagent.verify.verified_table import VerifiedChain, reach
from sgagent.verify.views import Special, View


@dataclass(frozen=True, slots=True)
class Revision:
    """What may be another than before in one frame."""

    far_ends: Ranges
    tainted: frozenset[str]
    """Chains that are others than before, or lead to such, other than by a map of far ends."""

    counters: frozenset[str]
    """Of rules that are no more what they were."""

    same_marks: bool
    """Whether all chains that count and set marks are what they were, and bits mean what they meant."""


class Revisions:
    """Compare the inputs of two proofs."""

    def __init__(self, before: Subject, now: Subject) -> None:
        """Take the subjects of an earlier proof and of this one."""
        self._before, self._old = before.compiled, before.policy
        self._now, self._new = now.compiled, now.policy
        self._same_memory = before.memory == now.memory
        self._policies: dict[tuple[str, Direction, Family], tuple[Ranges, frozenset[str]]] = {}
        self._reached = cache(self._reach)
        self._other_elements = cache(self._compare_elements)
        was, is_now = self._before.table.verdict_maps, self._now.table.verdict_maps
        self._is_map_same = cache(lambda name: was.get(name) == is_now[name])

    def of(self, view: View) -> Revision | None:
        """Return what may be another in the frame of a view; None if that may be everything."""
        old, new = self._old.judge(view.link), self._new.judge(view.link)
        if old is None or new is None or not _judges_alike(old, new) or not self._is_on_wire(view):
            return None
        key = (view.link, view.opened, view.family)
        if key not in self._policies:
            self._policies[key] = _compare_policies(old, new, view)
        of_policy, counters = self._policies[key]
        tainted, of_table = self._of_table(view)
        far_ends = joined((*of_policy, *of_table))
        if far_ends == ((0, view.family.last_address),):
            return None
        return Revision(far_ends, tainted, counters, self._same_marks)

    def _is_on_wire(self, view: View) -> bool:
        """Return whether all base chains of the hook read far ends as they are on the wire."""
        return all(one.phase is Phase.WIRE for one in self._now.table.base_chains.get(view.hook, ()))

    @cached_property
    def _changed(self) -> frozenset[str]:
        """Return the chains that are there now and were not, or were others."""
        before = self._before.table.chains
        return frozenset(
            name
            for name, chain in self._now.table.chains.items()
            if name not in before or before[name].rules != chain.rules
        )

    @cached_property
    def _same_marks(self) -> bool:
        """Return whether chains that were there, and read nothing but the mark, are what they were."""
        before = self._before.table.chains
        return self._same_memory and not any(
            name in before and self._now.is_tail(name) for name in self._changed
        )

    @cached_property
    def _sources(self) -> dict[str, list[tuple[str, str | None]]]:
        """Return the chains that lead to each chain, and by which map if by one."""
        found: dict[str, list[tuple[str, str | None]]] = {}
        for name in self._now.table.reached:
            for one in self._now.table.chains[name].statements:
                if isinstance(one, (nft.Goto, nft.Jump)):
                    found.setdefault(one.chain, []).append((name, None))
                elif isinstance(one, nft.LookUp):
                    for target in self._now.table.map_targets(one.verdict_map):
                        found.setdefault(target, []).append((name, one.verdict_map))
        return found

    def _of_table(self, view: View) -> tuple[frozenset[str], list[tuple[int, int]]]:
        """Return the tainted chains, and the far ends whose entry in a map leads to one, or is another."""
        aside, changed = dict[str, None](), set[str]()
        far_ends: list[tuple[int, int]] = []
        before = self._before.table.chains
        reached = self._reached(view.hook)
        for name in self._suspects:
            if name not in reached:
                continue
            chain = self._now.table.chains[name]
            maps = {one.verdict_map for one in chain.look_ups}
            looked_up = _far_end_maps(chain, view)
            aside.update(dict.fromkeys(looked_up))
            known = _far_end_maps(before[name], view) if name in before else []
            if (
                name not in before
                or _nameless(before[name], known) != _nameless(chain, looked_up)
                or not all(self._is_map_same(one) for one in maps.difference(looked_up))
            ):
                changed.add(name)
            else:
                for pair in zip(known, looked_up, strict=True):
                    far_ends += self._other_elements(*pair)
        tainted = self._tainted(changed, aside)
        for name in aside:
            if not tainted.isdisjoint(self._now.table.map_targets(name)):
                for element in self._now.table.verdict_maps[name].elements:
                    if isinstance(element.verdict, (nft.Goto, nft.Jump)) and element.verdict.chain in tainted:
                        far_ends += _key(element)
        return tainted, far_ends

    def _reach(self, hook: str) -> Container[str]:
        """Return the chains that packets can get to at a hook: others may read what it does not know."""
        table = self._now.table
        return reach((chain.name for chain in table.base_chains.get(hook, ())), table.targets)

    @cached_property
    def _suspects(self) -> tuple[str, ...]:
        """Return the chains that may be others than before: changed ones, and those that look something up.

        What a tail does is compared anew, if need be.
        """
        table, before, was_tail = self._now.table, self._before.table.chains, self._before.is_tail
        return tuple(
            name
            for name in table.reached
            if any(table.chains[name].look_ups)
            or (name in self._changed and not (name in before and self._now.is_tail(name) and was_tail(name)))
        )

    def _compare_elements(self, known: str, name: str) -> list[tuple[int, int]]:
        """Return the far ends whose element in one map is not the one in the other."""
        one = self._before.table.verdict_maps[known].elements
        other = self._now.table.verdict_maps[name].elements
        gone, come = differing_elements(one, other)
        return [ends for element in (*gone, *come) for ends in _key(element)]

    def _tainted(self, changed: Collection[str], aside: Collection[str]) -> frozenset[str]:
        """Return chains, and all that lead to them other than by certain maps."""
        return frozenset(
            reach(changed, lambda name: (one for one, by in self._sources.get(name, ()) if by not in aside))
        )


def _far_end_maps(chain: VerifiedChain, view: View) -> list[str]:
    """Return the maps that far ends alone are looked up in."""
    return [
        one.verdict_map
        for one in chain.look_ups
        if len(one.selectors) == 1 and view.read(one.selectors[0], Phase.WIRE) is Special.FAR_END
    ]


def _nameless(chain: VerifiedChain, aside: Collection[str]) -> list[list[object]]:
    """Return rules without the names of certain maps."""
    return [
        [
            one.selectors if isinstance(one, nft.LookUp) and one.verdict_map in aside else one
            for one in statements
        ]
        for statements in chain.rules
    ]


def _key(element: nft.Element) -> Iterator[tuple[int, int]]:
    if isinstance(value := element.key[0], nft.Interval):
        yield value.first, value.last


def _judges_alike(old: ResolvedInterface, new: ResolvedInterface) -> bool:
    """Return whether two judges differ in nothing but rules and fellow members."""
    about_old, about_new = (
        (judge.name, judge.mode, judge.own_addresses, judge.invalid) for judge in (old, new)
    )
    return about_old == about_new and all(
        (one.default, one.platform, one.failsafe) == (other.default, other.platform, other.failsafe)
        for one, other in ((old.ingress, new.ingress), (old.egress, new.egress))
    )


def _compare_policies(
    old: ResolvedInterface, new: ResolvedInterface, view: View
) -> tuple[Ranges, frozenset[str]]:
    """Return far ends of which the policy may say something else, and the counters of changed rules."""
    before, now, family = old.toward(view.opened), new.toward(view.opened), view.family
    gone, come = ({_name(rule): rule for rule in some} for some in gone_and_come(before.rules, now.rules))
    alike = {name for name in gone.keys() & come.keys() if _content(gone[name]) == _content(come[name])}
    others = [rule for rules in (gone, come) for name, rule in rules.items() if name not in alike]
    # Those of IPv6 are distinguished before far ends are looked up.
    far_ends = [(0, 0), LINK_LOCAL] if family is Family.IPV6 else []
    far_ends += _symmetric_difference(before.inner.ranges(family), now.inner.ranges(family))
    peers = [(gone[name].peer.addresses, come[name].peer.addresses) for name in alike]
    for was, is_now in {(id(was), id(is_now)): (was, is_now) for was, is_now in peers}.values():
        far_ends += _symmetric_difference(was.ranges(family), is_now.ranges(family))
    for rule in others:
        far_ends += rule.peer.addresses.ranges(family)
    return joined(far_ends), frozenset(names.rule_chain(new.name, rule.rule_id) for rule in others)


def _symmetric_difference(one: AddressRanges, other: AddressRanges) -> Iterator[tuple[int, int]]:
    if one != other:
        yield from without(one, other)
        yield from without(other, one)


def _name(rule: ResolvedRule) -> tuple[str, str]:
    return rule.rule_id, rule.security_group_id


def _content(rule: ResolvedRule) -> tuple[object, ...]:
    """Return all of a rule but its far ends."""
    return rule.policy, rule.priority, rule.protocols, rule.ports, rule.source_ports, rule.local_address
