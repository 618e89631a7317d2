"""Where rules of one decision list decide, the deciders where they never do, and everyone's reach."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sgagent.analysis.cells import (
    MOST_CELLS,
    Bits,
    Cells,
    FarEndClass,
    Precedence,
    bits_of,
    code_of,
    first_of,
    places_of,
)
from sgagent.core.addresses import Ranges, joined, size, sweep
from sgagent.core.clauses import Clause, DecidedBy, dhcp_clause, list_clauses
from sgagent.core.model import ALL_PROTOCOLS, GRE, LAST_PORT, PORTED_NUMBERS, Direction, Family, Policy
from sgagent.core.policy import ResolvedInterface, ResolvedRule

RuleKey = tuple[str, str]
"""A rule's group and id."""


_Deciders = dict[tuple[Family, int], Bits]
"""By a clause's family and place, the clauses that decide about its packets."""


def key_of(rule: ResolvedRule) -> RuleKey:
    """Return the identity of a rule."""
    return (rule.security_group_id, rule.rule_id)


@dataclass(frozen=True)
class RuleReach:
    """The deciders on one direction at one judge, worked out once.

    Where that would take too long, each rule counts as one that decides, and is needed.
    """

    judge: ResolvedInterface
    direction: Direction
    most: int | None = MOST_CELLS
    """Cells that are looked at; None is all."""

    @cached_property
    def clauses(self) -> Mapping[Family, tuple[Clause, ...]]:
        """Return the clauses of each family, §7.1 included."""
        return {
            family: (
                dhcp_clause(self.direction, family),
                *list_clauses(self.judge, self.direction, family),
            )
            for family in Family
        }

    @cached_property
    def cells(self) -> Mapping[Family, Cells]:
        """Return all packets of each family."""
        return {family: Cells(clauses, family) for family, clauses in self.clauses.items()}

    @cached_property
    def precedence(self) -> Mapping[Family, Precedence]:
        """Return which clauses meet, by the one that decides."""
        return {family: cells.precedence(self.most) for family, cells in self.cells.items()}

    @cached_property
    def unfinished(self) -> tuple[int, int] | None:
        """Return how many classes of far ends were looked at, and of how many; None if of all."""
        return next((found.unfinished for found in self.precedence.values() if found.unfinished), None)

    @cached_property
    def deciding_clauses(self) -> Sequence[tuple[Family, Clause]]:
        """Return the clauses that decide about any packet, in order."""
        return [
            (family, clause)
            for family, clauses in self.clauses.items()
            for place, clause in enumerate(clauses)
            if self.unfinished or 1 << place in self.precedence[family].matching
        ]

    @cached_property
    def deciding(self) -> frozenset[RuleKey]:
        """Return the rules that decide about any packet."""
        return frozenset(key_of(clause.rule) for _, clause in self.deciding_clauses if clause.rule)

    @cached_property
    def needed(self) -> frozenset[RuleKey]:
        """Return the rules without which some packet would be decided otherwise."""
        return self.deciding if self.unfinished else self._keys(self._needed)

    @cached_property
    def _needed(self) -> Mapping[Family, Bits]:
        return {
            family: sum(
                decider
                for decider, following in found.following.items()
                if following & self._others(family, decider)
            )
            for family, found in self.precedence.items()
        }

    def _others(self, family: Family, decider: Bits) -> Bits:
        """Return the clauses whose policy is not that of one of them."""
        accepts = self.cells[family].accepts
        return ~accepts if decider & accepts else accepts

    def _keys(self, bits: Mapping[Family, Bits]) -> frozenset[RuleKey]:
        """Return the rules among some clauses."""
        rules = (
            self.clauses[family][place].rule for family, some in bits.items() for place in places_of(some)
        )
        return frozenset(key_of(rule) for rule in rules if rule is not None)

    @cached_property
    def rules(self) -> Mapping[RuleKey, tuple[tuple[Family, int], ...]]:
        """Return the rules that can match any packet, and where they stand among the clauses."""
        places: dict[RuleKey, list[tuple[Family, int]]] = {}
        for family, clauses in self.clauses.items():
            for place, clause in enumerate(clauses):
                if clause.rule is not None:
                    places.setdefault(key_of(clause.rule), []).append((family, place))
        return {key: tuple(found) for key, found in places.items()}

    @cached_property
    def unreached(self) -> Mapping[RuleKey, tuple[Clause, ...]]:
        """Return the rules that decide about no packet, each with its deciders instead, in order."""
        idle = {key: places for key, places in self.rules.items() if key not in self.deciding}
        instead: _Deciders = {place: 0 for places in idle.values() for place in places}
        for family, found in self.precedence.items():
            here = bits_of(place for of_family, place in instead if of_family is family)
            for decider, matching in found.matching.items():
                for place in places_of(matching & here):
                    instead[family, place] |= decider
        return self._by_rule(instead)

    def behind(self, keys: Container[RuleKey]) -> Mapping[RuleKey, tuple[Clause, ...]]:
        """Return the deciders without some rules, each taken out alone, in order."""
        following: _Deciders = {}
        for family, found in self.precedence.items():
            for decider, bits in sorted(found.following.items()):
                rule = self.clauses[family][decider.bit_length() - 1].rule
                if rule is not None and key_of(rule) in keys:
                    following[family, decider.bit_length() - 1] = bits
        return self._by_rule(following)

    def _by_rule(self, deciders: _Deciders) -> dict[RuleKey, tuple[Clause, ...]]:
        """Return rules with the deciders about their packets, in order, by the places of both."""
        found: dict[RuleKey, dict[tuple[object, ...], Clause]] = {}
        for (family, place), bits in deciders.items():
            clauses = self.clauses[family]
            rule = clauses[place].rule
            if rule is not None:
                named = {known_by(clauses[number]): clauses[number] for number in places_of(bits)}
                found.setdefault(key_of(rule), {}).update(named)
        return {key: tuple(named.values()) for key, named in found.items()}

    def relied_on(self, gone: Container[RuleKey]) -> frozenset[RuleKey]:
        """Return the rules, of some not needed, whose packets are decided otherwise without all of these."""
        found: dict[Family, Bits] = {}
        for family, unneeded in self._unneeded.items():
            going = bits_of(
                place
                for place, clause in enumerate(self.clauses[family])
                if clause.rule is not None and key_of(clause.rule) in gone
            )
            found[family] = 0
            for bits in unneeded if going else ():
                if (decider := first_of(bits)) & going & ~found[family]:
                    found[family] |= decider if first_of(bits & ~going) & self._others(family, decider) else 0
        return self._keys(found)

    @cached_property
    def _unneeded(self) -> Mapping[Family, frozenset[Bits]]:
        """Return the clauses that meet where one decides that is not needed."""
        return {
            family: frozenset(
                cell.bits
                for cell in cells.each(is_place_needed=False)
                if first_of(cell.bits) & cells.rules & ~self._needed[family]
            )
            for family, cells in ({} if self.unfinished else self.cells).items()
        }

    @cached_property
    def void_drops(self) -> Mapping[RuleKey, tuple[Clause, ...]]:
        """Return the drops whose traffic is accepted before, at least in part, each with the accepts."""
        found = {
            key: tuple(clause for clause in instead if clause.policy is Policy.ACCEPT)
            for key, instead in self.unreached.items()
            if self.rule(key).policy is Policy.DROP
        }
        return {key: accepting for key, accepting in found.items() if accepting}

    @cached_property
    def denied(self) -> Mapping[RuleKey, tuple[ResolvedRule, ...]]:
        """Return the accepts that decide nothing for a drop of everything, each with the drops."""
        found = {
            key: tuple(c.rule for c in instead if c.rule is not None and denies_all(c.rule))
            for key, instead in self.unreached.items()
            if self.rule(key).policy is Policy.ACCEPT
        }
        return {key: denying for key, denying in found.items() if denying}

    def without(self, gone: Container[RuleKey]) -> RuleReach:
        """Return the reach without some rules; the same object if it has none of them."""
        if not any(key in gone for key in self.rules):
            return self
        judge = self.judge.with_rules(lambda rule: key_of(rule) not in gone)
        return RuleReach(judge, self.direction, self.most)

    def rule(self, key: RuleKey) -> ResolvedRule:
        """Return a rule that can match."""
        family, place = self.rules[key][0]
        rule = self.clauses[family][place].rule
        assert rule is not None  # noqa: S101 - only places of rules are kept; for the type checker
        return rule

    def deciders(self, family: Family, code: int) -> list[tuple[Clause, list[FarEndClass]]]:
        """Return the deciders about packets of a protocol and port, in order, with their far ends."""
        found: dict[int, list[FarEndClass]] = {}
        for cell in self.cells[family].each(((code, code),)):
            found.setdefault(cell.decider, []).append(cell.far)
        return [(self.clauses[family][place], far) for place, far in sorted(found.items())]


