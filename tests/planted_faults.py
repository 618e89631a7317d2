"""Plant faults: alter a table in every single way of a closed list, as somebody with the privilege could.

The kernel takes each table that is made, but for what it refuses as contradictory. A kind is drawn first,
then a place, then one of its alterations: rare kinds come as often as others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from sgagent.core.conditions import GroupPath
from sgagent.nft import ruleset as nft
from sgagent.nft.diff import make_plan
from sgagent.nft.transactions import AddChain, AddRule, Json, Operation, encode_operation
from sgagent.verify.verified_table import VerifiedTable, table_of
from tests.alterable import AlterableTable, Alteration, Place, with_alteration, with_elements, with_rules
from tests.draws import Draws

_MARK_BITS = 32
_OTHER_LINKS = ("lo", "eth9")
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_FOREIGN_PRIORITIES = (-400, -250, -150, 0, 50, 300)
_TRIES = 200
RETURN = nft.Return()


@dataclass(frozen=True, slots=True)
class PlantedFault:
    """One altered table."""

    kind: str
    place: Place
    what: str
    table: nft.Ruleset
    foreign: tuple[str, ...] = ()
    """What of it our own tables never have, as :func:`sgagent.nft.own_table.decode_ruleset` names it."""

    @property
    def verified_table(self) -> VerifiedTable:
        """Return the table as the verifier reads it."""
        return table_of(self.table, self.foreign)

    def with_another(self, other: PlantedFault) -> PlantedFault:
        """Return this fault and another one that was planted in its table."""
        return replace(other, what=f"{other.what}, after {self}", foreign=(*self.foreign, *other.foreign))

    def __str__(self) -> str:
        """Return what was done, in one line."""
        return f"{self.kind}: {self.place}: {self.what}"


class NoPlaceError(Exception):
    """Say that a table has nothing that could be altered so."""


def draw_fault(table: AlterableTable, draws: Draws, kinds: Sequence[str] = ()) -> PlantedFault:
    """Draw one fault: each kind that the table has a place for is as likely as the others.

    Args:
        table: what is altered.
        draws: where chance comes from.
        kinds: those to draw from; all if none is named.

    Raises:
        NoPlaceError: the table has no place for any of the kinds.
    """
    for kind in draws.shuffled(kinds or KINDS):
        where, alter = KINDS[kind]
        places = table.places[where]
        for _ in range(_TRIES if places else 0):
            place = draws.choice(places)
            alterations = list(alter(table, place))
            if alterations and table.is_possible(found := draws.choice(alterations)):
                return _planted(table, kind, place, found)
    raise NoPlaceError


def load_commands(fault: PlantedFault) -> Json:
    """Return the commands that make the altered table, as libnftables takes them."""
    flags = ("dormant",) if f"table {nft.TABLE}" in fault.foreign else ()
    operations = make_plan(fault.table, None).operations
    return {"nftables": [_command(operation, flags, fault.foreign) for operation in operations]}


def _command(operation: Operation, flags: Sequence[str], foreign: Sequence[str]) -> Json:
    match operation:
        case AddRule(chain, rule) if RETURN in rule.statements:
            place = rule.statements.index(RETURN)
            others = (*rule.statements[:place], nft.Accept(), *rule.statements[place + 1 :])
            command = encode_operation(AddRule(chain, nft.Rule(others)), flags)
            command["add"]["rule"]["expr"][place] = {"return": None}
        case AddChain(chain) if f"policy {chain.name}" in foreign:
            command = encode_operation(operation, flags)
            command["add"]["chain"]["policy"] = "drop"
        case _:
            command = encode_operation(operation, flags)
    return command


def _planted(table: AlterableTable, kind: str, place: Place, alteration: Alteration) -> PlantedFault:
    altered = with_alteration(table.original, alteration)
    return PlantedFault(kind, place, alteration.what, altered, alteration.foreign)


# Elements.


def _element_deleted(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    yield table.elements_in(place, f"{table.element_at(place)} deleted")


def _element_added(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Add a key beside one that is there, with a verdict that another has, or a plain one."""
    element, verdict_map = table.element_at(place), table.map_at(place)
    others = [other.verdict for other in verdict_map.elements if other.verdict != element.verdict][:3]
    for key in _keys_beside(element.key, verdict_map):
        for verdict in (element.verdict, *others, nft.Accept(), nft.Drop()):
            added = nft.Element(key, verdict)
            yield table.elements_in(place, f"{added} added", element, added)


