"""Assembly of one snapshot from the objects of all documents (§1.5, §4.7, §8.1), and its version.

The version is a digest of content: equal snapshots have equal versions.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

from sgagent.core import model
from sgagent.core.conditions import NO_CONDITIONS, Conditions
from sgagent.core.errors import Origin, Problem
from sgagent.core.memo import Memo, Seam
from sgagent.core.rule_values import end_text, objects_text, protocols_text
from sgagent.documents.field import Field
from sgagent.documents.problems import Findings
from sgagent.documents.scalars import Fault, InvalidValueError
from sgagent.documents.values import UNKNOWN_GROUP_TYPE, no_object, parse_group_id

T = TypeVar("T")

_DIGITS = 12


def digest(snapshot: model.Snapshot, memo: Memo | None = None) -> str:
    """Return ``sha256:`` and 12 hexadecimal digits of the fields that snapshots are compared by.

    Files, their names and order, comments, names and descriptions do not change the digest.

    Args:
        snapshot: all objects.
        memo: of the digests of objects; it never changes the result.
    """
    memo = memo or Memo()
    groups = snapshot.security_groups
    texts = [memo.part(Seam.PARSE_CACHE, "texts", group.security_group_id) for group in groups]
    others = (*snapshot.prefix_lists, *snapshot.port_lists, *snapshot.network_interfaces)
    digests = (*memo.each("groups", _digest, groups, texts), *memo.each("others", _digest, others))
    return "sha256:" + hashlib.sha256(b"".join(digests)).hexdigest()[:_DIGITS]


def _digest(thing: object, texts: Memo | None = None) -> bytes:
    """Return the digest of one object, by the texts of a group's rules and members."""
    return hashlib.sha256(_text(thing, texts).encode()).digest()


def _text(value: object, texts: Memo | None = None) -> str:
    """Return an unambiguous text of a value; strings are quoted."""
    lines: list[str] = []
    _write(value, lines, texts or Memo())
    return "\n".join(lines)


def _write(value: object, lines: list[str], texts: Memo) -> None:
    if isinstance(value, model.CidrBlock):
        lines.append(str(value))
    elif isinstance(value, model.PortSet):
        ranges = () if value.is_all else value.ranges
        lines.append(f"({len(ranges)}")
        lines += (f"PortRange\n{first}\n{last}" for first, last in ranges)
    elif isinstance(value, tuple):
        lines.append(f"({len(value)}")
        if value and isinstance(value[0], model.CidrBlock):  # then all are
            lines.append(texts.get("addresses", (value,), lambda: "\n".join(map(str, value))))
        elif value and isinstance(value[0], model.SecurityGroupRule):
            lines += texts.each("texts", _text, value)
        else:
            for item in value:
                _write(item, lines, texts)
    elif isinstance(value, enum.Enum):
        lines.append(repr(value.value))
    elif isinstance(value, Conditions):
        lines.append(repr(tuple(value.texts.items())))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        lines.append(type(value).__name__)
        for name in _compared(type(value)):
            part = getattr(value, name)
            if name in _LISTED and len(part) == 1:
                (part,) = part
            if name not in _OPTIONAL or part not in _UNSET:
                _write(part, lines, texts)
    else:
        lines.append(repr(value))


_LISTED = ("protocols", "authorization_objects")
"""Fields whose list of one value has the digest of the value alone, as in the first versions."""

_OPTIONAL = ("expires", "conditions")
"""Fields that change a digest only where they are set."""

_UNSET = (None, NO_CONDITIONS)