EVERYONE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}


def denies_all(rule: ResolvedRule, families: Iterable[Family] = tuple(Family)) -> bool:
    """Return whether a rule drops everything from or to everyone of any of some families."""
    everyone = [EVERYONE[family] for family in families]
    return (
        rule.policy is Policy.DROP
        and ALL_PROTOCOLS in rule.protocols
        and any(peer.name in everyone for peer in rule.peer.objects)
        and rule.local_address is None
        and rule.conditions.local is None
    )


def known_by(clause: Clause) -> tuple[object, ...]:
    """Return the identity of a clause: its step, and its rule if it has one."""
    return (clause.decided_by, clause.rule and key_of(clause.rule))


_WIDE = {Family.IPV4: 1 << 31, Family.IPV6: 1 << 124}
"""More than half of the addresses that there are: in IPv6 the public ones are an eighth of all."""

_PARTS = 256
"""A rule for less than one such part of what counts as wide is not held to open anything to everyone."""

OpenPorts = Mapping[int, Mapping[RuleKey, Ranges]]
"""Ports that are open to everyone, by protocol and by the rules that open them. GRE counts as open at all."""

_LOOKED_AT = (*PORTED_NUMBERS, GRE.wire_number)
"""Protocols."""


def is_wide(peers: Ranges, family: Family) -> bool:
    """Return whether addresses are more than half of all: everyone, some aside."""
    return size(peers) > _WIDE[family]