def _keys_beside(key: tuple[nft.Value, ...], verdict_map: nft.VerdictMap) -> Iterator[tuple[nft.Value, ...]]:
    for position, value in enumerate(key):
        for neighbour in _neighbours(value, verdict_map.key_types[position]):
            yield (*key[:position], neighbour, *key[position + 1 :])


def _neighbours(value: nft.Value, key_type: nft.KeyType) -> Iterator[nft.Value]:
    """Yield single values right beside a value, or other symbols."""
    if isinstance(value, nft.Symbol):
        yield from _other_symbols(value, key_type)
        return
    for number in (value.first - 1, value.last + 1):
        if 0 <= number < 1 << nft.BITS[key_type]:
            yield nft.Interval.single(number)


def _other_symbols(value: nft.Symbol, key_type: nft.KeyType) -> Iterator[nft.Symbol]:
    words = _OTHER_LINKS if key_type is nft.KeyType.IFNAME else nft.SYMBOLS[key_type]
    yield from (nft.Symbol(word) for word in words if word != value.word)


def _element_verdict(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    element = table.element_at(place)
    for verdict in _other_verdicts(table, element.verdict):
        altered = replace(element, verdict=verdict)
        yield table.elements_in(place, f"{element.key} now {verdict}", altered)


def _element_key(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Move an edge of a key by one."""
    element, verdict_map = table.element_at(place), table.map_at(place)
    for position, value in enumerate(element.key):
        for other in _edges_moved(value, verdict_map.key_types[position], ranges=verdict_map.is_interval):
            key = (*element.key[:position], other, *element.key[position + 1 :])
            altered = replace(element, key=key)
            yield table.elements_in(place, f"{element.key} now {key}", altered)


def _edges_moved(value: nft.Value, key_type: nft.KeyType, *, ranges: bool) -> Iterator[nft.Value]:
    if isinstance(value, nft.Symbol):
        yield from _other_symbols(value, key_type)
        return
    first, last = value.first, value.last
    moved = {(first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1)} if ranges else set()
    for low, high in sorted({*moved, (first - 1, last - 1), (first + 1, last + 1)}):
        if 0 <= low <= high < 1 << nft.BITS[key_type]:
            yield nft.Interval(low, high)


def _element_moved(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Move an element into another map of its type, or let it change verdicts with another."""
    element, own = table.element_at(place), table.map_at(place)
    (shortened,) = table.elements_in(place, "").objects
    for other in table.original.verdict_maps:
        if (
            other.key_types == own.key_types
            and other.is_interval >= own.is_interval
            and other.name != own.name
        ):
            grown = with_elements(other, (*other.elements, element))
            yield Alteration(f"{element.key} moved to map {other.name}", (shortened, grown))
    for other_element in own.elements:
        if other_element.verdict != element.verdict:
            exchanged = (
                replace(element, verdict=other_element.verdict),
                replace(other_element, verdict=element.verdict),
            )
            rest = [one for one in own.elements if one.key not in (element.key, other_element.key)]
            what = f"verdicts of {element.key} and {other_element.key} exchanged"
            yield Alteration(what, (with_elements(own, (*rest, *exchanged)),))


# Rules.


def _rule_deleted(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    yield table.rules_in(place, f"{table.rule_at(place)} deleted")


def _rule_duplicated(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Write a rule a second time, right behind itself, or at either end of the chain."""
    rule, chain = table.rule_at(place), table.chain_at(place)
    yield table.rules_in(place, "duplicated", rule, rule)
    yield with_rules(chain, f"{rule} once more at the end", *chain.rules, rule)
    yield with_rules(chain, f"{rule} once more at the beginning", rule, *chain.rules)


def _rule_moved(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Go to another place of the chain, or to the beginning of another chain."""
    chain, number = table.chain_at(place), place.rule
    assert number is not None
    rule = chain.rules[number]
    others = (*chain.rules[:number], *chain.rules[number + 1 :])
    for position in range(len(chain.rules)):
        if position != number:
            moved = (*others[:position], rule, *others[position:])
            yield with_rules(chain, f"now rule {position}", *moved)
    (shortened,) = table.rules_in(place, "").objects
    for name in _some(table.regular, chain.name):
        other = table.original.chain_by_name[name]
        if other.name != chain.name:
            grown = replace(other, rules=(rule, *other.rules))
            yield Alteration(f"{rule} now in chain {name}", (shortened, grown))


def _rule_added(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Add a rule without a condition, or with one of the chain's conditions and another end."""
    rule = table.rule_at(place)
    conditions = tuple(one for one in rule.statements if isinstance(one, nft.Match))
    ends: list[tuple[nft.Statement, ...]] = [(nft.Accept(),), (nft.Drop(),)]
    ends += [(nft.Goto(name),) for name in _some(table.regular, place.chain)]
    ends += [(nft.Count(counter.name),) for counter in table.original.counters[:2]]
    ends += [(nft.Jump(name),) for name in table.regular[:1]]
    ends += [(nft.SetMark.replacing(0xFFFFFFFF, 0),), (nft.SetMark.replacing(1, 1),)]
    for condition in {(), conditions}:
        for end in ends:
            added = nft.Rule((*condition, *end))
            yield table.rules_in(place, f"{added} added", added, rule)


def _some(names: Sequence[str], near: str | None, most: int = 4) -> Iterator[str]:
    """Yield names before and behind one in the order of names, and the first and the last."""
    if not names:
        return
    place = sum(name < (near or "") for name in names)
    candidates = (names[place - 1], names[min(place + 1, len(names) - 1)], names[0], names[-1])
    yield from tuple(dict.fromkeys(candidates))[:most]


# Statements.


def _statement_deleted(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    statement = table.statement_at(place)
    if not isinstance(statement, nft.Count):
        yield table.statements_in(place, f"{statement} deleted")


def _statement_moved(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Change places with the statement before, unless that one is a verdict's place."""
    rule, position = table.rule_at(place), place.statement
    assert position is not None
    is_last = isinstance(rule.statements[position], (nft.Accept, nft.Drop, nft.Goto, nft.Jump, nft.LookUp))
    if position and not is_last:
        found = list(rule.statements)
        found[position - 1], found[position] = found[position], found[position - 1]
        yield table.rules_in(place, f"{found[position - 1]} moved to the front", nft.Rule(tuple(found)))


def _verdict_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    statement = table.statement_at(place)
    if isinstance(statement, (nft.Accept, nft.Drop, nft.Goto, nft.Jump)):
        for verdict in _other_verdicts(table, statement):
            yield table.statements_in(place, f"{statement} now {verdict}", verdict)


def _other_verdicts(table: AlterableTable, verdict: nft.Verdict) -> Iterator[nft.Verdict]:
    plain: tuple[nft.Verdict, ...] = (nft.Accept(), nft.Drop())
    yield from (other for other in plain if other != verdict)
    match verdict:
        case nft.Goto(chain):
            yield nft.Jump(chain)
        case nft.Jump(chain):
            yield nft.Goto(chain)
        case _:
            yield from map(nft.Goto, _some(table.regular, ""))


def _returns(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Go back to where the chain was jumped from, in the place of a verdict or without a condition."""
    rule = table.rule_at(place)
    if isinstance(rule.statements[-1], (nft.Accept, nft.Drop, nft.Goto, nft.Jump, nft.LookUp)):
        yield table.rules_in(place, f"{rule} returns", nft.Rule((*rule.statements[:-1], RETURN)))
    yield table.rules_in(place, "return added", nft.Rule((RETURN,)), rule)


def _target_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Lead to each other chain."""
    statement = table.statement_at(place)
    if isinstance(statement, (nft.Goto, nft.Jump)):
        for name in table.regular:
            if name != statement.chain:
                yield table.statements_in(place, f"{statement} now to {name}", replace(statement, chain=name))


def _element_target_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Lead to each other chain."""
    element = table.element_at(place)
    if isinstance(element.verdict, (nft.Goto, nft.Jump)):
        for name in table.regular:
            if name != element.verdict.chain:
                altered = replace(element, verdict=replace(element.verdict, chain=name))
                yield table.elements_in(place, f"{element} now to {name}", altered)


def _counter_deleted(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    statement = table.statement_at(place)
    if isinstance(statement, nft.Count):
        yield table.statements_in(place, f"{statement} deleted")


def _counter_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    statement = table.statement_at(place)
    if isinstance(statement, nft.Count):
        for counter in table.original.counters:
            if counter.name != statement.counter:
                other = nft.Count(counter.name)
                yield table.statements_in(place, f"{statement} now {other}", other)
        yield table.statements_in(place, f"{statement} twice", statement, statement)


def _counter_added(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Count where nothing is counted."""
    statement = table.statement_at(place)
    if not isinstance(statement, nft.Count):
        for counter in table.original.counters[:8]:
            added = nft.Count(counter.name)
            yield table.statements_in(place, f"{added} before {statement}", added, statement)


def _map_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Look up in another map of the same type."""
    statement = table.statement_at(place)
    if isinstance(statement, nft.LookUp):
        own = table.original.verdict_map_by_name[statement.verdict_map]
        for other in table.original.verdict_maps:
            if other.key_types == own.key_types and other.name != own.name:
                changed = replace(statement, verdict_map=other.name)
                yield table.statements_in(place, f"{statement} now in {other.name}", changed)


def _operator_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    statement = table.statement_at(place)
    if isinstance(statement, nft.Match):
        other = nft.Operator.NOT_EQUAL if statement.operator is nft.Operator.EQUAL else nft.Operator.EQUAL
        yield table.statements_in(place, f"{statement} negated", replace(statement, operator=other))


def _border_moved(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Move an edge of an interval, or a single number, by one."""
    statement = table.statement_at(place)
    if isinstance(statement, nft.Match) and statement.mask is None:
        for number, value in enumerate(statement.values):
            if isinstance(value, nft.Interval):
                for other in _edges_moved(value, statement.selector.key_type, ranges=True):
                    yield from _with_value(table, place, statement, number, other)


def _value_swapped(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Name another link, state, direction or family."""
    statement = table.statement_at(place)
    if isinstance(statement, nft.Match):
        for number, value in enumerate(statement.values):
            if isinstance(value, nft.Symbol):
                for other in _other_symbols(value, statement.selector.key_type):
                    yield from _with_value(table, place, statement, number, other)
            if isinstance(value, nft.NamePrefix):
                for prefix in filter(None, (value.prefix[:-1], f"{value.prefix}x")):
                    yield from _with_value(table, place, statement, number, nft.NamePrefix(prefix))


def _value_deleted(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    statement = table.statement_at(place)
    if isinstance(statement, nft.Match) and len(statement.values) > 1:
        for number in range(len(statement.values)):
            yield from _with_value(table, place, statement, number)


def _value_added(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    statement = table.statement_at(place)
    if isinstance(statement, nft.Match) and statement.mask is None:
        for number, value in enumerate(statement.values):
            beside = (
                ()
                if isinstance(value, (GroupPath, nft.NamePrefix))
                else _neighbours(value, statement.selector.key_type)
            )
            for other in beside:
                yield from _with_value(table, place, statement, number, value, other)


def _with_value(
    table: AlterableTable, place: Place, match: nft.Match, number: int, *values: nft.Comparable
) -> Iterator[Alteration]:
    """Yield the match with these values in the place of one; nothing where none of it is new."""
    found = _canonical((*match.values[:number], *values, *match.values[number + 1 :]))
    if found and found != match.values:
        yield table.statements_in(place, f"{match} now {found}", replace(match, values=found))


def _canonical(values: Iterable[nft.Comparable]) -> tuple[nft.Comparable, ...]:
    """Return values as the kernel would list them: sorted, and intervals that touch as one."""
    found: list[nft.Comparable] = []
    for value in sorted(set(values), key=lambda one: nft.sort_key((one,))):
        last = found[-1] if found else None
        if (
            isinstance(value, nft.Interval)
            and isinstance(last, nft.Interval)
            and value.first <= last.last + 1
        ):
            found[-1] = nft.Interval(last.first, max(last.last, value.last))
        else:
            found.append(value)
    return tuple(found)


def _selector_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Read the other end, or the other tuple of the session."""
    statement = table.statement_at(place)
    if isinstance(statement, nft.Match):
        for other in _counterparts(statement.selector):
            yield table.statements_in(
                place, f"{statement.selector} now {other}", replace(statement, selector=other)
            )
    if isinstance(statement, nft.LookUp):
        for number, selector in enumerate(statement.selectors):
            for other in _counterparts(selector):
                selectors = (*statement.selectors[:number], other, *statement.selectors[number + 1 :])
                changed = replace(statement, selectors=selectors)
                yield table.statements_in(place, f"{selector} now {other}", changed)


_OTHER_END = {"saddr": "daddr", "daddr": "saddr", "sport": "dport", "dport": "sport"} | {
    "proto-src": "proto-dst",
    "proto-dst": "proto-src",
}


_OTHER_LINK = {"iifname": "oifname", "oifname": "iifname"}


def _counterparts(selector: nft.Selector) -> Iterator[nft.Selector]:
    words = selector.key.split()
    turned = " ".join((*words[:-1], _OTHER_END.get(words[-1], "")))
    candidates = [replace(selector, key=turned), replace(selector, key=_OTHER_LINK.get(selector.key, ""))]
    if selector.tuple_direction is not None:
        is_original = selector.tuple_direction is nft.TupleDirection.ORIGINAL
        other = nft.TupleDirection.REPLY if is_original else nft.TupleDirection.ORIGINAL
        candidates += [replace(one, tuple_direction=other) for one in (selector, candidates[0])]
    yield from (one for one in candidates if one in nft.SELECTORS)


def _mask_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Change a bit of a mask, of a mark that is compared, or of one that is set."""
    match table.statement_at(place):
        case nft.Match(mask=int(mask), values=(nft.Interval(value, _),)) as match:
            for bit in (1 << position for position in range(_MARK_BITS)):
                other = nft.Interval.single(value & ~bit if mask & bit else value)
                changed = replace(match, mask=mask ^ bit, values=(other,))
                yield table.statements_in(place, f"bit {bit:#x} of mask {mask:#x}", changed)
                if mask & bit:
                    flipped = replace(match, values=(nft.Interval.single(value ^ bit),))
                    yield table.statements_in(place, f"bit {bit:#x} of {value:#x}", flipped)
        case nft.SetMark(keep, put) as mark:
            for bit in (1 << position for position in range(_MARK_BITS)):
                for kept, set_ in (
                    (keep | bit, put & ~bit),
                    (keep & ~bit, put & ~bit),
                    (keep | bit, put | bit),
                ):
                    changed_mark = nft.SetMark(kept, set_)
                    if changed_mark != mark:
                        what = f"bit {bit:#x} of {keep:#x} | {put:#x} now {kept:#x} | {set_:#x}"
                        yield table.statements_in(place, what, changed_mark)
        case _:
            return


def _mark_compared(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Compare the mark with a range, with several values, or without a mask."""
    match table.statement_at(place):
        case nft.Match(mask=int(mask), values=(nft.Interval(value, _),)) as found:
            low = mask & -mask
            several = _canonical((nft.Interval.single(value), nft.Interval.single(value ^ low)))
            for operator, bits, values in product(
                nft.Operator,
                (mask, None, mask >> 1),
                (found.values, several, (nft.Interval(value, value + 3 * low),), (nft.Interval(0, value),)),
            ):
                if all(one.last <= _ALL_BITS for one in values if isinstance(one, nft.Interval)):
                    changed = replace(found, operator=operator, mask=bits, values=values)
                    if changed != found:
                        yield table.statements_in(place, f"{found} now {changed}", changed)


def _mark_set(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Set bits of the mark, or clear them, before something else is done."""
    statement = table.statement_at(place)
    for bits in (*(1 << position for position in range(0, _MARK_BITS, 3)), 0xFFC00000, 0xFFFF, _ALL_BITS):
        for put in (0, bits):
            added = nft.SetMark.replacing(bits, put)
            yield table.statements_in(place, f"{added} before {statement}", added, statement)


_ALL_BITS = (1 << _MARK_BITS) - 1


def _mask_added(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Compare some bits of a number only."""
    match table.statement_at(place):
        case nft.Match(selector, (nft.Interval(first, last), *_), mask=None) as found if (
            selector.key_type in _MASKABLE and first == last
        ):
            all_bits = (1 << nft.BITS[selector.key_type]) - 1
            for mask in (all_bits >> 1, all_bits & ~1, all_bits & 0xFF & ~4):
                masked = replace(found, values=(nft.Interval.single(first & mask),), mask=mask)
                yield table.statements_in(place, f"{found} now under mask {mask:#x}", masked)


_MASKABLE = (nft.KeyType.INET_SERVICE, nft.KeyType.INET_PROTO, nft.KeyType.INTEGER, nft.KeyType.ICMPV6_TYPE)


# Base chains.


def _base_chain_deleted(_table: AlterableTable, place: Place) -> Iterator[Alteration]:
    yield Alteration("base chain deleted", removed=place.chain)


def _policy_changed(_table: AlterableTable, place: Place) -> Iterator[Alteration]:
    yield Alteration("policy now drop", foreign=(f"policy {place.chain}",))


def _table_asleep(_table: AlterableTable, _place: Place) -> Iterator[Alteration]:
    yield Alteration("table now dormant", foreign=(f"table {nft.TABLE}",))


def _priority_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    """Run at other times; by one nothing changes, beyond conntrack or NAT much does."""
    chain = table.chain_at(place)
    assert chain.hook is not None
    own = chain.hook.hook_priority
    for priority in sorted({own - 1, own + 1, -300, -201, -199, -101, -99, 0, 99, 101, 300} - {own}):
        hook = replace(chain.hook, hook_priority=priority)
        yield Alteration(f"priority now {priority}", (replace(chain, hook=hook),))


def _hook_changed(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    chain = table.chain_at(place)
    assert chain.hook is not None
    for name in _HOOKS:
        if name != chain.hook.name:
            yield Alteration(f"hook now {name}", (replace(chain, hook=replace(chain.hook, name=name)),))


def _base_chain_emptied(table: AlterableTable, place: Place) -> Iterator[Alteration]:
    yield with_rules(table.chain_at(place), "emptied")


def _base_chain_added(table: AlterableTable, _place: Place) -> Iterator[Alteration]:
    """Add a chain that drops or accepts all, or what one link has, at any hook."""
    links = [nft.Symbol(name) for name in (*table.links, *_OTHER_LINKS)]
    matches = [
        nft.Match(selector, (link,), operator)
        for selector in (nft.META_IIFNAME, nft.META_OIFNAME)
        for link in links
        for operator in nft.Operator
    ]
    conditions: list[tuple[nft.Match, ...]] = [()] * len(matches)
    conditions += [(one,) for one in matches]
    verdicts: tuple[nft.Verdict, ...] = (nft.Drop(), nft.Accept())
    for name, priority, verdict, condition in product(_HOOKS, _FOREIGN_PRIORITIES, verdicts, conditions):
        chain = nft.Chain(
            name=f"added/{name}",
            rules=(nft.Rule((*condition, verdict)),),
            hook=nft.Hook(name=name, hook_priority=priority),
        )
        words = " ".join(str(one) for one in condition)
        yield Alteration(f"base chain at {name} {priority}: {words} {verdict}", (chain,))


Alter = Callable[[AlterableTable, Place], Iterator[Alteration]]

KINDS: Mapping[str, tuple[str, Alter]] = {
    "element deleted": ("element", _element_deleted),
    "element added": ("element", _element_added),
    "element verdict changed": ("element", _element_verdict),
    "element target changed": ("element", _element_target_changed),
    "element key changed": ("element", _element_key),
    "element moved": ("element", _element_moved),
    "rule deleted": ("rule", _rule_deleted),
    "rule duplicated": ("rule", _rule_duplicated),
    "rule moved": ("rule", _rule_moved),
    "rule added": ("rule", _rule_added),
    "statement deleted": ("statement", _statement_deleted),
    "statement moved": ("statement", _statement_moved),
    "verdict changed": ("verdict", _verdict_changed),
    "target changed": ("target", _target_changed),
    "return": ("rule", _returns),
    "counter deleted": ("counter", _counter_deleted),
    "counter changed": ("counter", _counter_changed),
    "counter added": ("statement", _counter_added),
    "map changed": ("look-up", _map_changed),
    "operator changed": ("match", _operator_changed),
    "border moved": ("match", _border_moved),
    "value swapped": ("symbol", _value_swapped),
    "value deleted": ("set", _value_deleted),
    "value added": ("match", _value_added),
    "selector changed": ("reading", _selector_changed),
    "mark bits changed": ("mark", _mask_changed),
    "mark compared": ("mark", _mark_compared),
    "mark set": ("statement", _mark_set),
    "mask added": ("match", _mask_added),
    "base chain deleted": ("base chain", _base_chain_deleted),
    "base chain emptied": ("base chain", _base_chain_emptied),
    "base chain added": ("table", _base_chain_added),
    "policy changed": ("base chain", _policy_changed),
    "table asleep": ("table", _table_asleep),
    "priority changed": ("base chain", _priority_changed),
    "hook changed": ("base chain", _hook_changed),
}
"""Each kind of fault: the sort of place that it needs, and how such a place is altered."""
