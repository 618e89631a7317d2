"""Diff of two sets of definitions: object by object, and groups rule by rule."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from sgagent.core.conditions import Conditions
from sgagent.core.model import (
    ALL_PORTS,
    NetworkInterface,
    PortList,
    PortSet,
    PrefixList,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.rule_values import end_text, instant_text, objects_text, protocols_text

Thing = SecurityGroup | PrefixList | PortList | NetworkInterface | SecurityGroupRule


class EditKind(enum.Enum):
    """The object of an edit."""

    GROUP = "security group"
    RULE = "rule"
    PREFIX_LIST = "prefix list"
    PORT_LIST = "port list"
    INTERFACE = "network interface"


class Edit(enum.Enum):
    """The change of an object or rule."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Edited:
    """Something that is not as it was."""

    edit: Edit
    kind: EditKind
    name: str
    """Its id; of a rule, the group's and its own, with a slash between."""

    details: tuple[str, ...] = ()
    """Fields that changed, as ``name: before -> after``; of a rule that comes or goes, what it says."""


def edits(old: Snapshot, new: Snapshot) -> Iterator[Edited]:
    """Yield the edits, in a total order: groups with their rules first."""
    yield from _groups(old.group_by_id, new.group_by_id)
    yield from _things(EditKind.PREFIX_LIST, old.prefix_list_by_id, new.prefix_list_by_id)
    yield from _things(EditKind.PORT_LIST, old.port_list_by_id, new.port_list_by_id)
    yield from _things(EditKind.INTERFACE, old.interface_by_id, new.interface_by_id)


def _groups(old: Mapping[str, SecurityGroup], new: Mapping[str, SecurityGroup]) -> Iterator[Edited]:
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        changed = _changed(before, after, apart_from=("rules",))
        if before is None or after is None or changed:
            yield Edited(_edit(before, after), EditKind.GROUP, name, changed)
        rules = [{rule.rule_id: rule for rule in group.rules} if group else {} for group in (before, after)]
        for rule_id in sorted(rules[0].keys() | rules[1].keys()):
            was, is_now = rules[0].get(rule_id), rules[1].get(rule_id)
            if was != is_now:
                details = _changed(was, is_now) or tuple(rule_text(rule) for rule in (was, is_now) if rule)
                yield Edited(_edit(was, is_now), EditKind.RULE, f"{name}/{rule_id}", details)


def _things(kind: EditKind, old: Mapping[str, Thing], new: Mapping[str, Thing]) -> Iterator[Edited]:
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before != after:
            yield Edited(_edit(before, after), kind, name, _changed(before, after))


def _edit(before: Thing | None, after: Thing | None) -> Edit:
    if before is None:
        return Edit.ADDED
    return Edit.REMOVED if after is None else Edit.CHANGED


def _changed(before: Thing | None, after: Thing | None, apart_from: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the fields that differ; none where one of the two is not there."""
    if before is None or after is None:
        return ()
    return tuple(
        f"{field.name}: {_shown(getattr(before, field.name))} -> {_shown(getattr(after, field.name))}"
        for field in fields(before)
        if field.compare
        and field.name not in apart_from
        and getattr(before, field.name) != getattr(after, field.name)
    )


def rule_text(rule: SecurityGroupRule) -> str:
    """Return a rule's fields in one line."""
    words = [
        rule.direction.value,
        rule.policy.value,
        f"priority {rule.priority}",
        protocols_text(rule.protocols),
        *([_shown(rule.ports)] if any(one.has_ports for one in rule.protocols) else []),
        *([] if rule.source_ports == ALL_PORTS else [f"from ports {_shown(rule.source_ports)}"]),
        objects_text(rule.authorization_objects),
        *([f"at {rule.local_address}"] if rule.local_address else []),
        *([f"until {end}"] if (end := end_text(rule)) else []),
        *(f"{name} {text}" for name, text in rule.conditions.texts.items()),
    ]
    return " ".join(words)


_SHOWN = 6
"""Items of a list that are shown before the rest is counted."""


def _shown(value: object) -> str:
    """Return a value of a field for people."""
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, Conditions):
        value = tuple(f"{name} {text}" for name, text in value.texts.items())
    if isinstance(value, PortSet):
        value = "all ports" if value.is_all else value.texts
    if not isinstance(value, tuple):
        return "none" if value is None else str(value)
    items = [_shown(item) for item in value[:_SHOWN]]
    more = f" and {len(value) - _SHOWN} more" if len(value) > _SHOWN else ""
    return (",".join(items) or "none") + more
