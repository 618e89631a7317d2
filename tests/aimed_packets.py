"""Draw packets at the edges of a table, and packets that are aimed at one of its rules or elements.

To aim is to choose a path of rules from a base chain to the target, to collect what its matches demand, and
to draw a packet that meets that, or misses it by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sgagent.core.conditions import GroupPath
from sgagent.core.model import Family
from sgagent.core.policy import LOOPBACK
from sgagent.nft import ruleset as nft
from tests.draws import Draws
from tests.encounters import Encounter, hook_of
from tests.tracer import Session, Tuple, WirePacket


@dataclass(frozen=True, slots=True)
class Target:
    """A rule of a chain, or an element of a map, that a packet should meet."""

    chain: str | None = None
    rule: int | None = None
    verdict_map: str | None = None
    element: nft.Element | None = None


class Edges:
    """The values at and beside the ends of all that tables compare."""

    def __init__(self, *tables: nft.Ruleset) -> None:
        """Collect them."""
        self._numbers: dict[nft.KeyType, set[int]] = {key_type: {0, 1} for key_type in nft.BITS}
        self._links: set[str] = {"lo", "eth9"}
        for table in tables:
            for chain in table.chains:
                for rule in chain.rules:
                    for statement in rule.statements:
                        if isinstance(statement, nft.Match):
                            self._take(statement.selector.key_type, statement.values)
            for verdict_map in table.verdict_maps:
                for element in verdict_map.elements:
                    for key_type, value in zip(verdict_map.key_types, element.key, strict=True):
                        self._take(key_type, (value,))
        self._numbers[nft.KeyType.INET_SERVICE] |= {67, 68, 546, 547}
        self._numbers[nft.KeyType.ICMPV6_TYPE] |= {128, 129, 133}
        self._numbers[nft.KeyType.INTEGER] |= {64, 255}
        self.numbers = {key_type: sorted(found) for key_type, found in self._numbers.items()}
        self.links = sorted(self._links)

    def _take(self, key_type: nft.KeyType, values: Sequence[nft.Comparable]) -> None:
        for value in values:
            if isinstance(value, nft.NamePrefix):
                self._links.update((value.prefix, f"{value.prefix}x"))
                continue
            if isinstance(value, nft.Symbol):
                if key_type is nft.KeyType.IFNAME:
                    self._links.add(value.word)
                continue
            if isinstance(value, GroupPath):
                continue
            last = (1 << nft.BITS[key_type]) - 1
            near = (value.first - 1, value.first, value.last, value.last + 1)
            self._numbers[key_type].update(number for number in near if 0 <= number <= last)

    def number(self, draws: Draws, key_type: nft.KeyType) -> int:
        """Draw a number of a type, most often one at an edge."""
        if draws.chance(15):
            return draws.number(nft.BITS[key_type] // 8 or 1) & (1 << nft.BITS[key_type]) - 1
        return draws.choice(self.numbers[key_type])


_STATES = ("new", "new", "established", "established", "related", "untracked", "invalid")
_TRACKED = frozenset({"new", "established", "related"})
_TYPES: Mapping[tuple[Family, str, str], tuple[int, ...]] = {
    (Family.IPV4, "new", "original"): (8, 13),
    (Family.IPV4, "established", "original"): (8, 13),
    (Family.IPV4, "established", "reply"): (0, 14),
    (Family.IPV4, "related", "original"): (3, 11, 12),
    (Family.IPV4, "related", "reply"): (3, 11, 12),
    (Family.IPV6, "new", "original"): (128, 139),
    (Family.IPV6, "established", "original"): (128, 139),
    (Family.IPV6, "established", "reply"): (129, 140),
    (Family.IPV6, "related", "original"): (1, 2, 3, 4),
    (Family.IPV6, "related", "reply"): (1, 2, 3, 4),
}
"""The types of ICMP that conntrack takes for each state, as far as they matter here."""

_ICMP = {Family.IPV4: 1, Family.IPV6: 58}
_ANSWERS: Mapping[Family, Mapping[int, int]] = {
    Family.IPV4: {8: 0, 13: 14},
    Family.IPV6: {128: 129, 139: 140},
}
"""The type of each message that opens a session, and of the answer to it."""

_NO_SESSION = {Family.IPV4: {58}, Family.IPV6: {0, 1, 43, 44, 51, 59, 60}}
"""Protocols that conntrack follows in the other family only, or not as an upper layer."""

_WITH_PORTS = {6, 17, 33, 132, 136}
_LIKELY_PROTOCOLS = (6, 6, 6, 17, 17, 1, 58, 47, 132, 253)
_FIELDS = {
    "saddr": "source",
    "daddr": "destination",
    "sport": "source_port",
    "dport": "destination_port",
    "proto-src": "source_port",
    "proto-dst": "destination_port",
}
_TURNED = {
    "source": "destination",
    "destination": "source",
    "source_port": "destination_port",
    "destination_port": "source_port",
}


class Constraints:
    """What a packet must be like to take a path: for each variable the values that are left."""

    def __init__(self) -> None:
        """Begin with everything."""
        self.numbers: dict[str, list[nft.Interval]] = {}
        self.words: dict[str, set[str]] = {}
        self.bits: list[tuple[int, int, bool]] = []
        """Mask, value, and whether the mark must meet it."""

    def number(self, name: str, values: Sequence[nft.Interval], *, bits: int, inside: bool) -> None:
        """Leave a number only values inside or outside some intervals."""
        before = self.numbers.get(name, [nft.Interval(0, (1 << bits) - 1)])
        wanted = sorted(values) if inside else list(_gaps(sorted(values), bits))
        found = _common(before, wanted)
        if found:  # what can't be met is left: the packet is only likelier to get there
            self.numbers[name] = found

    def word(self, name: str, words: set[str], universe: set[str], *, inside: bool) -> None:
        """Leave a word only some values, or others than these."""
        found = self.words.get(name, universe | (words if inside else set()))
        found = found & words if inside else found - words
        if found:
            self.words[name] = found


def _gaps(values: Sequence[nft.Interval], bits: int) -> Iterator[nft.Interval]:
    start = 0
    for value in values:
        if value.first > start:
            yield nft.Interval(start, value.first - 1)
        start = max(start, value.last + 1)
    if start < 1 << bits:
        yield nft.Interval(start, (1 << bits) - 1)


def _common(some: Sequence[nft.Interval], others: Sequence[nft.Interval]) -> list[nft.Interval]:
    return [
        nft.Interval(max(one.first, other.first), min(one.last, other.last))
        for one in some
        for other in others
        if one.first <= other.last and other.first <= one.last
    ]


@dataclass(frozen=True, slots=True)
class _Step:
    """A rule that is taken on a path, or passed by."""

    rule: nft.Rule
    element: nft.Element | None = None
    """The one that its look-up finds."""

    is_taken: bool = True


_MOST_PASSED = 30


class Search:
    """Draws packets for one table, at its edges and along its paths."""

    def __init__(self, table: nft.Ruleset, edges: Edges) -> None:
        """Find which rules and elements lead to each chain."""
        self.table = table
        self.edges = edges
        self._base = {chain.name: chain for chain in table.chains if chain.hook}
        self._ways: dict[str, list[tuple[str, int, nft.Element | None]]] = {}
        self._users: dict[str, list[tuple[str, int]]] = {}
        for chain in table.chains:
            for number, rule in enumerate(chain.rules):
                for statement in rule.statements:
                    self._note(chain.name, number, statement)

    def _note(self, chain: str, number: int, statement: object) -> None:
        if isinstance(statement, (nft.Goto, nft.Jump)):
            self._ways.setdefault(statement.chain, []).append((chain, number, None))
        elif isinstance(statement, nft.LookUp):
            self._users.setdefault(statement.verdict_map, []).append((chain, number))
            for element in self.table.verdict_map_by_name[statement.verdict_map].elements:
                if isinstance(element.verdict, (nft.Goto, nft.Jump)):
                    self._ways.setdefault(element.verdict.chain, []).append((chain, number, element))

    def anything(self, draws: Draws) -> Encounter:
        """Draw a packet at the edges of the table."""
        return _Maker(draws, self.edges, Constraints(), draws.choice(("prerouting", "postrouting"))).make()

    def aimed(self, draws: Draws, target: Target) -> Encounter:
        """Draw a packet that meets a target, or misses it by little."""
        steps, hook = self._path(draws, target)
        if hook is None:
            return self.anything(draws)
        if steps and steps[-1].is_taken and draws.chance(70):
            steps += self._beyond(draws, steps[-1])
        constraints = Constraints()
        maker = _Maker(draws, self.edges, constraints, hook)
        for step in steps:
            maker.choose_words(step)
        maker.settle()
        for step in steps:
            maker.constrain(step)
        return maker.make(is_perturbed=draws.chance(40))

    def _path(self, draws: Draws, target: Target) -> tuple[list[_Step], str | None]:
        """Draw a path from a base chain; none where nothing leads there."""
        steps: list[_Step] = []  # the last one first
        if target.verdict_map is not None:
            users = self._users.get(target.verdict_map, [])
            if not users:
                return [], None
            name, number = draws.choice(users)
            steps += self._steps(draws, name, number, target.element)
        elif target.chain is not None and target.chain in self.table.chain_by_name:
            name = target.chain
            rules = self.table.chain_by_name[name].rules
            if target.rule is not None:
                inside = target.rule < len(rules) and not draws.chance(10)
                steps += self._steps(draws, name, target.rule, None, is_taken=inside)
        else:
            return [], None
        while name not in self._base:
            ways = self._ways.get(name)
            if not ways:
                return [], None
            name, number, element = draws.choice(ways)
            steps += self._steps(draws, name, number, element)
        base = self._base[name]
        hook = hook_of(base).name
        return steps[::-1], hook if hook in ("prerouting", "postrouting") else None

    def _beyond(self, draws: Draws, step: _Step) -> list[_Step]:
        """Return a path on from a rule that was taken, to where it ends."""
        steps: list[_Step] = []
        while (name := self._leads_to(draws, step)) is not None:
            rules = self.table.chain_by_name[name].rules
            if not rules:
                break
            number = draws.index(rules)
            found = self._steps(draws, name, number, None)[::-1]
            step = found[-1]
            steps += found
        return steps

    def _leads_to(self, draws: Draws, step: _Step) -> str | None:
        """Return the chain that a rule leads to; of a map, one that an element of it leads to."""
        last = step.rule.statements[-1]
        verdict: object = last
        if isinstance(last, nft.LookUp):
            elements = self.table.verdict_map_by_name[last.verdict_map].elements
            if not elements:
                return None
            verdict = (step.element or draws.choice(elements)).verdict
        return verdict.chain if isinstance(verdict, (nft.Goto, nft.Jump)) else None

    def _steps(
        self, draws: Draws, name: str, number: int, element: nft.Element | None, *, is_taken: bool = True
    ) -> list[_Step]:
        """Return the rule that is taken, and those before it that are passed by."""
        rules = self.table.chain_by_name[name].rules
        passed = [_Step(rule, is_taken=False) for rule in rules[:number]]
        if len(passed) > _MOST_PASSED:
            passed = draws.sample(passed, _MOST_PASSED)
        taken = [_Step(rules[number], element)] if is_taken and number < len(rules) else []
        return [*taken, *passed]


class _Maker:
    """Makes one packet that meets constraints."""

    def __init__(self, draws: Draws, edges: Edges, constraints: Constraints, hook: str) -> None:
        self.draws = draws
        self.edges = edges
        self.left = constraints
        self.hook = hook
        self.state = ""
        self.direction = ""
        self.family = Family.IPV4

    # Words come first: they say which names the numbers have.

    def choose_words(self, step: _Step) -> None:
        """Leave family, state, direction and link what a step allows."""
        if not step.is_taken:
            words = [one for one in step.rule.statements if isinstance(one, nft.Match)]
            if len(words) == 1 and isinstance(words[0].values[0], nft.Symbol):
                self._match_word(words[0], inside=False)
            return
        for statement in step.rule.statements:
            if isinstance(statement, nft.Match):
                self._match_word(statement, inside=True)
                self._imply(statement.selector)
            elif isinstance(statement, nft.LookUp):
                for position, selector in enumerate(statement.selectors):
                    self._imply(selector)
                    value = step.element.key[position] if step.element else None
                    if isinstance(value, nft.Symbol):
                        self._match_word(nft.Match(selector, (value,)), inside=True)
            elif isinstance(statement, nft.SetMark):
                self._imply(nft.CT_MARK)

    def _match_word(self, match: nft.Match, *, inside: bool) -> None:
        words = {value.word for value in match.values if isinstance(value, nft.Symbol)}
        words |= {f"{value.prefix}x" for value in match.values if isinstance(value, nft.NamePrefix)}
        if words and not match.asks_for_a_link:  # the hook says whether it knows one
            key_type = match.selector.key_type
            universe = set(self.edges.links) if key_type is nft.KeyType.IFNAME else set(nft.SYMBOLS[key_type])
            inside = inside is (match.operator is nft.Operator.EQUAL)
            self.left.word(key_type.value, words, universe, inside=inside)

    def _imply(self, selector: nft.Selector) -> None:
        """Draw what the selector needs to be there."""
        left = self.left
        key = selector.key
        if "ip6" in key or "icmpv6" in key or selector.kind == "exthdr":
            left.word("nf_proto", {"ipv6"}, {"ipv4", "ipv6"}, inside=True)
        elif key.startswith("ip "):
            left.word("nf_proto", {"ipv4"}, {"ipv4", "ipv6"}, inside=True)
        if selector.kind == "ct" and key != "state":
            left.word("ct_state", set(_TRACKED), set(nft.SYMBOLS[nft.KeyType.CT_STATE]), inside=True)
        if "icmpv6" in key:
            left.number("protocol", [nft.Interval.single(58)], bits=8, inside=True)
        for name, number in (("tcp", 6), ("udp", 17)):
            if key.startswith(f"{name} "):
                left.number("protocol", [nft.Interval.single(number)], bits=8, inside=True)

    def settle(self) -> None:
        """Draw state, direction and family."""
        draws, words = self.draws, self.left.words
        states = [state for state in _STATES if state in words.get("ct_state", _STATES)] or list(_STATES)
        directions = sorted(words.get("ct_dir", {"original", "reply"}))
        if directions == ["reply"]:
            states = [state for state in states if state in ("established", "related")] or ["established"]
        self.state = draws.choice(states)
        self.direction = draws.choice(directions) if self.state in ("established", "related") else "original"
        self.family = Family(draws.choice(sorted(words.get("nf_proto", {"ipv4", "ipv6"}))))

    # Numbers.

    def constrain(self, step: _Step) -> None:
        """Leave the numbers what a step allows."""
        statements = step.rule.statements
        if not step.is_taken:
            numbers = [one for one in statements if isinstance(one, nft.Match)]
            if len(numbers) == 1 or (numbers and self.draws.chance(50)):
                self._match(self.draws.choice(numbers), inside=False)
            return
        for statement in statements:
            if isinstance(statement, nft.Match):
                self._match(statement, inside=True)
            elif isinstance(statement, nft.LookUp) and step.element is not None:
                for selector, value in zip(statement.selectors, step.element.key, strict=True):
                    self._match(nft.Match(selector, (value,)), inside=True)

    def _match(self, match: nft.Match, *, inside: bool) -> None:
        intervals = [value for value in match.values if isinstance(value, nft.Interval)]
        if not intervals or match.selector == nft.CT_STATUS:
            return
        inside = inside is (match.operator is nft.Operator.EQUAL)
        key_type = match.selector.key_type
        if key_type is nft.KeyType.MARK:
            self.left.bits.append((match.mask or 0xFFFFFFFF, intervals[0].first, inside))
            return
        self.left.number(self._name(match.selector), intervals, bits=nft.BITS[key_type], inside=inside)

    def _name(self, selector: nft.Selector) -> str:
        """Return the variable that a selector reads: the packet's, or the tuple's that is not on the wire."""
        if selector.key_type is nft.KeyType.INET_PROTO:
            return "session protocol" if self.state == "related" and selector.kind == "ct" else "protocol"
        if selector.key_type in (
            nft.KeyType.ICMPV6_TYPE,
            nft.KeyType.INTEGER,
            nft.KeyType.ETHER_ADDR,
            nft.KeyType.TCP_FLAG,
        ):
            return str(selector.key_type.value)
        field = _FIELDS[selector.key.split()[-1]]
        if selector.tuple_direction is None:
            return field
        if self.state == "related":
            return f"{selector.tuple_direction.value} {field}"
        if selector.tuple_direction is self._tuple_on_the_wire():
            return field if self.hook == "prerouting" else _TURNED[field]
        return f"other {field}"

    def _tuple_on_the_wire(self) -> nft.TupleDirection:
        """Return which tuple has the addresses that are on the wire, outside of NAT."""
        is_original = (self.direction == "original") is (self.hook == "prerouting")
        return nft.TupleDirection.ORIGINAL if is_original else nft.TupleDirection.REPLY

    def _draw(self, name: str, key_type: nft.KeyType) -> int:
        left = self.left.numbers.get(name)
        if left is None:
            return self.edges.number(self.draws, key_type)
        chosen = self.draws.choice(left)
        if self.draws.chance(25):
            inside = [
                number
                for number in (self.edges.number(self.draws, key_type) for _ in range(4))
                if chosen.first <= number <= chosen.last
            ]
            if inside:
                return inside[0]
        return self.draws.choice((chosen.first, chosen.last))

    def make(self, *, is_perturbed: bool = False) -> Encounter:
        """Draw the packet and its session."""
        if not self.state:
            self.settle()
        draws = self.draws
        if is_perturbed:
            self._perturb()
        links = sorted(self.left.words.get("ifname", set(self.edges.links)))
        protocol = self._protocol()
        address = nft.KeyType.IPV4_ADDR if self.family is Family.IPV4 else nft.KeyType.IPV6_ADDR
        names = ("source", "destination", "source_port", "destination_port")
        types = (address, address, nft.KeyType.INET_SERVICE, nft.KeyType.INET_SERVICE)
        source, destination, source_port, destination_port = map(self._draw, names, types)
        packet = WirePacket(
            hook=self.hook,
            interface=draws.choice(links),
            family=self.family,
            source=source,
            destination=destination,
            protocol=protocol,
            source_port=source_port,
            destination_port=destination_port,
            icmp_type=self._draw("icmpv6_type", nft.KeyType.ICMPV6_TYPE),
            tcp_flags=self._draw("tcp_flag", nft.KeyType.TCP_FLAG) & 0xFF,
            hop_limit=self._draw("integer", nft.KeyType.INTEGER),
            state=self.state,
            packet_direction=self.direction,
        )
        packet = self._feasible(packet)
        if self.family is Family.IPV6 and packet.state not in _TRACKED:
            packet = replace(packet, is_fragment=draws.choice(self._existence()) == "exists")
        session = self._session(packet) if packet.state in _TRACKED else None
        if (
            session is not None
            and packet.protocol in (6, 17)
            and self.family is Family.IPV6
            and draws.chance(8)
        ):
            packet = _authenticated(packet)
        is_forwarded = draws.chance(30)
        if is_forwarded:
            others = [link for link in self.edges.links if link != LOOPBACK]
            packet = replace(packet, other_interface=draws.choice(others))
        return Encounter(packet=packet, session=session, is_forwarded=is_forwarded)

    def _existence(self) -> list[str]:
        """Return the words for a fragment header that are left, or most often that there is none."""
        some = nft.SYMBOLS[nft.KeyType.BOOLEAN] if self.draws.chance(20) else {"missing"}
        return sorted(self.left.words.get("boolean", some))

    def _perturb(self) -> None:
        """Move one of the numbers that are constrained just outside of what is left."""
        left = self.left
        name = self.draws.choice([*left.numbers, *left.words, *["mark"] * bool(left.bits), ""])
        if name in left.numbers:
            chosen = self.draws.choice(left.numbers[name])
            number = chosen.first - 1 if self.draws.chance(50) else chosen.last + 1
            bits = 128 if "source" in name or "destination" in name else 8
            if 0 <= number < 1 << bits:
                left.numbers[name] = [nft.Interval.single(number)]
        elif name in left.words:
            del left.words[name]
        elif name == "mark":
            place = self.draws.index(left.bits)
            mask, value, inside = left.bits[place]
            left.bits[place] = (mask, value ^ (1 << self.draws.randint(0, 31) & mask), inside)

    def _protocol(self) -> int:
        if "protocol" in self.left.numbers:
            return self._draw("protocol", nft.KeyType.INET_PROTO)
        if self.draws.chance(60):
            return self.draws.choice(_LIKELY_PROTOCOLS)
        return self.edges.number(self.draws, nft.KeyType.INET_PROTO)

    def _feasible(self, packet: WirePacket) -> WirePacket:
        """Return the packet in a state that conntrack would give it."""
        draws, family = self.draws, packet.family
        bits = family.bits
        packet = replace(
            packet,
            source=packet.source & (1 << bits) - 1,
            destination=packet.destination & (1 << bits) - 1,
            source_port=(packet.source_port or 0) & 0xFFFF,
            destination_port=(packet.destination_port or 0) & 0xFFFF,
        )
        if packet.state == "related":
            packet = replace(packet, protocol=_ICMP[family])
        elif packet.state in _TRACKED and packet.protocol in _NO_SESSION[family]:
            packet = replace(packet, state="invalid", packet_direction="original")
        if packet.protocol == _ICMP[family]:
            types = _TYPES.get((family, packet.state, packet.packet_direction))
            icmp_type = packet.icmp_type if types is None else draws.choice(types)
            return replace(packet, icmp_type=icmp_type, source_port=None, destination_port=None)
        packet = replace(packet, icmp_type=None)
        if packet.protocol in _WITH_PORTS:
            is_short = packet.state not in _TRACKED and draws.chance(15)
        else:  # whatever stands where ports would be
            is_short = draws.chance(60)
        return replace(packet, source_port=None, destination_port=None) if is_short else packet

    def _session(self, packet: WirePacket) -> Session:
        """Draw the session: the tuple on the wire, and the other one, which is its inverse without NAT."""
        draws = self.draws
        if packet.state == "related":
            drawn = self._draw("session protocol", nft.KeyType.INET_PROTO)
            protocol = 17 if drawn in _NO_SESSION[packet.family] else drawn
            original = self._tuple("original", packet.family, protocol)
            reply = self._tuple("reply", packet.family, protocol)
            reply = reply if self._has("reply") or draws.chance(40) else _inverse(original)
            original = original if self._has("original") else _inverse(reply)
        else:
            protocol = packet.protocol
            is_portless = protocol not in _WITH_PORTS
            on_wire = Tuple(
                source=packet.source,
                destination=packet.destination,
                source_port=0 if is_portless else packet.source_port or 0,
                destination_port=0 if is_portless else packet.destination_port or 0,
            )
            near = on_wire if packet.hook == "prerouting" else _inverse(on_wire)
            if self._has("other") or draws.chance(40):
                other = self._tuple("other", packet.family, protocol)
            else:
                other = _inverse(near)
            is_original = self._tuple_on_the_wire() is nft.TupleDirection.ORIGINAL
            original, reply = (near, other) if is_original else (other, near)
        if protocol == _ICMP[packet.family]:
            original, reply = self._with_types(packet, original, reply)
        is_confirmed = packet.state != "new" or draws.chance(50)
        mark = self._mark()
        return Session(
            protocol=protocol, original=original, reply=reply, mark=mark, is_confirmed=is_confirmed
        )

    def _with_types(self, packet: WirePacket, original: Tuple, reply: Tuple) -> tuple[Tuple, Tuple]:
        """Return the tuples of a session of ICMP: in the place of ports are its id, and type and code."""
        identity = self.edges.number(self.draws, nft.KeyType.INET_SERVICE)
        answers = _ANSWERS[packet.family]
        request = self.draws.choice(sorted(answers))
        if packet.state != "related":
            request = next(pair[0] for pair in answers.items() if packet.icmp_type in pair)
        return (
            replace(original, source_port=identity, destination_port=request << 8),
            replace(reply, source_port=identity, destination_port=answers[request] << 8),
        )

    def _has(self, prefix: str) -> bool:
        return any(name.startswith(f"{prefix} ") for name in self.left.numbers)

    def _tuple(self, prefix: str, family: Family, protocol: int) -> Tuple:
        address = nft.KeyType.IPV4_ADDR if family is Family.IPV4 else nft.KeyType.IPV6_ADDR
        last = (1 << family.bits) - 1
        ports = 0xFFFF if protocol in _WITH_PORTS else 0
        return Tuple(
            source=self._draw(f"{prefix} source", address) & last,
            destination=self._draw(f"{prefix} destination", address) & last,
            source_port=self._draw(f"{prefix} source_port", nft.KeyType.INET_SERVICE) & ports,
            destination_port=self._draw(f"{prefix} destination_port", nft.KeyType.INET_SERVICE) & ports,
        )

    def _mark(self) -> int:
        """Draw a mark that meets what is left, as far as one does."""
        mark = self.edges.number(self.draws, nft.KeyType.MARK)
        if self.draws.chance(50):
            mark ^= self.draws.number(2)
        if self.draws.chance(25):
            mark ^= 1 << self.draws.randint(0, 31)
        for mask, value, inside in self.left.bits:
            if inside:
                mark = (mark & ~mask) | (value & mask)
        for mask, value, inside in self.left.bits:
            if not inside and mark & mask == value and mask:
                places = [place for place in range(32) if mask >> place & 1]
                mark ^= 1 << self.draws.choice(places)
        return mark


def _authenticated(packet: WirePacket) -> WirePacket:
    """Return the packet behind an authentication header, which conntrack looks behind, and nftables does not.

    What nftables takes for ports is the beginning of that header: next header, length, and two bytes of zero.
    """
    return replace(packet, protocol=51, source_port=packet.protocol << 8, destination_port=0)


def _inverse(one: Tuple) -> Tuple:
    return Tuple(
        source=one.destination,
        destination=one.source,
        source_port=one.destination_port,
        destination_port=one.source_port,
    )
