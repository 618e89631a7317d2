"""Write our table otherwise than it is compiled: one statement of it, cut off, and in other shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address

from bench.linear import Order, render_linear
from bench.packetcost import LAYOUT
from bench.policies import INTERFACE, BenchPolicy
from bench.traffic import HOST_ADDRESS
from sgagent.compiler.compilation import compile_, without_logging
from sgagent.compiler.linear import MOST_LINES
from sgagent.core.addresses import AddressSet
from sgagent.core.link_patterns import LinkPattern
from sgagent.core.model import PORTED, CidrBlock, Policy
from sgagent.core.policy import (
    FlowLogging,
    Peer,
    ResolvedInterface,
    ResolvedPattern,
    ResolvedPolicy,
    ResolvedRule,
)
from sgagent.nft.marks import first_state
from sgagent.nft.ruleset import (
    TH_DPORT,
    Goto,
    Interval,
    LookUp,
    Match,
    Operator,
    Ruleset,
    destination_port,
)
from sgagent.nft.text import element_text, render

_LISTED = 10_000
"""More lines than any policy measured here has: all of them are lists."""


def statements() -> Mapping[str, str]:
    """Return a ruleset for each statement: the line that all have in common, one more, and an accept."""
    lines = {
        "nothing more": "",
        "tcp dport 7": "tcp dport 7 goto other",
        "ct original proto-dst 7, of tcp": "ct protocol tcp ct original proto-dst 7 goto other",
        "ip saddr": "ip saddr 192.0.2.77 goto other",
        "ct original ip saddr": "ct original ip saddr 192.0.2.77 goto other",
        "ct state new": "ct state == new goto other",
        "ct state, in a map": "ct state vmap { invalid : goto other, untracked : goto other }",
        "ip saddr, in a map": "ip saddr vmap @addresses",
        "protocol and port, in a map": "meta l4proto . th dport vmap @ports",
        "a range of networks, in a map": "ip saddr vmap @networks",
        "a counter of the table": 'counter name "one"',
        "a counter of the rule": "counter",
        "the mark set": "ct mark set ct mark & 0x0041ffff | 0x00410000",
    }
    return {name: _STATEMENT.replace("LINE", line) for name, line in lines.items()}


_STATEMENT = f"""
table inet statement {{
    counter one {{ }}
    map addresses {{
        type ipv4_addr : verdict
        elements = {{ {", ".join(f"192.0.2.{number} : drop" for number in range(40, 80))} }}
    }}
    map networks {{
        type ipv4_addr : verdict
        flags interval
        elements = {{ {", ".join(f"192.0.2.{number}/31 : drop" for number in range(40, 80, 4))} }}
    }}
    map ports {{
        type inet_proto . inet_service : verdict
        elements = {{ {", ".join(f"tcp . {port} : drop" for port in range(1, 30))} }}
    }}
    chain other {{
        accept
    }}
    chain on {{
        LINE
        accept
    }}
    chain prerouting {{
        type filter hook prerouting priority -150; policy accept;
        iifname "{INTERFACE}" goto on
    }}
}}
"""


def stages(policy: BenchPolicy) -> Mapping[str, str]:
    """Return our ruleset cut off before each stage by an accept: a stage costs the difference to the next."""
    whole = _text(policy)
    hook = r"prerouting \{\n\t\ttype .*\n"
    ends = {
        "the door": hook,
        "known, invalid or new": rf"{hook}\t\tiifname .*\n",
        "the far end, or the list": rf"peers/{INTERFACE}/ingress/ipv4 \{{\n",
        "the port": rf"(?:class|everyone)/{INTERFACE}/ingress/ipv4\S* \{{\n",
        "the leaf": rf"(?:rule|default)/{INTERFACE}/\S+ \{{\n",
        "remembering and accepting": rf"accept/{INTERFACE}/ingress \{{\n",
    }
    cut = {f"before {name}": _cut(whole, begin) for name, begin in ends.items()}
    cut["before the leaf"] = re.sub(r'counter name "rule/\S+ goto \S+', "accept", cut["before the leaf"])
    return {**cut, "the whole": whole}


def _cut(text: str, begin: str) -> str:
    """Return a ruleset in which chains that begin so accept there."""
    return re.sub(rf"(?m)^(\tchain {begin})", r"\1\t\taccept\n", text)


@dataclass(frozen=True, slots=True)
class Shape:
    """Another way in which the table could be made."""

    name: str
    text: Callable[[BenchPolicy], str]
    most_rules: int = _LISTED
    """Of policies for which it is measured."""


def shapes() -> tuple[Shape, ...]:
    """Return ours, its parts, and the rejected alternatives."""
    return (
        Shape("sgagent", _text),
        Shape("sgagent, look-ups alone", lambda policy: _text(policy, most_lines=0)),
        Shape("sgagent, a list alone", lambda policy: _text(policy, most_lines=_LISTED), 100),
        Shape("each rule a leaf", lambda policy: render(_with_leaves(policy), persist=False)),
        Shape("a list, members apart", lambda policy: _apart(_text(policy, most_lines=_LISTED)), 10),
        Shape(
            "look-ups, sessions read from their tuples",
            lambda policy: _by_session(_text(policy, most_lines=0)),
        ),
        Shape("look-ups, maps of declared size", lambda policy: _sized(_text(policy, most_lines=0))),
        Shape(
            "look-ups, counters of the rules' own", lambda policy: _own_counters(_text(policy, most_lines=0))
        ),
        Shape("look-ups, nothing counted", lambda policy: _uncounted(_text(policy, most_lines=0))),
        Shape("one map of address, protocol and port", _concatenated, 100),
        *(Shape(order.value, partial(_linear, order), 1_000) for order in Order),
    )


def features(policy: BenchPolicy) -> Mapping[str, str]:
    """Return our ruleset without the optional features of rules and interfaces, and with them (§12)."""
    (plain,) = policy.resolved.interfaces
    listed = replace(plain, ingress=replace(plain.ingress, rules=tuple(_listed(plain.ingress.rules))))
    host = CidrBlock.parse(str(HOST_ADDRESS))
    others = [
        CidrBlock.parse(text) for text in ("198.51.100.0/28", *(f"192.0.2.{end}" for end in range(20, 27)))
    ]
    one, many = AddressSet.of([host]), AddressSet.of([host, *others])
    interfaces = {
        "none of them": plain,
        "several objects and protocols in each rule": listed,
        "sources checked, one address": replace(plain, own_addresses=one),
        "sources checked, eight addresses and a network": replace(plain, own_addresses=many),
        "all": replace(listed, own_addresses=many),
    }
    policies = {name: ResolvedPolicy(interfaces=(each,)) for name, each in interfaces.items()}
    policies["links of a prefix"] = _of_pattern(plain, f"{INTERFACE[:-1]}*")
    return {name: _compiled(each) for name, each in policies.items()}


def _of_pattern(interface: ResolvedInterface, text: str) -> ResolvedPolicy:
    """Return the policy whose only interface is bound by a pattern."""
    pattern = ResolvedPattern(pattern=LinkPattern(text=text), judge=replace(interface, name=text))
    return ResolvedPolicy(patterns=(pattern,))


def _listed(rules: Sequence[ResolvedRule]) -> Iterator[ResolvedRule]:
    """Yield the rules for TCP and UDP, each with the object of the one before and one of IPv6, too."""
    ipv6 = AddressSet.of([CidrBlock.parse("2001:db8::/32")])
    for before, rule in zip((*rules[-1:], *rules), rules, strict=False):
        addresses = rule.peer.addresses.union(before.peer.addresses, ipv6)
        name = f"{rule.peer.name}, {before.peer.name}, 2001:db8::/32"
        yield replace(rule, protocols=PORTED, peer=Peer(name=name, addresses=addresses))


def _with_leaves(policy: BenchPolicy, most_lines: int = MOST_LINES) -> Ruleset:
    """Return the table in which each rule that accepts has a leaf, as it has where accepts are logged."""
    state = first_state(policy.resolved.remembering, LAYOUT)
    logging = FlowLogging(verdicts=frozenset({Policy.ACCEPT}))
    found = compile_(policy.resolved, LAYOUT, state, logging, most_lines=most_lines)
    return without_logging(found.ruleset)


def _table(policy: ResolvedPolicy, most_lines: int = MOST_LINES) -> Ruleset:
    state = first_state(policy.remembering, LAYOUT)
    return compile_(policy, LAYOUT, state, most_lines=most_lines).ruleset


def _compiled(policy: ResolvedPolicy, most_lines: int = MOST_LINES) -> str:
    return render(_table(policy, most_lines), persist=False)


def _text(policy: BenchPolicy, most_lines: int = MOST_LINES) -> str:
    return _compiled(policy.resolved, most_lines)


def _linear(order: Order, policy: BenchPolicy) -> str:
    return render_linear(policy.resolved, order)


def _apart(text: str) -> str:
    """Return a ruleset in which members that are neighbours are no range."""

    def numbered(found: re.Match[str]) -> str:
        first, last = (int(IPv4Address(end)) for end in found.groups())
        return f"ip saddr {{ {', '.join(str(IPv4Address(number)) for number in range(first, last + 1))} }}"

    return re.sub(r"ip saddr ([0-9.]+)-([0-9.]+)", numbered, text)


def _by_session(text: str) -> str:
    """Return a ruleset in which every packet is sent to the chains that read sessions."""
    return text.replace("ct state established,related jump live/", "goto live/").replace(
        "goto peers/", "goto live/peers/"
    )


def _sized(text: str) -> str:
    """Return a ruleset whose hash maps can't grow, which the kernel keeps in a simpler table."""

    def declared(found: re.Match[str]) -> str:
        if "flags interval" in found[0]:
            return found[0]
        return f"{found[1]}\t\tsize {found[2].count(' : ')}\n{found[2]}"

    return re.sub(r"(?ms)^(\tmap [^\n]*\n[^\n]*\n)(.*?^\t\}\n)", declared, text)


