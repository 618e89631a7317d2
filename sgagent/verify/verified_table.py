"""A table as the verifier reads it: the parts of :mod:`sgagent.nft.ruleset`, and others it understands.

What it does not understand is named in :attr:`VerifiedTable.unsupported`, never guessed. A thing that nothing
reaches, such as a set that no rule reads, has no effect and is not named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import TypeVar

from sgagent.core.model import Family
from sgagent.nft import ruleset as nft
from sgagent.verify.packets import Phase, phase_of

_S = TypeVar("_S")
_T = TypeVar("_T")


class UnsupportedStatementError(Exception):
    """Say that the packet meets a statement that is not understood."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A rule of which at least one statement is not understood."""

    description: str
    """For :attr:`VerifiedTable.unsupported`."""


VerifiedStatement = nft.Statement | Unread


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseHook:
    """Where the kernel calls a base chain, and the chain's policy for packets that no rule decides about."""

    name: str
    priority: int
    drops: bool = False
    """Whether the policy is drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChain:
    """A chain; each rule is a tuple of statements."""

    name: str
    rules: tuple[tuple[VerifiedStatement, ...], ...] = ()
    hook: BaseHook | None = None
    family: Family | None = None
    """Of the packets for which the kernel calls a base chain; None for both."""

    comment: str = ""

    @property
    def phase(self) -> Phase:
        """Return the kernel's progress with a packet when it calls the chain."""
        return phase_of(self.hook.name, self.hook.priority) if self.hook else Phase.WIRE

    @property
    def drops(self) -> bool:
        """Return whether the policy of a base chain is drop."""
        return self.hook is not None and self.hook.drops

    @property
    def statements(self) -> Iterator[VerifiedStatement]:
        """Return the statements of all rules."""
        return (one for rule in self.rules for one in rule)


def by_name(method: Callable[[_S, str], _T]) -> cached_property[Callable[[str], _T]]:
    """Make a method about one chain or map, by its name, that keeps its results with its object."""
    return cached_property(lambda one: cache(partial(method, one)))


@dataclass(frozen=True, kw_only=True)
class VerifiedTable:
    """All of a table that can matter to a packet."""

    chains: dict[str, VerifiedChain]
    verdict_maps: Mapping[str, nft.VerdictMap]
    """By name; one that stands within a rule has a name that no map can have."""

    meter_sets: Mapping[str, nft.MeterSet] = field(default_factory=dict)
    is_dormant: bool = False
    """Whether the kernel leaves the table out."""

    unread: tuple[str, ...] = ()
    """What matters and can't be assigned to a chain: a base chain of another kind."""

    translating: tuple[str, ...] = ()
    """The base chains among them that translate addresses."""

    @cached_property
    def base_chains(self) -> Mapping[str, tuple[VerifiedChain, ...]]:
        """Return the base chains of each hook, in the order in which the kernel calls them.

        Of the same priority it calls the newest first; a table lists its chains from the oldest on.
        """
        found: dict[str, list[VerifiedChain]] = {}
        for chain in reversed(self.chains.values()):
            if chain.hook is not None and not self.is_dormant:
                found.setdefault(chain.hook.name, []).append(chain)
        return {hook: tuple(sorted(chains, key=_priority)) for hook, chains in found.items()}

    def chains_at(self, hook: str, family: Family) -> tuple[VerifiedChain, ...]:
        """Return the base chains that the kernel calls for packets of a family, in its order."""
        return tuple(one for one in self.base_chains.get(hook, ()) if one.family in (None, family))

    @cached_property
    def reached(self) -> tuple[str, ...]:
        """Return the chains that a packet can get to, base chains first."""
        return self.reached_from(one.name for chains in self.base_chains.values() for one in chains)

    def reached_from(self, first: Iterable[str]) -> tuple[str, ...]:
        """Return chains, and those that a packet can get to from them."""
        return tuple(reach(first, lambda name: filter(self.chains.__contains__, self.targets(name))))

    def statements_from(self, first: str) -> Iterator[VerifiedStatement]:
        """Yield the statements of a chain, and of those that a packet can get to from it."""
        return (one for name in self.reached_from([first]) for one in self.chains[name].statements)

    @cached_property
    def link_reads(self) -> tuple[tuple[VerifiedChain, nft.Match | nft.LookUp], ...]:
        """Return the readers of a link's name, and in which of the chains that packets get to."""
        return tuple(
            (self.chains[name], one)
            for name in self.reached
            for one in self.chains[name].statements
            if isinstance(one, (nft.Match, nft.LookUp))
            and any(selector.key_type is nft.KeyType.IFNAME for selector in selectors_of(one))
        )

    @by_name
    def targets(self, name: str) -> tuple[str, ...]:
        """Return the chains that a chain leads to, each once."""
        found = dict[str, None]()
        for one in self.chains[name].statements:
            if isinstance(one, (nft.Goto, nft.Jump)):
                found[one.chain] = None
            elif isinstance(one, nft.LookUp) and one.verdict_map in self.verdict_maps:
                found |= dict.fromkeys(self.map_targets(one.verdict_map))
        return tuple(found)

    @by_name
    def map_targets(self, name: str) -> tuple[str, ...]:
        """Return the chains that a map leads to, each once."""
        verdicts = (element.verdict for element in self.verdict_maps[name].elements)
        return tuple(dict.fromkeys(one.chain for one in verdicts if isinstance(one, (nft.Goto, nft.Jump))))

    @cached_property
    def unsupported(self) -> tuple[str, ...]:
        """Return the parts that are not understood and may matter, sorted."""
        found = set(self.unread) if not self.is_dormant else set()
        for name in self.reached:
            for one in self.chains[name].statements:
                if isinstance(one, Unread):
                    found.add(one.description)
                elif isinstance(one, nft.LookUp) and one.verdict_map not in self.verdict_maps:
                    found.add(f"map {one.verdict_map}")
                elif isinstance(one, nft.Meter) and one.meter_set not in self.meter_sets:
                    found.add(f"set {one.meter_set}")
            found.update(f"chain {one}" for one in self.targets(name) if one not in self.chains)
        if not found and self._is_too_deep():
            found.add(f"chains more than {_MOST_DEPTH} deep")
        return tuple(sorted(found))

    def _is_too_deep(self) -> bool:
        """Return whether a way through chains is longer than the kernel allows, or endless."""
        level = {chain.name for chains in self.base_chains.values() for chain in chains}
        for _ in range(_MOST_DEPTH):
            level = {target for name in level for target in self.targets(name)}
            if not level:
                return False
        return True


