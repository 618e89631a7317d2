"""Tell what an object of the store refers to, before it is read as a document together with all others.

What has errors refers to nothing as far as they go; they show later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.model import GroupReference, PrefixListReference
from sgagent.documents import Limits
from sgagent.documents.addresses import parse_object
from sgagent.documents.budget import Budget, OverBudgetError
from sgagent.documents.characters import refuse_bidirectional
from sgagent.documents.field import Field, Reading
from sgagent.documents.findings import Findings
from sgagent.documents.scalars import parse_id
from sgagent.documents.tree import MalformedError
from sgagent.sources.etcd.messages import KeyValue


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What the rules of a group refer to, by their ids."""

    groups: frozenset[str] = frozenset()
    prefix_lists: frozenset[str] = frozenset()
    port_lists: frozenset[str] = frozenset()


def references_of_rules(item: KeyValue, limits: Limits) -> References:
    """Return what the rules of a group's key refer to.

    Args:
        item: the key.
        limits: what is in one may cost no more; beyond, it refers to nothing.
    """
    rules = [rule for rule in _listed(item, "rules") if isinstance(rule, dict)]
    reading = _reading(item, limits)
    try:
        objects = {parse_object(field) for field in _texts(rules, "authorization_object", reading)}
    except OverBudgetError:
        return References()
    return References(
        groups=frozenset(one.security_group_id for one in objects if isinstance(one, GroupReference)),
        prefix_lists=frozenset(one.prefix_list_id for one in objects if isinstance(one, PrefixListReference)),
        port_lists=frozenset(filter(None, map(parse_id, _texts(rules, "port_list_id", reading)))),
    )


def groups_of_interface(item: KeyValue, limits: Limits) -> frozenset[str]:
    """Return the groups that are attached to the interface of a key."""
    reading = _reading(item, limits)
    names = (name for name in _listed(item, "security_group_ids") if isinstance(name, str))
    return frozenset(filter(None, (parse_id(Field(name, reading)) for name in names)))


def read_json(value: bytes) -> dict[str, object] | None:
    """Return the object that JSON holds; None if it is none, or holds characters that documents may not."""
    try:
        text = value.decode("utf-8-sig")
        refuse_bidirectional(text)
        read = json.loads(text)
    except (ValueError, RecursionError, MalformedError):
        return None
    return read if isinstance(read, dict) else None


def _listed(item: KeyValue, name: str) -> list[object]:
    """Return a list that the object of a key holds; none where there is no such list."""
    listed = (read_json(item.value) or {}).get(name)
    return listed if isinstance(listed, list) else []


def _texts(rules: list[dict[str, object]], name: str, reading: Reading) -> Iterator[Field]:
    """Go through the texts that rules have in a field, each once."""
    texts = (rule.get(name) for rule in rules)
    return (Field(text, reading) for text in dict.fromkeys(text for text in texts if isinstance(text, str)))


def _reading(item: KeyValue, limits: Limits) -> Reading:
    """Return a reading in which problems are told to nobody."""
    return Reading(file=item.key, findings=Findings(0), budget=Budget(limits=limits))