def _own_counters(text: str) -> str:
    """Return a ruleset whose counters are parts of the rules, and can't be read alone."""
    return re.sub(r'counter name "[^"]*"', "counter", text)


def _uncounted(text: str) -> str:
    return re.sub(r'counter name "[^"]*" ', "", text)


def _concatenated(policy: BenchPolicy) -> str:
    """Return a ruleset in which address, protocol and port are looked up together; a miss is for everyone."""
    table, place = _with_leaves(policy, most_lines=0), f"{INTERFACE}/ingress/ipv4"
    prefixes = (f"peers/{place}", f"networks/{place}")
    elements = [
        f"{_addresses(key)} . {row}"
        for verdict_map in table.verdict_maps
        if verdict_map.name.startswith(prefixes)
        for element in verdict_map.elements
        for key in element.key
        if isinstance(key, Interval) and isinstance(element.verdict, Goto)
        for row in _rows(table, element.verdict.chain)
    ]
    together = (
        "\tmap together {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n\t\tflags interval\n"
        f"\t\telements = {{ {', '.join(elements)} }}\n\t}}\n\n"
    )
    text = render(table, persist=False).replace("\tchain ", f"{together}\tchain ", 1)
    text = re.sub(rf"\t\tip saddr vmap @networks/{place}\S*\n", "", text)
    return text.replace(
        f"\t\tip saddr vmap @peers/{place}\n", "\t\tip saddr . meta l4proto . th dport vmap @together\n"
    )