@cache
def _compared(kind: type[Any]) -> tuple[str, ...]:
    """Return the fields that ``==`` compares."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.compare)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredGroup:
    """A group as one answer has it.

    DescribeSecurityGroups returns every field except the rules, DescribeSecurityGroupAttribute one page of
    the rules and no type.
    """

    place: Field = field(compare=False)
    security_group_id: str
    name: str
    account_id: str | None
    vpc_id: str | None
    group_type: model.GroupType = UNKNOWN_GROUP_TYPE
    tags: tuple[tuple[str, str], ...] = ()
    next_token: str | None = None
    """The token that requests the next page; None on the last page and on an answer that has only one."""

    inner_access_policy: model.Policy | None = None
    """None if the answer omits it."""

    rules: tuple[model.SecurityGroupRule, ...] = ()


@dataclass(slots=True)
class Collected:
    """The objects read so far.

    The reader leaves out objects with errors, because one error refuses all documents.
    """

    groups: list[model.SecurityGroup] = field(default_factory=list)
    prefix_lists: list[model.PrefixList] = field(default_factory=list)
    port_lists: list[model.PortList] = field(default_factory=list)
    interfaces: list[model.NetworkInterface] = field(default_factory=list)
    listed: list[DeliveredGroup] = field(default_factory=list)
    attributes: list[DeliveredGroup] = field(default_factory=list)
    delivered_interfaces: list[model.NetworkInterface] = field(default_factory=list)
    """From DescribeNetworkInterfaces; two pages may hold the same interface."""

    pages: dict[str, list[Field]] = field(default_factory=dict)
    """The pages of each API call, by the name and subject of the call."""

    wrong_rules: list[Field] = field(default_factory=list)
    """Native rules that had errors."""

    has_left_out: bool = False
    """Whether an object had errors, so that a valid reference to it looks dangling."""

    has_unread_file: bool = False
    """Whether a file could not be read at all."""

    @property
    def has_answers(self) -> bool:
        """Return whether any document is an API answer."""
        return bool(self.listed or self.attributes or self.delivered_interfaces or self.pages)

    def take(self, other: Collected) -> None:
        """Add the objects of another file."""
        lists = ("groups", "prefix_lists", "port_lists", "interfaces", "listed", "attributes")
        for name in (*lists, "delivered_interfaces", "wrong_rules"):
            getattr(self, name).extend(getattr(other, name))
        for question, pages in other.pages.items():
            self.pages.setdefault(question, []).extend(pages)
        self.has_left_out |= other.has_left_out
        self.has_unread_file |= other.has_unread_file

    def add(self, things: list[T], thing: T | None) -> None:
        """Add a complete object to one of the lists; None marks one with errors."""
        if thing is None:
            self.has_left_out = True
        else:
            things.append(thing)


Thing = TypeVar("Thing", model.SecurityGroup, model.PrefixList, model.PortList, model.NetworkInterface)


def assemble(
    collected: Collected, findings: Findings, version: str | None, memo: Memo, most_names: int
) -> model.Snapshot:
    """Return the snapshot, sorted by ids; it is valid only if ``findings`` has no errors."""
    groups = _unique(collected.groups, "security_group_id", findings)
    settled = memo.each("settled", _settle, groups)
    for second, first in chain.from_iterable(alike for _, alike in settled):
        message = f"the same rule as {first.origin}; the two count as one"
        remedy = "remove one, or give each a rule_id"
        findings.add(Problem.warning(second.origin, "duplicate_rule", None, message, remedy))
    snapshot = model.Snapshot(
        version=version or "",
        security_groups=tuple(group for group, _ in settled),
        prefix_lists=_unique(collected.prefix_lists, "prefix_list_id", findings),
        port_lists=_unique(collected.port_lists, "port_list_id", findings),
        network_interfaces=_unique(collected.interfaces, "network_interface_id", findings),
    )
    _check_rule_ids(snapshot, collected.wrong_rules, findings)
    _check_mac_addresses(snapshot, findings)
    _check_names(snapshot, findings, most_names)
    if not collected.has_unread_file:
        _check_plain_ids(snapshot, collected.wrong_rules, findings)
    return snapshot if version else replace(snapshot, version=digest(snapshot, memo))


def _unique(things: Iterable[Thing], field: str, findings: Findings) -> tuple[Thing, ...]:
    """Return the objects sorted by id; add an error for each duplicate id."""
    id_of: Callable[[Thing], str] = attrgetter(field)
    by_id: dict[str, Thing] = {}
    for thing in things:
        first = by_id.setdefault(id_of(thing), thing)
        if first is not thing:
            _note_duplicate(findings, field, thing.origin, first.origin, id_of(thing))
    return tuple(by_id[key] for key in sorted(by_id))


_Alike = tuple[tuple[model.SecurityGroupRule, model.SecurityGroupRule], ...]
"""Pairs of a duplicate rule and the first rule that it equals or shares an id with."""


def _settle(group: model.SecurityGroup) -> tuple[model.SecurityGroup, _Alike]:
    """Return the group with its rules sorted by id, each with an id, without duplicates (§4.7)."""
    rules: list[model.SecurityGroupRule] = []
    derived: dict[str, model.SecurityGroupRule] = {}
    alike: list[tuple[model.SecurityGroupRule, model.SecurityGroupRule]] = []
    for rule in group.rules:
        rule_id = rule.rule_id or derive_rule_id(group.security_group_id, rule)
        if rule.rule_id:
            rules.append(rule)
        elif rule_id in derived:
            alike.append((rule, derived[rule_id]))
        else:
            derived[rule_id] = replace(rule, rule_id=rule_id)
            rules.append(derived[rule_id])
    return replace(group, rules=tuple(sorted(rules, key=attrgetter("rule_id")))), tuple(alike)


def _check_rule_ids(snapshot: model.Snapshot, wrong: Sequence[Field], findings: Findings) -> None:
    """Add an error for each rule id that occurs twice, also where a rule has other errors."""
    used: dict[str, Origin] = {}
    of_right = ((rule.rule_id, rule.origin) for group in snapshot.security_groups for rule in group.rules)
    of_wrong = ((place.at("rule_id").written, place.origin) for place in wrong)
    for rule_id, origin in chain(of_right, of_wrong):
        if rule_id in used:
            _note_duplicate(findings, "rule_id", origin, used[rule_id], rule_id)
        elif rule_id:
            used[rule_id] = origin


def _check_mac_addresses(snapshot: model.Snapshot, findings: Findings) -> None:
    """Add a warning for interfaces that share a MAC address: it does not identify one of them."""
    seen: dict[str, model.NetworkInterface] = {}
    for interface in snapshot.network_interfaces:
        if interface.mac_address is None:
            continue
        first = seen.setdefault(interface.mac_address, interface)
        if first is not interface:
            message = f"the MAC address is also that of {first.network_interface_id} ({first.origin})"
            remedy = "give each interface its own MAC address, or distinct IP addresses"
            value = interface.mac_address
            findings.add(Problem.warning(interface.origin, "shared_mac_address", value, message, remedy))


def _check_plain_ids(snapshot: model.Snapshot, wrong: Sequence[Field], findings: Findings) -> None:
    """Add an error for each object that is no address, and that is the id of no group either.

    Of rules that have other errors, too.
    """
    named = chain.from_iterable(map(_plain_ids, snapshot.security_groups))
    of_right = ((rule.origin.at("authorization_object"), text) for rule, text in named)
    groups, faults = snapshot.group_by_id, dict[str, Fault]()
    for origin, text in chain(of_right, chain.from_iterable(map(_plain_ids_of_wrong, wrong))):
        if text not in groups:
            if text not in faults:
                is_compared = len(faults) * len(groups) < _MOST_COMPARED
                faults[text] = no_object(text, groups if is_compared else ())
            fault = faults[text]
            findings.add(Problem.error(origin, fault.code, text, fault.message, fault.remedy))


_MOST_COMPARED = 200_000
"""Pairs of an object and a group's id that are compared for hints; more would take the agent minutes."""


