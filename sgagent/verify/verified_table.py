"""A table as the verifier reads it: what :mod:`sgagent.nft.ruleset` has, and what else it understands.

What it does not understand is named in :attr:`VerifiedTable.unsupported`, never guessed. A thing that nothing
reaches, such as a set that no rule reads, has no effect and is not named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from sgagent.nft import ruleset as nft


class UnsupportedStatementError(Exception):
    """Say that the packet meets a statement that is not understood."""


@dataclass(frozen=True, slots=True)
class Return:
    """Go back to where the chain was jumped from; in a base chain, to its policy."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A rule of which at least one statement is not understood."""

    description: str
    """For :attr:`VerifiedTable.unsupported`."""


VerifiedStatement = nft.Statement | Return | Unread


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseHook:
    """Where the kernel calls a base chain, and what becomes of a packet that no rule decides about."""

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
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class VerifiedTable:
    """All of a table that can matter to a packet."""

    chains: dict[str, VerifiedChain]
    verdict_maps: Mapping[str, nft.VerdictMap]
    """By name; one that stands within a rule has a name that no map can have."""

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

    @cached_property
    def reached(self) -> tuple[str, ...]:
        """Return the chains that a packet can get to, base chains first."""
        found = {chain.name: None for chains in self.base_chains.values() for chain in chains}
        waiting = list(found)
        while waiting:
            for name in self.targets(self.chains[waiting.pop()]):
                if name not in found and name in self.chains:
                    found[name] = None
                    waiting.append(name)
        return tuple(found)

    @cached_property
    def link_reads(self) -> tuple[tuple[VerifiedChain, nft.Match | nft.LookUp], ...]:
        """Return what reads the name of a link, and in which of the chains that packets get to."""
        return tuple(
            (chain, one)
            for chain in map(self.chains.__getitem__, self.reached)
            for statements in chain.rules
            for one in statements
            if (isinstance(one, nft.Match) and one.selector.key_type is nft.KeyType.IFNAME)
            or (
                isinstance(one, nft.LookUp)
                and any(field.key_type is nft.KeyType.IFNAME for field in one.selectors)
            )
        )

    def targets(self, chain: VerifiedChain) -> tuple[str, ...]:
        """Return the chains that a chain leads to, each once."""
        found = self._targets_by_chain.get(chain.name)
        if found is None:
            found = self._targets_by_chain[chain.name] = tuple(dict.fromkeys(self._targets(chain)))
        return found

    def _targets(self, chain: VerifiedChain) -> Iterator[str]:
        for statements in chain.rules:
            for statement in statements:
                if isinstance(statement, (nft.Goto, nft.Jump)):
                    yield statement.chain
                elif isinstance(statement, nft.LookUp) and statement.verdict_map in self.verdict_maps:
                    yield from self.map_targets(statement.verdict_map)

    def map_targets(self, name: str) -> tuple[str, ...]:
        """Return the chains that a map leads to, each once."""
        found = self._targets_by_map.get(name)
        if found is None:
            verdicts: Iterable[nft.Verdict] = (e.verdict for e in self.verdict_maps[name].elements)
            found = tuple(dict.fromkeys(v.chain for v in verdicts if isinstance(v, (nft.Goto, nft.Jump))))
            self._targets_by_map[name] = found
        return found

    @cached_property
    def _targets_by_chain(self) -> dict[str, tuple[str, ...]]:
        return {}

    @cached_property
    def _targets_by_map(self) -> dict[str, tuple[str, ...]]:
        return {}

    @cached_property
    def unsupported(self) -> tuple[str, ...]:
        """Return what is not understood and may matter, sorted."""
        found = set(self.unread) if not self.is_dormant else set()
        for name in self.reached:
            for statements in self.chains[name].rules:
                for statement in statements:
                    if isinstance(statement, Unread):
                        found.add(statement.description)
                    elif isinstance(statement, nft.LookUp) and statement.verdict_map not in self.verdict_maps:
                        found.add(f"map {statement.verdict_map}")
            found.update(f"chain {one}" for one in self.targets(self.chains[name]) if one not in self.chains)
        if not found and self._is_too_deep():
            found.add(f"chains more than {_MOST_DEPTH} deep")
        return tuple(sorted(found))

    def _is_too_deep(self) -> bool:
        """Return whether a way through chains is longer than the kernel allows, or endless."""
        level = {chain.name for chains in self.base_chains.values() for chain in chains}
        for _ in range(_MOST_DEPTH):
            level = {target for name in level for target in self.targets(self.chains[name])}
            if not level:
                return False
        return True


_MOST_DEPTH = 17
"""A base chain, and the kernel's 16 levels of chains behind it."""


def _priority(chain: VerifiedChain) -> int:
    return chain.hook.priority if chain.hook else 0


def table_of(ruleset: nft.Ruleset, foreign: Iterable[str] = ()) -> VerifiedTable:
    """Return a table that was read as one of ours.

    Args:
        ruleset: as :func:`sgagent.nft.json_listing.decode_ruleset` returns it.
        foreign: what else is in it, as that names it.
    """
    others = frozenset(foreign)
    chains = {chain.name: _chain(chain, others) for chain in ruleset.chains}
    return VerifiedTable(
        chains=chains,
        verdict_maps=ruleset.verdict_map_by_name,
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
    return statements


def _is_mask_unknown(match: nft.Match) -> bool:
    selector = match.selector
    is_wide = nft.BITS.get(selector.key_type, _MOST_BITS + 1) > _MOST_BITS
    return match.mask is not None and selector != nft.CT_MARK and is_wide


_MOST_BITS = 16
"""Of a number of which some bits may be compared: one of ports, types, protocols."""
