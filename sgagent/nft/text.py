"""A table as text in nft's grammar, which ``nft -f -`` can load; plans as commands, and drift in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import assert_never

from sgagent.core.errors import printable
from sgagent.core.model import ICMP, ICMPV6, PORTED, TCP, UDP, Family, address_text
from sgagent.nft import ruleset as nft, transactions as ops
from sgagent.nft.diff import make_plan
from sgagent.nft.names import live_chain
from sgagent.nft.ruleset import BITS, FAMILY, TABLE, VERDICT_WORDS, Ruleset, prefix_length
from sgagent.nft.transactions import Operation


def render(ruleset: Ruleset, *, persist: bool, destroys: bool = True) -> str:
    """Return a text that replaces whatever table of ours stands by this one.

    Counters first, then maps, then chains, base chains before the others, and these in the order in which a
    packet meets them.

    Args:
        ruleset: what to write.
        persist: whether to declare that the table outlives its owner, which nft knows from 1.1 on.
        destroys: whether kernel and nft know how to destroy a table, as Linux does from 6.3 on.
    """
    blocks: list[list[str]] = [["flags persist"]] if persist else []
    if ruleset.counters:
        blocks.append([_counter(counter) for counter in ruleset.counters])
    if ruleset.meter_sets:
        blocks.append([f"set {one.name}{_block(_properties(one))}" for one in ruleset.meter_sets])
    blocks += [list(_verdict_map(verdict_map)) for verdict_map in ruleset.verdict_maps]
    blocks += [list(_chain(chain)) for chain in sorted(ruleset.chains, key=_place_in_text)]
    texts = ("".join(f"\t{line}\n" for line in block) for block in blocks)
    removal: Iterable[Operation] = (ops.DestroyTable(),)
    lines = write_additions(removal if destroys else ops.without_destroy(removal))
    return f"{lines}\ntable {_OURS} {{\n" + "\n".join(texts) + "}\n"


_READING_ORDER = (
    *("ingress", "egress", "neighbours", "session", "sources", "checked", "peers"),
    *(f"not-{protocol}" for protocol in PORTED),
    *("class", "everyone", "cell"),
    *(
        "platform",
        "failsafe",
        "inner",
        "rule",
        "within",
        "over_limit",
        "default",
        "invalid",
        "spoofed",
        "accept",
    ),
)
"""First words of chains, as a packet may meet them; others come last."""


def _place_in_text(chain: nft.Chain) -> tuple[bool, int, str, bool]:
    """Return a sort key that puts a chain for live sessions after the chain that it belongs to."""
    name = chain.name.removeprefix(live_chain(""))
    word = name.partition("/")[0]
    rank = _READING_ORDER.index(word) if word in _READING_ORDER else len(_READING_ORDER)
    return (chain.hook is None, rank, name, chain.name != name)


def rule_text(rule: nft.Rule) -> str:
    """Return a rule as one line."""
    return " ".join(_statement(statement) for statement in rule.statements)


def element_text(element: nft.Element, key_types: tuple[nft.KeyType, ...]) -> str:
    """Return an element as nft writes it, ``tcp . 443 : goto rule/eth0/https``."""
    return f"{key_text(element.key, key_types)} : {_verdict(element.verdict)}"


def quoted(text: str) -> str:
    """Return a text between quotes; nft knows no escapes, so signs that would end the text are replaced.

    Comments are the agent's own words, and this holds even if they were not.
    """
    return '"' + "".join("?" if sign == '"' or not sign.isprintable() else sign for sign in text) + '"'


def _counter(counter: nft.Counter) -> str:
    properties = "".join(f"{one}; " for one in _properties(counter))
    return f"counter {counter.name} {{ {properties}}}"


def _verdict_map(verdict_map: nft.VerdictMap) -> Iterator[str]:
    yield f"map {verdict_map.name} {{"
    yield from (f"\t{one}" for one in _properties(verdict_map))
    if verdict_map.elements:
        texts = [element_text(element, verdict_map.key_types) for element in verdict_map.elements]
        separator = ",\n\t\t\t     "
        yield f"\telements = {{ {separator.join(texts)} }}"
    yield "}"


def _chain(chain: nft.Chain) -> Iterator[str]:
    yield f"chain {chain.name} {{"
    yield from (f"\t{one};" if one.startswith("type") else f"\t{one}" for one in _properties(chain))
    yield from (f"\t{'# ' * ops.asks_for_group(rule)}{rule_text(rule)}" for rule in chain.rules)
    yield "}"


def _properties(declared: nft.Chain | nft.Counter | nft.MeterSet | nft.VerdictMap) -> list[str]:
    """Return a declaration's properties besides kind and name, rules and elements."""
    if isinstance(declared, nft.VerdictMap):
        flags = ["flags interval"] if declared.is_interval else []
        return [f"typeof {' . '.join(_EXPRESSIONS[one] for one in declared.key_types)} : verdict", *flags]
    if isinstance(declared, nft.MeterSet):
        bounds = f"size {declared.size}", "flags dynamic,timeout", f"timeout {declared.timeout}s"
        return [f"typeof {_EXPRESSIONS[declared.key_type]}", *bounds]
    comment = [f"comment {quoted(declared.comment)}"] if declared.comment else []
    if isinstance(declared, nft.Counter) or not declared.hook:
        return comment
    hook = f"type filter hook {declared.hook.name} priority {declared.hook.hook_priority}; policy accept"
    return [hook, *comment]