def _addresses(interval: Interval) -> str:
    first, last = IPv4Address(interval.first), IPv4Address(interval.last)
    return str(first) if interval.is_single else f"{first}-{last}"


def _rows(table: Ruleset, chain: str) -> Iterator[str]:
    """Yield the comparisons and look-ups of a class's chain: protocol, ports and verdict."""
    settled = 0
    for rule in table.chain_by_name[chain].rules:
        match rule.statements:
            case (Match(selector, (Interval(settled, _),), Operator.NOT_EQUAL), Goto()):
                pass  # all other protocols leave, and ports are compared without asking for it
            case (Match(selector, (Interval(first, last),)), Goto(leaf)) if selector == TH_DPORT:
                yield f"{settled} . {first}-{last} : goto {leaf}"
            case (Match(selector, (Interval(first, last),)), Goto(leaf)) if selector in _PORTS:
                yield f"{_PORTS[selector]} . {first}-{last} : goto {leaf}"
            case (LookUp(_, verdict_map),):
                found = table.verdict_map_by_name[verdict_map]
                yield from (element_text(element, found.key_types) for element in found.elements)
            case _:
                pass  # the guard, and what leads on


_PORTS = {destination_port(protocol): str(protocol) for protocol in PORTED}


def by_length(policy: BenchPolicy) -> Mapping[str, str]:
    """Return the rulesets of a policy as a list, by look-ups, and as others write lists."""
    return {
        "a list": _text(policy, most_lines=_LISTED),
        "look-ups": _text(policy, most_lines=0),
        Order.PORT_FIRST.value: render_linear(policy.resolved, Order.PORT_FIRST),
    }