def _plain_ids_of_wrong(rule: Field) -> Iterator[tuple[Origin, str]]:
    """Yield such ids of a rule that has errors, with their places."""
    if "authorization_object" in rule.entries:
        objects = rule.at("authorization_object")
        for one in (objects, *objects.parts()):
            text = one.node
            if isinstance(text, str) and not text.startswith("sg-"):
                with suppress(InvalidValueError):  # it is another object, or another error
                    yield one.origin, parse_group_id(text)


def _plain_ids(group: model.SecurityGroup) -> Iterator[tuple[model.SecurityGroupRule, str]]:
    """Yield native rules with the ids without ``sg-`` by which they name groups; answers know groups."""
    return (
        (rule, named.security_group_id)
        for rule, named in _objects(group)
        if isinstance(named, model.GroupReference)
        and not (named.account_id or named.security_group_id.startswith("sg-"))
        and "rules[" in rule.origin.path
    )


_RuleObject = tuple[model.SecurityGroupRule, model.AuthorizationObject]


def _objects(group: model.SecurityGroup) -> Iterator[_RuleObject]:
    return ((rule, named) for rule in group.rules for named in rule.authorization_objects)


def _check_names(snapshot: model.Snapshot, findings: Findings, most: int) -> None:
    """Add an error at the first rule whose name is one too many (§12.3)."""
    found: set[model.NameReference] = set()
    for rule, name in chain.from_iterable(map(_objects, snapshot.security_groups)):
        if isinstance(name, model.NameReference):
            found.add(name)
        if len(found) > most:
            origin, message = rule.origin.at("authorization_object"), f"more than {most} names"
            remedy = "raise limits.names in the configuration"
            findings.add(Problem.error(origin, "too_many_names", str(name), message, remedy))
            return


_IN_ANSWERS = {
    "security_group_id": "SecurityGroupId",
    "rule_id": "SecurityGroupRuleId",
    "prefix_list_id": "PrefixListId",
    "port_list_id": "PortRangeListId",
    "network_interface_id": "NetworkInterfaceId",
}
"""The API's name of each id field; the API's field names start with a capital letter."""


def _note_duplicate(findings: Findings, field: str, second: Origin, first: Origin, object_id: str) -> None:
    """Add the error that two objects have the same id."""
    is_native = second.path.rpartition(".")[2][:1].islower()
    name = field if is_native else _IN_ANSWERS[field]
    message, remedy = f"the {name} is already used by {first}", "use another id, or remove one of the two"
    findings.add(Problem.error(second.at(name), "duplicate_id", object_id, message, remedy))


def derive_rule_id(security_group_id: str, rule: model.SecurityGroupRule) -> str:
    """Return the id of a rule that was written without one: ``auto-`` and 16 hexadecimal digits (§4.7).

    It depends on the group and on everything that decides what the rule does; not on its place, its
    description or the id that the given value happens to carry.
    """
    some_ports = (rule.ports, rule.source_ports)
    ports, source_ports = ("" if ports == model.ALL_PORTS else ports for ports in some_ports)
    content = "\n".join(
        (
            security_group_id,
            rule.direction.value,
            rule.policy.value,
            str(rule.priority),
            protocols_text(rule.protocols),
            str(ports),
            str(source_ports),
            objects_text(rule.authorization_objects),
            str(rule.local_address or ""),
            *((end,) if (end := end_text(rule)) else ()),
            *rule.conditions.texts.values(),
        )
    )
    return "auto-" + hashlib.sha256(content.encode()).hexdigest()[:16]