_MOST_DEPTH = 17
"""A base chain, and the kernel's 16 levels of chains behind it."""


def reach(
    first: Iterable[str], onward: Callable[[str], Iterable[str]], found: Iterable[str] = ()
) -> dict[str, None]:
    """Return chains, and all that they lead to.

    Args:
        first: where packets begin.
        onward: returns the chains that one leads to.
        found: chains from which packets were followed before.
    """
    known = dict.fromkeys(found)
    waiting = [name for name in dict.fromkeys(first) if name not in known]
    known |= dict.fromkeys(waiting)
    while waiting:
        new = [name for name in dict.fromkeys(onward(waiting.pop())) if name not in known]
        known |= dict.fromkeys(new)
        waiting += new
    return known


def selectors_of(statement: VerifiedStatement) -> tuple[nft.Selector, ...]:
    """Return the fields of a packet that a statement compares or looks up."""
    match statement:
        case nft.Match(selector):
            return (selector,)
        case nft.LookUp(selectors):
            return selectors
        case nft.Meter(selector=selector):
            return (selector,)
        case _:
            return ()


def _priority(chain: VerifiedChain) -> int:
    return chain.hook.priority if chain.hook else 0


def table_of(ruleset: nft.Ruleset, foreign: Iterable[str] = ()) -> VerifiedTable:
    """Return a table that was read as one of ours.

    Args:
        ruleset: as :func:`sgagent.nft.own_table.decode_ruleset` returns it.
        foreign: what else is in it, as that names it.
    """
    others = frozenset(foreign)
    chains = {chain.name: _chain(chain, others) for chain in ruleset.chains}
    return VerifiedTable(
        chains=chains,
        verdict_maps=ruleset.verdict_map_by_name,
        meter_sets=ruleset.meter_set_by_name,
        is_dormant=f"table {nft.TABLE}" in others,
        unread=tuple(one for one in others if one.startswith("chain ")),
    )


def _chain(chain: nft.Chain, foreign: frozenset[str]) -> VerifiedChain:
    hook = None
    if chain.hook is not None:
        name, priority = chain.hook.name, chain.hook.hook_priority
        hook = BaseHook(name=name, priority=priority, drops=f"policy {chain.name}" in foreign)
    rules = tuple(understood(chain.name, rule.statements) for rule in chain.rules)
    if f"rule {chain.name}" in foreign:
        rules = (*rules, (Unread(f"rule {chain.name}"),))
    return VerifiedChain(name=chain.name, rules=rules, hook=hook, comment=chain.comment)


def understood(chain: str, statements: tuple[VerifiedStatement, ...]) -> tuple[VerifiedStatement, ...]:
    """Return a rule as it is, unless it compares bits of a number that is too wide to be cut by them."""
    if any(isinstance(one, nft.Match) and _is_mask_unknown(one) for one in statements):
        return (Unread(f"mask in chain {chain}"),)
    if any(isinstance(one, nft.LookUp) and nft.CT_STATUS in one.selectors for one in statements):
        return (Unread(f"ct status in a key in chain {chain}"),)
    return statements


def _is_mask_unknown(match: nft.Match) -> bool:
    selector = match.selector
    if selector == nft.CT_STATUS:
        return match.mask is None or bool(match.mask & ~(nft.EXPECTED | nft.CONFIRMED))
    is_wide = nft.BITS.get(selector.key_type, _MOST_BITS + 1) > _MOST_BITS
    return match.mask is not None and selector != nft.CT_MARK and is_wide


_MOST_BITS = 16
"""Of a number of which some bits may be compared: one of ports, types, protocols."""