_EXPRESSIONS: Mapping[nft.KeyType, str] = {
    nft.KeyType.IPV4_ADDR: "ip saddr",
    nft.KeyType.IPV6_ADDR: "ip6 saddr",
    nft.KeyType.INET_PROTO: "meta l4proto",
    nft.KeyType.INET_SERVICE: "th dport",
    nft.KeyType.IFNAME: "iifname",
    nft.KeyType.CT_STATE: "ct state",
    nft.KeyType.CT_DIR: "ct direction",
    nft.KeyType.CT_STATUS: "ct status",
    nft.KeyType.NF_PROTO: "meta nfproto",
    nft.KeyType.MARK: "ct mark",
    nft.KeyType.ICMPV6_TYPE: "icmpv6 type",
    nft.KeyType.ETHER_ADDR: "ether daddr",
    nft.KeyType.TCP_FLAG: "tcp flags",
    nft.KeyType.INTEGER: "ip6 hoplimit",
    nft.KeyType.UID: "meta skuid",
}
"""What has the type of a key. Where a map is declared by the type itself, libnftables 1.1.2 and later attach
user data to it on which nft 0.9.8 to 1.0.9 crashes, whatever it is to list."""


def _statement(statement: nft.Statement) -> str:
    match statement:
        case nft.Match():
            return _match(statement)
        case nft.LookUp(selectors, verdict_map):
            return f"{' . '.join(map(selector_text, selectors))} vmap @{verdict_map}"
        case nft.Count(counter):
            return f'counter name "{counter}"'
        case nft.Limit(per_second, burst):
            return f"limit rate {per_second}/second burst {burst} packets"
        case nft.Meter(name, selector, rate, seconds, burst):
            limit = f"limit rate over {rate}/{nft.RATE_WORDS[seconds]} burst {burst} packets"
            return f"update @{name} {{ {selector_text(selector)} {limit} }}"
        case nft.Log(prefix, group):
            return f"log prefix {quoted(prefix)} group {group}"
        case nft.SetMark():
            return f"ct mark set {_mark_value(statement)}"
        case _:
            return _verdict(statement)


def _match(match: nft.Match) -> str:
    left = selector_text(match.selector)
    if match.asks_for_a_link:
        return f"{left.removesuffix('name')} {'!= ' if match.operator is nft.Operator.NOT_EQUAL else ''}0"
    values = [_value(value, match.selector.key_type) for value in match.values]
    operator = "!= " if match.operator is nft.Operator.NOT_EQUAL else ""
    if match.mask is not None:
        left = f"{left} & {match.mask:#010x}"
        operator = f"{match.operator.value} "
    if match.selector.key_type is nft.KeyType.CT_STATE and match.operator is nft.Operator.EQUAL:
        # Compared as a number, which a packet's state always is: nft asks for bits if nothing else is said.
        return f"{left} == {values[0]}" if len(values) == 1 else f"{left} {','.join(values)}"
    right = values[0] if len(values) == 1 else f"{{ {', '.join(values)} }}"
    return f"{left} {operator}{right}"