def ports_open_to_everyone(clauses: Sequence[Clause], family: Family) -> OpenPorts:
    """Return the ports that rules open to everyone, by clauses in the order in which they decide."""
    accepting = sum(map(_is_opening, clauses))
    # What is smaller comes, if that are few rules, to no more than a quarter of what counts.
    least = max(_WIDE[family] // (4 * accepting or 1), _WIDE[family] // _PARTS)
    cells = Cells([clause for clause in clauses if size(clause.addresses) > least], family)
    return {number: _opened(cells, number, least) for number in _LOOKED_AT}


def _is_opening(clause: Clause) -> bool:
    return clause.decided_by is DecidedBy.RULE and clause.policy is Policy.ACCEPT


def _opened(cells: Cells, number: int, least: int) -> dict[RuleKey, Ranges]:
    """Return the ports of a protocol that are open to everyone, by each rule that does it."""
    codes = ((code_of(number), code_of(number, LAST_PORT)),)
    opening = [cell for cell in cells.each(codes) if _is_opening(cells.clauses[cell.decider])]
    found: dict[RuleKey, list[tuple[int, int]]] = {}
    spans = enumerate(((cell.first, cell.last),) for cell in opening)
    for first, last, here in sweep(spans, codes[0][1]):
        if size_of(opening[place].far for place in here) <= _WIDE[cells.family]:
            continue
        by_rule: dict[RuleKey, list[FarEndClass]] = {}
        for cell in map(opening.__getitem__, here):
            rule = cells.clauses[cell.decider].rule
            if rule is not None:
                by_rule.setdefault(key_of(rule), []).append(cell.far)
        for key, far in by_rule.items():
            if size_of(far) > least:
                found.setdefault(key, []).append((first & LAST_PORT, last & LAST_PORT))
    return {key: joined(ranges) for key, ranges in found.items()}


def size_of(far: Iterable[FarEndClass]) -> int:
    """Return how many far ends there are in classes; each counts once."""
    return sum(size(one.ranges) for one in set(far))
