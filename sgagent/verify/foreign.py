"""The comparison of filters of others with a policy: verdicts alone, on links that are bound.

A packet that comes in passes the base chains at prerouting and input, or at prerouting and forward if there
are such; one that goes out passes those at output or forward, and at postrouting. Together they have to do
what the policy says. They are taken to read packets as these are on the wire: NAT is not looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from sgagent.core.addresses import Ranges, common, joined
from sgagent.core.evaluate import Decision
from sgagent.core.model import LAST_PORT, Direction, Family, Mode, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.ruleset import META_OIFNAME, SetMark
from sgagent.verify import Outcome
from sgagent.verify.expectation import NOTHING_REMEMBERED
from sgagent.verify.fate_comparison import VERDICTS, Difference
from sgagent.verify.packets import CtDirection, CtState, Dimension, Headers, Phase, marks_text
from sgagent.verify.proof import Proof, links_of, prove
from sgagent.verify.users import SOMEBODY
from sgagent.verify.verified_table import BaseHook, VerifiedStatement, VerifiedTable, selectors_of
from sgagent.verify.views import FAR_END, NEAR_END, NEVER_TRACKED, PORT, PROTOCOL, SOURCE_PORT, View

_ON_WIRE = {"prerouting": -199, "postrouting": 101}
"""A priority from which on base chains read packets as they are on the wire."""

MOST_DIFFERENCES = 5_000
"""That are looked for, before those that are alike but for one thing are put together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChange:
    """Packets that the policy treats otherwise than the filters do."""

    interface: str
    direction: Direction
    """In which the sessions of the packets were opened."""

    family: Family
    verdict: Policy
    """As the policy's mode carries it out; the filters do the other thing."""

    decision: Decision
    far_ends: Ranges
    protocols: Ranges
    ports: Ranges | None
    """None for any, or none, as in the next two."""

    source_ports: Ranges | None
    near_ends: Ranges | None
    others: Mapping[Dimension, Ranges]
    """Of what the packets have besides, all that matters, such as the type of an ICMP message."""

    kinds: tuple[str, ...]
    """``new``, ``established``, ``reply``, ``related``, ``error`` or ``untracked``."""

    ways: tuple[str, ...] = ()
    """``local`` or ``forwarded``, where it is not both."""

    marks: str = ""
    """Of their sessions, in words; empty if the mark does not matter."""

    other_links: tuple[str, ...] = ()
    """Of those that are forwarded, where the filters distinguish them; empty for all others."""


@dataclass(frozen=True, kw_only=True)
class FilterComparison:
    """The result of a comparison."""

    proof: Proof
    changes: tuple[FilterChange, ...] = ()
    is_whole: bool = True
    """Whether the changes are all that there are, as far as packets are compared."""

    not_compared: tuple[str, ...] = ()
    """Base chains that translate addresses."""

    with_forwarded: bool = True
    """Whether forwarded packets are compared: a base chain is at forward. True if the outcome is unknown."""


def compare_filters(table: VerifiedTable, policy: ResolvedPolicy) -> FilterComparison:
    """Compare all filters of a host with a policy.

    Args:
        table: as :func:`sgagent.verify.programs.read_filters` reads it.
        policy: what they are compared with, as if it were enforced on all links.
    """
    policy = policy.with_judges(lambda judge: replace(judge, mode=Mode.ENFORCE))
    translating = table.translating
    table = replace(table, unread=tuple(one for one in table.unread if one not in translating))
    proofs: list[Proof] = []
    differences: list[tuple[str, Difference]] = []
    with_forwarded = "forward" in table.base_chains
    ways = ("local", "forwarded") if with_forwarded else ("",)
    for way, hook in product(ways, _ON_WIRE):
        proof = prove(
            _edge(table, hook, way),
            policy,
            memory=NOTHING_REMEMBERED,
            scope=replace(VERDICTS, hooks=(hook,), forwarded=way == "forwarded"),
            most_differences=MOST_DIFFERENCES,
        )
        proofs.append(proof)
        differences += ((way, one) for one in proof.differences)
    worst = max(proofs, key=lambda proof: _SEVERITY.index(proof.outcome))
    is_known = worst.outcome is not Outcome.UNKNOWN
    return FilterComparison(
        # What is not understood in one is unknown in all.
        proof=replace(worst, cells=sum(proof.cells for proof in proofs)),
        changes=tuple(sorted(_changes(differences, links_of(table, policy)), key=_order)),
        is_whole=is_known and all(len(proof.differences) < MOST_DIFFERENCES for proof in proofs),
        not_compared=translating,
        with_forwarded=with_forwarded or not is_known,
    )


def _order(change: FilterChange) -> tuple[object, ...]:
    place = (change.interface, change.direction is Direction.EGRESS, change.ways, change.family.bits)
    return (*place, "new" not in change.kinds, change.protocols, change.ports or (), change.far_ends)


_SEVERITY = (Outcome.PROVED, Outcome.REFUTED, Outcome.UNKNOWN)