def _mark_value(statement: nft.SetMark) -> str:
    if statement.keep == statement.put:
        return f"{statement.put:#010x}"
    kept = "ct mark" if statement.keep == nft.ALL_BITS else f"ct mark & {statement.keep:#010x}"
    return f"{kept} | {statement.put:#010x}" if statement.put else kept


def _verdict(verdict: nft.Verdict) -> str:
    word = VERDICT_WORDS[type(verdict)]
    return f"{word} {verdict.chain}" if isinstance(verdict, (nft.Goto, nft.Jump)) else word


def selector_text(selector: nft.Selector) -> str:
    """Return the selector of a rule, ``ct original ip saddr``."""
    if selector == nft.SOCKET_GROUP:
        return "xt match cgroup"
    if selector.kind == "payload" or selector.key in ("iifname", "oifname"):
        return selector.key
    if selector.tuple_direction:
        return f"ct {selector.tuple_direction.value} {selector.key}"
    return f"{selector.kind} {selector.key}"


def key_text(key: tuple[nft.Value, ...], key_types: tuple[nft.KeyType, ...]) -> str:
    """Return the key of an element, ``tcp . 443``."""
    if len(key) == len(key_types) == 1:  # as nearly all are
        return _value(key[0], key_types[0])
    return " . ".join(_value(value, key_type) for value, key_type in zip(key, key_types, strict=True))


def _value(value: nft.Comparable, key_type: nft.KeyType) -> str:
    if isinstance(value, nft.Interval):  # as nearly all are
        return _interval(value, key_type) if value.last > value.first else _word(value.first, key_type)
    word = nft.checked_word(value, key_type)
    return f'"{word}"' if key_type in (nft.KeyType.IFNAME, nft.KeyType.CONTROL_GROUP) else word


def _interval(interval: nft.Interval, key_type: nft.KeyType) -> str:
    first = _number(interval.first, key_type)
    if key_type in (nft.KeyType.IPV4_ADDR, nft.KeyType.IPV6_ADDR):
        length = prefix_length(interval.first, interval.last, BITS[key_type])
        if length is not None:
            return f"{first}/{length}"
    return f"{first}-{_number(interval.last, key_type)}"


_PROTOCOL_WORDS = {protocol.number: str(protocol) for protocol in (ICMP, TCP, UDP, ICMPV6)}
"""Those that every nft knows by these names; others stay numbers, as do the ends of ranges."""


def _word(number: int, key_type: nft.KeyType) -> str:
    if key_type is nft.KeyType.INET_PROTO:
        return _PROTOCOL_WORDS.get(number, str(number))
    return _number(number, key_type)


def _number(number: int, key_type: nft.KeyType) -> str:
    if key_type is nft.KeyType.IPV4_ADDR:
        return address_text(Family.IPV4, number)
    if key_type is nft.KeyType.IPV6_ADDR:
        return address_text(Family.IPV6, number)
    if key_type is nft.KeyType.ETHER_ADDR:
        return nft.mac_text(number)
    return f"{number:#010x}" if key_type is nft.KeyType.MARK else str(number)


_OURS = f"{FAMILY} {TABLE}"


def write_additions(
    operations: Iterable[Operation],
    table_flags: Sequence[str] = (),
    verb: ops.DeclarationVerb = ops.DeclarationVerb.ADD,
) -> str | None:
    """Return the operations in order; None if one's object may not be ours, or it has no command in nft.

    Args:
        operations: what to do.
        table_flags: what the table is declared with: ``owner``, ``persist``.
        verb: what declares chains, maps and counters.
    """
    lines: list[str] = []
    for operation in operations:
        line = _line(operation, table_flags, verb.value)
        if line is None:
            return None
        lines.append(line)
    return "\n".join([*lines, ""])


