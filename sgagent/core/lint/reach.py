"""Find out where each rule of one judge and direction decides, and what decides instead where none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sgagent.core.comparing.boxes import Box, Columns, cut_into_boxes
from sgagent.core.comparing.clauses import Clause, dhcp_clause, list_clauses
from sgagent.core.evaluate import DecidedBy
from sgagent.core.intervals import common, joined
from sgagent.core.model import Direction, Family, Policy
from sgagent.core.policy import ResolvedInterface, ResolvedRule

RuleKey = tuple[str, str]
"""A rule's group and id."""

Deciding = tuple[Clause, Clause | None]
"""What decides, and what would if it were not there; None behind what matches everything."""


def key_of(rule: ResolvedRule) -> RuleKey:
    """Return what a rule is known by."""
    return (rule.security_group_id, rule.rule_id)


@dataclass(frozen=True)
class Reach:
    """What decides about one direction at one judge, worked out once."""

    judge: ResolvedInterface
    direction: Direction

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
    def boxes(self) -> tuple[Box[Deciding], ...]:
        """Return disjoint boxes that hold every packet, of both families."""
        return tuple(
            box
            for family, clauses in self.clauses.items()
            for box in cut_into_boxes([clauses], family, _first_two, depth=2)
        )

    @cached_property
    def deciding(self) -> frozenset[RuleKey]:
        """Return the rules that decide about any packet."""
        return frozenset(key_of(rule) for box in self.boxes if (rule := box.label[0].rule))

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
        """Return the rules that decide about no packet, each with what decides instead, in order."""
        found: dict[RuleKey, tuple[Clause, ...]] = {}
        for key, places in self.rules.items():
            if key not in self.deciding:
                instead: list[Clause] = []
                for family, place in places:
                    clauses = self.clauses[family]
                    instead += deciders_within(clauses[place], clauses[:place], family)
                found[key] = tuple({_name(clause): clause for clause in instead}.values())
        return found

    def rule(self, key: RuleKey) -> ResolvedRule:
        """Return a rule that can match."""
        family, place = self.rules[key][0]
        rule = self.clauses[family][place].rule
        assert rule is not None  # noqa: S101 - only places of rules are kept; for the type checker
        return rule

    def accepted(self, family: Family) -> list[Box[Deciding]]:
        """Return the boxes of a family whose packets are accepted by a rule, a fellowship or the default."""
        return [
            box
            for box in self.boxes
            if box.family is family
            and box.label[0].policy is Policy.ACCEPT
            and box.label[0].decided_by in (DecidedBy.RULE, DecidedBy.INNER, DecidedBy.DEFAULT)
        ]


def deciders_within(clause: Clause, before: Sequence[Clause], family: Family) -> list[Clause]:
    """Return what decides about the packets that a clause matches, in order; itself where nothing else does.

    Args:
        clause: matches the packets that are looked at.
        before: what stands before it.
        family: of the packets.
    """
    rest = Clause(decided_by=DecidedBy.DEFAULT, policy=Policy.DROP, addresses=((0, family.last_address),))
    near = [_narrowed(one, clause) for one in before if _may_meet(one, clause)]
    instead = [one for one in near if one.addresses]

    def first(columns: Columns) -> Clause | None:
        (deciding, *_), (meant, *_) = columns
        return None if meant is rest else deciding

    def is_elsewhere(columns: Columns) -> bool:
        return clause not in columns[1]

    boxes = cut_into_boxes(((*instead, clause, rest), (clause, rest)), family, first, skip=is_elsewhere)
    found = {box.label for box in boxes}
    return [one for one in (*instead, clause) if one in found]


def _may_meet(one: Clause, other: Clause) -> bool:
    """Tell whether two clauses may match the same packet, as far as protocol and destination port tell."""
    if one.protocol is not None and other.protocol is not None and one.protocol != other.protocol:
        return False
    return one.ports is None or other.ports is None or bool(common(one.ports, other.ports))


def _narrowed(clause: Clause, within: Clause) -> Clause:
    return replace(clause, addresses=common(joined(clause.addresses), joined(within.addresses)))


def _first_two(columns: Columns) -> Deciding:
    (column,) = columns
    return (column[0], column[1] if len(column) > 1 else None)


def _name(clause: Clause) -> tuple[object, ...]:
    return (clause.decided_by, clause.rule and key_of(clause.rule))
