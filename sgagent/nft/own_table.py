"""Our table of a dump as a ruleset, and the foreign objects in it.

Objects that sgagent never makes, or that the decoder can't read, are named and left to the plan to remove.
Nothing that another process puts into the table can make the decoder fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from sgagent.nft import ruleset as nft
from sgagent.nft.attributes import UnreadableError
from sgagent.nft.expressions import SetLookUp
from sgagent.nft.kernel_table import FAULTS, KernelChain, KernelRule, KernelTable, ProgramReader, read_tables
from sgagent.nft.registers import ProgramStatement
from sgagent.nft.ruleset import SELECTORS, Ruleset
from sgagent.nft.sets import CONCATENATED, INTERVAL, MAP, METER, OBJECTS, KernelSet, elements_of, meter_set_of
from sgagent.nft.transactions import RESET_WATCH


def decode_ruleset(dump: bytes) -> tuple[Ruleset, tuple[str, ...]]:
    """Return our table of a dump, and the foreign things in it by kind and name, sorted.

    Foreign are, as the first word says: ``rule`` (one that can't be read, by its chain), ``chain``, ``map``,
    ``set``, ``flowtable`` and every kind of stateful object; ``policy`` of a base chain that isn't accept,
    and ``table`` where the table itself is asleep. What can't be read is left out of the ruleset.
    """
    try:
        tables = read_tables(dump)
    except FAULTS:
        return Ruleset(), (f"table {nft.TABLE}",)
    ours = (table for table in tables if table.is_ours)
    return _Decoded(next(ours, KernelTable(family=nft.FAMILY, name=nft.TABLE))).result()


class _Decoded:
    """Separate a table's own objects from foreign ones."""

    def __init__(self, table: KernelTable) -> None:
        self._table = table
        self._programs = ProgramReader(table)
        self._foreign = {f"{kind} {name}" for kind, name in table.others}
        self._inner = {chain.name for chain in table.chains if chain.is_of_rule}
        if table.is_dormant or table.oddity is not None:
            self._foreign.add(f"table {table.name}")

    def result(self) -> tuple[Ruleset, tuple[str, ...]]:
        by_name = attrgetter("name")
        ruleset = Ruleset(
            chains=tuple(sorted(self._chains(), key=by_name)),
            verdict_maps=tuple(sorted(self._maps(), key=by_name)),
            meter_sets=tuple(sorted(self._meter_sets(), key=by_name)),
            counters=tuple(sorted((c for c in self._table.counters if c.name != RESET_WATCH), key=by_name)),
        )
        return ruleset, tuple(sorted(self._foreign))

    def _chains(self) -> Iterator[nft.Chain]:
        names = set[str]()
        for chain in self._table.chains:
            hook = chain.hook
            is_odd = chain.oddity is not None or (hook is not None and not hook.is_for_filters)
            if is_odd or chain.name in names:  # two of a name, where a transaction renames the first
                self._foreign.add(f"chain {chain.name}")
            elif not chain.is_of_rule:
                names.add(chain.name)
                if hook is not None and hook.drops:
                    self._foreign.add(f"policy {chain.name}")
                rules = tuple(self._rules(chain))
                place = None if hook is None else nft.Hook(hook.name, hook.priority)
                yield nft.Chain(name=chain.name, rules=rules, hook=place, comment=chain.comment)

    def _rules(self, chain: KernelChain) -> Iterator[nft.Rule]:
        for rule in chain.rules:
            try:
                if rule.has_comment or not self._is_ours(statements := self._programs.statements(rule)):
                    raise UnreadableError(chain.name)
                if _LOOKS_UP in rule.content and self._reads_named_set(rule):
                    raise UnreadableError(chain.name)
                yield nft.Rule(statements)  # type: ignore[arg-type]  # all of them are ours
            except FAULTS:
                self._foreign.add(f"rule {chain.name}")

    def _is_ours(self, statements: tuple[ProgramStatement, ...]) -> bool:
        """Return whether all statements are of kinds that sgagent makes, and lead to nothing of a rule's."""
        for one in statements:
            match one:
                case nft.Match(selector):
                    is_ours = selector in _OURS
                case nft.Meter(name, selector):
                    is_ours = selector in _OURS and self._table.sets[name].flags == METER
                case nft.LookUp(selectors, name):
                    is_ours = _OURS.issuperset(selectors) and not self._table.sets[name].is_anonymous
                case nft.Goto(chain) | nft.Jump(chain):
                    is_ours = chain not in self._inner
                case _:
                    is_ours = isinstance(one, _OTHERS_OF_OURS)
            if not is_ours:
                return False
        return True

    def _reads_named_set(self, rule: KernelRule) -> bool:
        """Return whether a rule looks up in a set that may change without it."""
        names = (
            one.name
            for one in self._programs.expressions(rule)
            if isinstance(one, SetLookUp) and not one.is_map
        )
        return not all(self._table.sets[name].is_anonymous for name in names)

    def _maps(self) -> Iterator[nft.VerdictMap]:
        for one in self._table.sets.values():
            if one.is_anonymous or one.flags == METER:
                continue
            kind = "map" if one.flags & (MAP | OBJECTS) else "set"
            try:
                yield _verdict_map(one)
            except FAULTS:
                self._foreign.add(f"{kind} {one.name}")

    def _meter_sets(self) -> Iterator[nft.MeterSet]:
        for one in self._table.sets.values():
            found = meter_set_of(one)
            if found is not None:
                yield found
            elif one.flags == METER:
                self._foreign.add(f"set {one.name}")


_OURS = frozenset(SELECTORS)
_LOOKS_UP = b"lookup\0"
_OTHERS_OF_OURS = (nft.Count, nft.Limit, nft.Log, nft.SetMark, nft.Accept, nft.Drop, nft.Return)


def _verdict_map(one: KernelSet) -> nft.VerdictMap:
    """Return a named verdict map, if it is of a kind that sgagent makes.

    Raises:
        UnreadableError: it is not.
    """
    is_ours = one.is_verdict_map and not one.flags & ~(INTERVAL | MAP | CONCATENATED)
    if not is_ours or one.has_particulars or one.oddity is not None or one.key_types is None:
        raise UnreadableError(one.name)
    elements = tuple(elements_of(one, one.key_types))
    return nft.VerdictMap(
        name=one.name, key_types=one.key_types, is_interval=one.is_interval, elements=elements
    )
