"""Read tables as the kernel runs them, from its dump.

More is understood than sgagent itself writes, so that tables that somebody changed, and those of others, can
be compared too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from sgagent.core.model import Family
from sgagent.nft import ruleset as nft
from sgagent.nft.expressions import NamedStatement, Reject
from sgagent.nft.kernel_table import FAULTS, KernelChain, KernelRule, KernelTable, ProgramReader, read_tables
from sgagent.nft.registers import ProgramStatement
from sgagent.nft.sets import elements_of, meter_set_of
from sgagent.verify.verified_table import (
    BaseHook,
    Unread,
    VerifiedChain,
    VerifiedStatement,
    VerifiedTable,
    understood,
)

_FAMILIES = {"inet": None, "ip": Family.IPV4, "ip6": Family.IPV6}
"""The families of tables that are read, and whose packets they see, if not all."""


def read_table(dump: bytes) -> VerifiedTable:
    """Return our table of a dump; parts that are not understood are named in it."""
    try:
        tables = read_tables(dump)
    except FAULTS as fault:
        return VerifiedTable(chains={}, verdict_maps={}, unread=(f"the dump of the table: {fault}",))
    ours = (table for table in tables if table.is_ours)
    return _Table(next(ours, KernelTable(family=nft.FAMILY, name=nft.TABLE))).read()


def read_filters(dump: bytes) -> VerifiedTable:
    """Return all tables of a dump as one; names of chains and maps begin with their table's."""
    tables = [one for one in map(_read_filter, read_tables(dump)) if not one.is_dormant]
    return VerifiedTable(
        chains={name: chain for one in tables for name, chain in one.chains.items()},
        verdict_maps={name: found for one in tables for name, found in one.verdict_maps.items()},
        unread=tuple(part for one in tables for part in one.unread),
        translating=tuple(name for one in tables for name in one.translating),
    )


def _read_filter(table: KernelTable) -> VerifiedTable:
    if table.family in _FAMILIES:
        return _Table(table, f"{table} ").read()
    return VerifiedTable(chains={}, verdict_maps={}, unread=(f"table {table}",))


@dataclass
class _Table:
    """Read one table."""

    table: KernelTable
    prefix: str = ""
    """Of the names of chains and maps."""

    keys: dict[str, set[tuple[nft.KeyType, ...]]] = field(default_factory=dict)
    """By map, as what the rules look their keys up."""

    def read(self) -> VerifiedTable:
        """Return the table. A map is read as those look it up that read it, whatever it calls its keys."""
        programs = ProgramReader(self.table)
        chains: dict[str, VerifiedChain] = {}
        for chain in self.table.chains:
            made = self._chain(chain, programs)
            is_second = made.name in chains  # a transaction may rename one, and make another of its name
            chains[made.name] = replace(made, rules=((Unread(f"chain {made.name}"),),)) if is_second else made
        others = dict(self._others())
        return VerifiedTable(
            chains=chains,
            verdict_maps={one.name: one for one in self._maps()},
            meter_sets=self._meter_sets,
            is_dormant=self.table.is_dormant,
            unread=(*others, *(() if self.table.oddity is None else (self.table.oddity,))),
            translating=tuple(name for name, kind in others.items() if kind == "nat"),
        )

    @cached_property
    def _meter_sets(self) -> Mapping[str, nft.MeterSet]:
        """Return the sets of meters that are like ours."""
        found = (meter_set_of(one) for one in self.table.sets.values())
        return {one.name: one for one in found if one is not None}

    def _others(self) -> Iterator[tuple[str, str]]:
        """Yield base chains that are of another kind, or called for some links, and that may matter."""
        for chain in self.table.chains:
            hook = chain.hook
            if hook is not None and not hook.is_for_filters and (hook.drops or chain.rules):
                yield f"chain {self.prefix}{chain.name}", hook.kind

    def _chain(self, chain: KernelChain, programs: ProgramReader) -> VerifiedChain:
        """Return a chain."""
        name, hook, family = f"{self.prefix}{chain.name}", chain.hook, _FAMILIES[self.table.family]
        rules = tuple(self._rule(rule, name, programs) for rule in chain.rules)
        if chain.oddity is not None:
            rules = ((Unread(f"chain {name}"),), *rules)
        if hook is None or not hook.is_for_filters:
            return VerifiedChain(name=name, rules=rules, comment=chain.comment)
        base = BaseHook(name=hook.name, priority=hook.priority, drops=hook.drops)
        return VerifiedChain(name=name, rules=rules, hook=base, family=family, comment=chain.comment)

    def _rule(self, rule: KernelRule, chain: str, programs: ProgramReader) -> tuple[VerifiedStatement, ...]:
        """Return the statements with part in the verdict of a rule; one that is not understood is named."""
        try:
            statements = programs.statements(rule)
        except FAULTS as fault:
            return (Unread(f"{fault} in chain {chain}"),)
        return understood(chain, tuple(one for said in statements for one in self._read(said)))

    def _read(self, statement: ProgramStatement) -> Iterator[VerifiedStatement]:
        match statement:
            case nft.Meter(name) if not self.prefix and name in self._meter_sets:
                yield statement
            case NamedStatement("limit") | nft.Limit() | nft.Meter():
                yield nft.Limit(1, 1)  # whatever its rate: it may let a packet pass, or not
            case NamedStatement() | nft.Log():
                return
            case Reject():
                yield nft.Drop()
            case nft.LookUp(selectors, name):
                self.keys.setdefault(name, set()).add(tuple(one.key_type for one in selectors))
                yield nft.LookUp(selectors, f"{self.prefix}{name}")
            case nft.Goto() | nft.Jump():
                yield self._target(statement)
            case _:
                yield statement

    def _target(self, verdict: nft.Verdict) -> nft.Verdict:
        if self.prefix and isinstance(verdict, (nft.Goto, nft.Jump)):
            return replace(verdict, chain=f"{self.prefix}{verdict.chain}")
        return verdict

    def _maps(self) -> Iterator[nft.VerdictMap]:
        """Yield the maps that rules read and that are understood."""
        for name, keys in self.keys.items():
            one = self.table.sets[name]
            if len(keys) > 1 or not one.is_verdict_map or not one.is_lasting or one.oddity is not None:
                continue
            (types,) = keys
            try:
                elements = elements_of(one, types)
            except FAULTS:
                continue
            if self.prefix:
                elements = [replace(element, verdict=self._target(element.verdict)) for element in elements]
            yield nft.VerdictMap(
                name=f"{self.prefix}{name}",
                key_types=types,
                is_interval=one.is_interval,
                elements=tuple(elements),
            )