def _line(operation: Operation, table_flags: Sequence[str], verb: str) -> str | None:
    match operation:
        case ops.AddRule(chain, rule) if not ops.asks_for_group(rule):
            return f"add rule {_OURS} {chain} {rule_text(rule)}"
        case ops.AddCounter(counter) if counter.comment and verb != ops.DeclarationVerb.ADD.value:
            return None  # nft's grammar creates no counter that has a comment; its JSON does
        case (
            ops.AddChain(declared)
            | ops.AddVerdictMap(declared)
            | ops.AddMeterSet(declared)
            | ops.AddCounter(declared)
        ):
            properties = _block(_properties(declared))
            return f"{verb} {_KINDS[type(declared)]} {_OURS} {declared.name}{properties}"
        case ops.AddElements(name, key_types, elements):
            texts = ", ".join([element_text(element, key_types) for element in elements])
            return f"add element {_OURS} {name} {{ {texts} }}"
        case ops.AddTable():
            return f"add table {_OURS}" + _block([f"flags {', '.join(table_flags)}"] if table_flags else [])
        case ops.DestroyTable():
            return f"destroy table {_OURS}"
        case ops.DeleteTable():
            return f"delete table {_OURS}"
        case _:
            return None


_KINDS = {nft.Chain: "chain", nft.VerdictMap: "map", nft.MeterSet: "set", nft.Counter: "counter"}


def _block(parts: Sequence[str]) -> str:
    """Return the block in braces behind a name; nothing for an empty one."""
    return f" {{ {'; '.join(parts)}; }}" if parts else ""


_MOST_DIFFERENCES = 5
_SHOWN = 3
"""Elements that are shown before the rest is counted."""


def describe(operation: Operation) -> str:
    """Return the operation as a line for people, safe to print."""
    return printable(f"{_verb(operation)} {subject(operation)}{_detail(operation)}")


def subject(operation: Operation) -> str:
    """Return the operation's object, like ``chain rule/eth0/sgr-1`` or ``rule in chain ingress/eth0``."""
    match operation:
        case ops.AddTable() | ops.DestroyTable() | ops.DeleteTable():
            return f"table {FAMILY} {TABLE}"
        case (
            ops.AddChain(declared)
            | ops.AddVerdictMap(declared)
            | ops.AddMeterSet(declared)
            | ops.AddCounter(declared)
        ):
            return f"{_KINDS[type(declared)]} {declared.name}"
        case ops.AddRule(chain=name):
            return f"rule in chain {name}"
        case ops.AddElements(name, key_types, elements) | ops.DeleteElements(name, key_types, elements):
            if len(elements) == 1:
                return f"element {key_text(elements[0].key, key_types)} of map {name}"
            return f"{len(elements)} elements of map {name}"
        case ops.AddResetWatch():
            return f"counter {ops.RESET_WATCH}"
        case ops.Flush(kind, name) | ops.Delete(kind, name):
            return f"{kind} {name}"
        case _:
            assert_never(operation)


def differences(expected: Ruleset, observed: Ruleset | None, foreign: Iterable[str]) -> tuple[str, ...]:
    """Return another process's changes: the first few objects that are not as expected, safe to print.

    Args:
        expected: what should stand.
        observed: what stands; None where there is no table.
        foreign: what else stands, as :func:`sgagent.nft.own_table.decode_ruleset` names it.
    """
    if observed is None:
        return (f"table {FAMILY} {TABLE}",)
    plan = make_plan(expected, observed, foreign)
    if plan.is_anew:  # it names every object, not the one at fault
        return (f"table {FAMILY} {TABLE}",)
    subjects = (printable(subject(operation)).removeprefix("rule in ") for operation in plan.operations)
    return tuple(islice(dict.fromkeys(subjects), _MOST_DIFFERENCES))


def _verb(operation: Operation) -> str:
    if isinstance(operation, ops.Delete) and operation.kind not in _KINDS.values():
        return "delete foreign"
    if isinstance(operation, (ops.Delete, ops.DeleteElements, ops.DestroyTable, ops.DeleteTable)):
        return "delete"
    return "empty" if isinstance(operation, ops.Flush) else "add"


def _detail(operation: Operation) -> str:
    match operation:
        case ops.AddRule(rule=rule):
            return f": {rule_text(rule)}"
        case ops.AddChain(chain) if chain.comment:
            return f": {chain.comment}"
        case ops.AddElements(_, key_types, elements) | ops.DeleteElements(_, key_types, elements):
            shown = ", ".join(element_text(element, key_types) for element in elements[:_SHOWN])
            return f": {shown}" + (", …" if len(elements) > _SHOWN else "")
        case _:
            return ""
