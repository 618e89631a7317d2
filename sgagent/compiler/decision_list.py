"""Build the decision list of one direction, interface and family, in the order of §3.

The clauses of exemptions, inner access and rules become entries, which add the counter chain for packets that
they decide. A rule of several protocols has several entries with one counter chain. The default follows the
last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import chain
from typing import Any

from sgagent.compiler.selectors import Place
from sgagent.core.addresses import AddressRanges
from sgagent.core.clauses import Clause, DecidedBy, exempt_clauses, rule_clause
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import Direction, Family, Policy
from sgagent.core.policy import SILENT, FlowLogging, ResolvedInterface, ResolvedRule
from sgagent.nft import names, ruleset as nft

INNER_PEER = "(inner)"
"""No id of a document has parentheses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Clause):
    """A clause of one protocol, or of all, as one line of the list."""

    leaf: str
    """The chain that counts and carries out the verdict."""

    in_place: tuple[nft.Statement, ...] = ()
    """What the leaf does, where lines do that themselves."""

    peer: str
    """Names the far end; equal names have equal addresses."""

    family: Family
    """Of the packets that it can match."""

    unit: str | None = None
    """The chain that asks for the control group of the socket, and leads to the leaf; None is no such one."""

    lets_answers_in: bool = False
    """Whether answers of sessions outwards match, which do not show whose they are (§6.3)."""

    @property
    def protocol(self) -> int | None:
        """Return the protocol; None is all."""
        return self.protocols[0] if self.protocols else None

    @property
    def is_exempt(self) -> bool:
        """Return whether it stands before the rules."""
        return self.decided_by is not DecidedBy.RULE

    @property
    def has_any_peer(self) -> bool:
        """Return whether the far end may be any address of the family.

        The family has to say what any is: all of IPv4 has the numbers of ``::/96``, a small part of IPv6.
        """
        return self.is_for_everyone(self.family)

    @property
    def is_plain(self) -> bool:
        """Return whether peer, protocol and destination port say whether it matches."""
        return self.source_ports.is_all and self.local is None and self.user is None and self.unit is None

    @property
    def onward(self) -> nft.Goto | nft.Jump:
        """Return the way on for packets that match in all that the line compares itself."""
        return nft.Goto(self.leaf) if self.unit is None else nft.Jump(self.unit)

    @property
    def ending(self) -> tuple[nft.Statement, ...]:
        """Return what a line does with such packets."""
        return self.in_place or (self.onward,)

    @property
    def is_for_all(self) -> bool:
        """Return whether it matches all that the far end sends or is sent."""
        return self.is_plain and self.protocols is None


def is_in_place(rule: ResolvedRule, flow_logging: FlowLogging) -> bool:
    """Return whether lines of a rule count and accept themselves, which spares packets the way to a leaf.

    What drops keeps its leaf, so that a change of mode rewrites leaves only.
    """
    is_plain = rule.conditions.limit is None and rule.conditions.group is None
    return is_plain and rule.policy is Policy.ACCEPT and Policy.ACCEPT not in flow_logging.verdicts


def list_entries(
    interface: ResolvedInterface,
    direction: Direction,
    family: Family,
    memo: Memo,
    flow_logging: FlowLogging = SILENT,
) -> tuple[Entry, ...]:
    """Return the entries that can match packets of the family, the first that decides first."""
    memo = memo.part(Seam.DIRTY_CLASSES, direction, interface.name, family, flow_logging)
    toward = interface.toward(direction)
    exempt = (_exempt(clause, interface.name, family) for clause in exempt_clauses(toward, family))
    before_rules = memo.same("before rules", tuple(chain.from_iterable(exempt)))
    make_entries = partial(_rule, place=(direction, interface.name, family), flow_logging=flow_logging)
    return (*before_rules, *chain.from_iterable(memo.each("rules", make_entries, toward.rules)))


def _exempt(clause: Clause, interface: str, family: Family) -> Iterator[Entry]:
    """Yield the entry of an exemption, or of inner access."""
    leaf, peer, exemption = names.inner_chain(interface), INNER_PEER, clause.exemption
    if exemption is not None:
        kind = "platform" if clause.decided_by is DecidedBy.ALWAYS else "failsafe"
        leaf, peer = names.step_chain(kind, exemption.direction, interface), str(exemption.peer)
    yield from _entries(clause, leaf=leaf, peer=peer, family=family)


def _rule(rule: ResolvedRule, place: Place, flow_logging: FlowLogging) -> tuple[Entry, ...]:
    """Return the entries of a rule; none if it can match nothing of the family."""
    direction, interface, family = place
    if not rule.can_match(family):
        return ()
    group, leaf = rule.conditions.group, names.rule_chain(interface, rule.rule_id)
    counted = nft.Count(leaf), nft.Goto(names.accept_chain(direction, interface))
    entries = _entries(
        rule_clause(rule, family),
        leaf=leaf,
        in_place=counted if is_in_place(rule, flow_logging) else (),
        peer=rule.peer.key,
        family=family,
        unit=None if group is None else names.unit_chain(interface, rule.rule_id, group),
        lets_answers_in=rule.user is not None and rule.policy is Policy.ACCEPT,
    )
    return tuple(entries)


_OF_CLAUSES = tuple(one.name for one in fields(Clause))


def _entries(clause: Clause, **added: Any) -> Iterator[Entry]:  # noqa: ANN401 - the fields of an entry
    """Yield a clause as entries, one for each protocol."""
    added |= {name: getattr(clause, name) for name in _OF_CLAUSES}
    for protocols in (None,) if clause.protocols is None else ((one,) for one in clause.protocols):
        yield Entry(**added | {"protocols": protocols})


@dataclass(frozen=True, slots=True)
class Grouped:
    """Entries by their places in the list, the first that decides first."""

    entries: tuple[Entry, ...]
    by_peer: Mapping[str, Sequence[int]]
    """Those of each peer that is not everyone."""

    for_everyone: tuple[int, ...]
    peers: tuple[str, ...]
    """Sorted."""

    @classmethod
    def of(cls, entries: tuple[Entry, ...]) -> Grouped:
        """Group all entries, which are in order, by their peers."""
        by_peer: defaultdict[str, list[int]] = defaultdict(list)
        for_everyone: list[int] = []
        everyone = ((0, entries[0].family.last_address),) if entries else ()
        for index, entry in enumerate(entries):
            if entry.addresses == everyone:
                for_everyone.append(index)
            else:
                by_peer[entry.peer].append(index)
        return cls(entries, by_peer, tuple(for_everyone), tuple(sorted(by_peer)))

    @property
    def addresses(self) -> tuple[AddressRanges, ...]:
        """Return the addresses of each peer."""
        return tuple(self.entries[self.by_peer[peer][0]].addresses for peer in self.peers)

    def own(self, peers: tuple[str, ...]) -> list[int]:
        """Return the entries of some peers, in order."""
        return sorted(index for peer in peers for index in self.by_peer[peer])