def _edge(table: VerifiedTable, hook: str, way: str) -> VerifiedTable:
    """Return the table with all base chains that packets pass, one after the other, at one hook."""
    inner = "forward" if way == "forwarded" else "input" if hook == "prerouting" else "output"
    passed = (hook, inner) if hook == "prerouting" else (inner, hook)
    along = [chain for one in passed for chain in table.base_chains.get(one, ())]
    at = {
        chain.name: BaseHook(name=hook, priority=_ON_WIRE[hook] + place, drops=chain.drops)
        for place, chain in enumerate(along)
    }
    chains = {name: replace(chain, hook=at.get(name)) for name, chain in table.chains.items()}
    untracked = [chain.name for chain in along if chain.phase is Phase.UNTRACKED]
    asking = (name for name in untracked if any(map(_needs_session, table.statements_from(name))))
    unread = [f"ct before conntrack in chain {name}" for name in asking]
    early = (one.name for one in table.base_chains.get("prerouting", ()))
    selectors = (selectors_of(one) for name in early for one in table.statements_from(name))
    # Of what is not forwarded, neither prerouting nor input knows a link outwards.
    if hook == "prerouting" and way == "forwarded" and any(META_OIFNAME in some for some in selectors):
        unread.append("meta oifname at prerouting")
    return replace(table, chains=chains, unread=(*table.unread, *unread))


def _needs_session(statement: VerifiedStatement) -> bool:
    return isinstance(statement, SetMark) or any(one.kind == "ct" for one in selectors_of(statement))


# Differences that are alike but for one thing are one.

_Values = tuple[object, ...] | None
"""Ranges, or words; None for anything."""

_BOTH = ("forwarded", "local")

_Part = dict[Dimension, _Values]
"""What packets of a difference have, with their kind, way and other link."""


def _changes(differences: Sequence[tuple[str, Difference]], links: Sequence[str]) -> Iterator[FilterChange]:
    groups: dict[tuple[object, ...], list[tuple[str, Difference]]] = {}
    for way, one in differences:
        groups.setdefault(_key(one), []).append((way, one))
    for some in groups.values():
        wholes: dict[Dimension, set[_Values]] = {"other link": {tuple(sorted(links))}, "way": {_BOTH}}
        for _, one in some:
            for dimension in one.view.box.keys() - {PROTOCOL}:
                wholes.setdefault(dimension, set()).add(one.view.box[dimension])
        for part in _merged([_part(way, one) for way, one in some], wholes):
            yield _change(some[0][1], part, unnamed=links[-1])


def _key(difference: Difference) -> tuple[object, ...]:
    view, expected = difference.view, difference.example.expected
    rule = expected.decision.rule
    named = rule and (rule.security_group_id, rule.rule_id)
    marks = marks_text(difference.marks)
    return view.link, view.opened, view.family, expected.verdict, expected.decision.decided_by, named, marks


def _part(way: str, difference: Difference) -> _Part:
    view, whole = difference.view, difference.view.box
    part: _Part = {
        dimension: None if ranges == whole[dimension] and dimension != PROTOCOL else ranges
        for dimension, ranges in difference.box.items()
    }
    return part | {
        FAR_END: difference.far_ends,
        "kind": (_kind(view),),
        "way": (way,) if way else None,
        "other link": (view.other_link,) if view.other_link else None,
    }


def _kind(view: View) -> str:
    if view.headers is Headers.ERROR:
        return "error"
    is_reply = view.state is CtState.ESTABLISHED and view.direction is CtDirection.REPLY
    return "reply" if is_reply else view.state.value


def _merged(parts: Sequence[_Part], wholes: Mapping[Dimension, Collection[_Values]]) -> list[_Part]:
    """Return fewer parts that together are the same packets."""
    left, number = list(parts), 0
    while number != len(left):
        number = len(left)
        for dimension in parts[0]:
            groups: dict[tuple[_Values, ...], list[_Part]] = {}
            for part in left:
                rest = tuple(values for name, values in part.items() if name != dimension)
                groups.setdefault(rest, []).append(part)
            left = [
                some[0] | {dimension: _union([part[dimension] for part in some], wholes.get(dimension, ()))}
                for some in groups.values()
            ]
    return left


def _union(several: Sequence[Any], wholes: Collection[_Values]) -> _Values:
    if None in several:
        return None
    together = [value for values in several for value in values]
    are_words = isinstance(together[0], str)
    union: _Values = tuple(sorted(set(together))) if are_words else joined(together)
    return None if union in wholes else union


def _change(difference: Difference, part: Mapping[Dimension, Any], unnamed: str) -> FilterChange:
    view, expected = difference.view, difference.example.expected
    aside = {
        name: common(ranges, SOMEBODY.get(name, _PRESENT))
        for name, ranges in part.items()
        if ranges and name not in _ASIDE
    }
    return FilterChange(
        interface=view.link,
        direction=view.opened,
        family=view.family,
        verdict=expected.verdict,
        decision=expected.decision,
        protocols=_protocols(part[PROTOCOL], view.family),
        far_ends=part[FAR_END],
        ports=part[PORT],
        source_ports=part[SOURCE_PORT],
        near_ends=part[NEAR_END],
        others={name: ranges for name, ranges in aside.items() if ranges},
        kinds=part["kind"],
        ways=part["way"] or (),
        marks=marks_text(difference.marks),
        other_links=tuple("" if name == unnamed else name for name in part["other link"] or ()),
    )


def _protocols(ranges: Ranges, family: Family) -> Ranges:
    """Return protocols in fewer words: with those that conntrack never follows, where most others are in."""
    are_most = sum(last - first for first, last in ranges) > _MOST_PROTOCOLS
    return common(joined((*ranges, *NEVER_TRACKED[family])) if are_most else ranges, _ALL_NUMBERS)


_MOST_PROTOCOLS = 128
"""More than half of them."""

_ALL_NUMBERS: Ranges = ((0, 255),)
_PRESENT: Ranges = ((0, LAST_PORT),)


_ASIDE = {PROTOCOL, PORT, SOURCE_PORT, NEAR_END, FAR_END, "kind", "way", "other link"}
