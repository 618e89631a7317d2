"""``sgagent clone``: write a copy of a group with new ids, to be changed and tried beside it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from sgagent.cli import inputs
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import option_adder
from sgagent.cli.output import replace_file
from sgagent.core.errors import UsageError, count, nearest, printable
from sgagent.core.model import GroupReference, SecurityGroup, SecurityGroupRule, Snapshot
from sgagent.core.rule_values import canonical_objects, free_id
from sgagent.documents import DocumentFile, parse_documents
from sgagent.documents.scalars import InvalidValueError
from sgagent.documents.values import parse_group_id
from sgagent.documents.writer import as_yaml, write_document


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    add("group", "the id of the group to copy")
    add("new", "the id of the copy")
    add("--output PATH", "write to this file, or into this existing directory")
    add("--json", "print one JSON object")
    inputs.add_definitions_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Write the copy as a document of its own."""
    settings = load_settings(options)
    snapshot = inputs.fetch(settings, options.definitions, inputs.UNNAMED).snapshot
    copy = clone_group(snapshot, options.group, options.new)
    native = write_document(Snapshot(version="", security_groups=(copy,)))
    text = f"# Written by `sgagent clone {options.group} {options.new}`.\n{as_yaml(native)}"
    parse_documents([DocumentFile("<clone>", text.encode())], settings.limits)  # refuses what agents do
    place = options.output
    if place is not None and place.is_dir():
        place /= f"{options.new}.yaml"
    if place is not None and place.exists():
        raise UsageError(f"{place}: there is such a file: name another, or remove it")
    if place is not None:
        replace_file(place, text)
    if options.json:
        print(json.dumps({"document": native, "output": None if place is None else str(place)}))
    elif place is None:
        sys.stdout.write(text)
    else:
        print(printable(f"wrote {options.new} with {count(len(copy.rules), 'rule')}: {place}"))
    return 0


def clone_group(snapshot: Snapshot, name: str, new: str) -> SecurityGroup:
    """Return a copy of a group: without members, with new ids, and with itself where it names itself.

    Raises:
        UsageError: there is no such group, or the new id is taken or no id.
    """
    group = find_group(snapshot, name)
    try:
        parse_group_id(new)
    except InvalidValueError as error:
        fault = error.faults[0]
        raise UsageError(f"{new}: {fault.message} ({fault.remedy})") from None
    if new in snapshot.group_by_id:
        raise UsageError(f"{new}: the definitions have a group of this id already")
    taken = {rule.rule_id for one in snapshot.security_groups for rule in one.rules}
    rules = []
    for rule in group.rules:
        rules.append(_clone_rule(rule, name, new, taken))
        taken.add(rules[-1].rule_id)
    named = f"{group.name} (copy)" if group.name else ""
    return replace(group, security_group_id=new, name=named, member_addresses=(), rules=tuple(rules))


def find_group(snapshot: Snapshot, name: str) -> SecurityGroup:
    """Return a group by its id.

    Raises:
        UsageError: there is none.
    """
    group = snapshot.group_by_id.get(name)
    if group is None:
        near = nearest(name, snapshot.group_by_id)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UsageError(f"{name}: the definitions have no such group{hint}")
    return group


def _clone_rule(rule: SecurityGroupRule, name: str, new: str, taken: set[str]) -> SecurityGroupRule:
    wanted = _id_of_copy(rule.rule_id, new)
    return replace(_renaming(rule, name, new), rule_id=free_id(wanted, taken))


def _renaming(rule: SecurityGroupRule, name: str, new: str) -> SecurityGroupRule:
    """Return a rule that names another group where it named one."""
    objects = (
        replace(one, security_group_id=new)
        if isinstance(one, GroupReference) and one.security_group_id == name
        else one
        for one in rule.authorization_objects
    )
    return replace(rule, authorization_objects=canonical_objects(objects))


def _id_of_copy(rule_id: str, new: str) -> str:
    return f"{rule_id[:_LONGEST]}-{new[:_LONGEST]}"


_LONGEST = 60
"""Of each part of a new id, which is at most 128 characters long."""


def with_other_group(snapshot: Snapshot, name: str, other: str) -> Snapshot:
    """Return definitions in which another group's rules stand in the place of a group's.

    A rule that equals one of the group in all but its id, or is a copy of it by its id, has its id. Members
    stay those of the group.

    Raises:
        UsageError: there is no such group, or it is the same one.
    """
    if name == other:
        raise UsageError(f"{name} is named twice: name two groups")
    old, new = find_group(snapshot, name), find_group(snapshot, other)
    ids = {_id_of_copy(rule.rule_id, other): rule.rule_id for rule in old.rules}
    equal = {replace(rule, rule_id=""): rule.rule_id for rule in old.rules}
    rules: dict[str, SecurityGroupRule] = {}
    for rule in new.rules:
        own = replace(_renaming(rule, other, name), rule_id="")
        rule_id = equal.get(own) or ids.get(rule.rule_id, rule.rule_id)
        rule_id = rule.rule_id if rule_id in rules else rule_id
        rules[rule_id] = replace(own, rule_id=rule_id)
    stand_in = replace(
        new,
        security_group_id=name,
        member_addresses=old.member_addresses,
        rules=tuple(rules[one] for one in sorted(rules)),
    )
    groups = tuple(stand_in if one is old else one for one in snapshot.security_groups if one is not new)
    return replace(snapshot, security_groups=groups)
