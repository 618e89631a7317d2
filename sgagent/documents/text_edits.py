"""Edits of the text of native documents, YAML or JSON: all other text stays, comments and order included.

Whoever edits reads the result and compares: a text with anchors may mean something else than was wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import yaml

from sgagent.documents import scalars
from sgagent.documents.yaml_text import LOADER

Fields = Mapping[str, object]


class NotEditableError(Exception):
    """Say why a text can't be edited in place."""


@dataclass(frozen=True, slots=True, order=True)
class Replacement:
    """A part of a text, and the text that takes its place."""

    start: int
    end: int
    """In characters; equal to the start where nothing is taken out."""

    text: str


def replacements(text: str, edits: Mapping[str, Fields | None]) -> tuple[Replacement, ...]:
    """Return the replacements that make some edits, in order.

    Args:
        text: of a file, without a byte order mark.
        edits: by the path of a rule, like ``security_groups[0].rules[2]``: the fields to set, or None to
            take the rule out.

    Raises:
        NotEditableError: the text has no such place, or one that can't be edited alone.
    """
    if any(separator in text for separator in scalars.LINE_SEPARATORS):
        raise NotEditableError("it has line separators that YAML counts as ends of lines")
    try:
        root = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError:
        raise NotEditableError("the YAML library can't read its places") from None
    found: list[Replacement] = []
    removed: dict[str, set[int]] = {}
    for path, fields in edits.items():
        if fields is None:
            listing, _, place = path.rpartition("[")
            removed.setdefault(listing, set()).add(int(place.rstrip("]")))
        else:
            rule = _at(root, path)
            for name, value in fields.items():
                found.append(_set(text, rule, name, value))
    for path, places in removed.items():
        found += _take_out(text, _at(root, path), _key_of(root, path), places)
    return tuple(sorted(found))


def apply_replacements(text: str, changes: Iterable[Replacement]) -> str:
    """Return the text with replacements made, which don't overlap."""
    parts, place = [], 0
    for one in changes:
        parts += [text[place : one.start], one.text]
        place = one.end
    return "".join((*parts, text[place:]))


_STEP = re.compile(r"\[([0-9]+)\]|([^.\[\]]+)")


def _steps(path: str) -> Iterator[int | str]:
    for match in _STEP.finditer(path):
        yield match[2] or int(match[1])


def _at(root: yaml.Node | None, path: str) -> yaml.Node:
    """Return the node at a path."""
    node = root
    for step in _steps(path):
        if isinstance(step, str) and isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == step), None)
        elif isinstance(step, int) and isinstance(node, yaml.SequenceNode) and step < len(node.value):
            node = node.value[step]
        else:
            node = None
    if node is None:
        raise NotEditableError(f"{path} is not there")
    return node


def _key_of(root: yaml.Node | None, path: str) -> yaml.Node:
    """Return the node of the name of the last step of a path, which is a name."""
    parent, _, name = path.rpartition(".")
    node = _at(root, parent)
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    for key, _value in pairs:
        if key.value == name:
            found: yaml.Node = key
            return found
    raise NotEditableError(f"{path} is not there")


def _set(text: str, rule: yaml.Node, name: str, value: object) -> Replacement:
    """Return the edit that sets a field of a rule; a new one comes behind the policy."""
    if not isinstance(rule, yaml.MappingNode):
        raise NotEditableError("a rule is no mapping")
    pairs = {key.value: (key, found) for key, found in rule.value}
    if name in pairs:
        _, node = pairs[name]
        end = _end(node)
        is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        # A list in block style begins on a line of its own, below its name.
        start = pairs[name][0].end_mark.index if is_block else node.start_mark.index
        lead = ": " if is_block else ""
        return Replacement(start, end, lead + _flow(value))
    if "policy" not in pairs:
        raise NotEditableError("a rule has no policy")
    key, policy = pairs["policy"]
    if rule.flow_style:
        written = json.dumps(name) if key.style == '"' else name
        return Replacement(policy.end_mark.index, policy.end_mark.index, f", {written}: {_flow(value)}")
    end = _end_of_line(text, policy.end_mark.index)
    indent = " " * key.start_mark.column
    return Replacement(end, end, f"\n{indent}{name}: {_flow(value)}")


def _flow(value: object) -> str:
    """Return a value as both YAML and JSON read it, but for plain texts, which YAML reads."""
    return json.dumps(value)


def _take_out(text: str, listing: yaml.Node, key: yaml.Node, places: set[int]) -> Iterator[Replacement]:
    """Yield the edits that take items out of a list."""
    if not isinstance(listing, yaml.SequenceNode) or max(places) >= len(listing.value):
        raise NotEditableError("a list of rules is shorter than it was")
    if listing.flow_style:
        yield from _take_out_of_flow(listing, places)
        return
    if len(places) == len(listing.value):
        place = text.index(":", key.end_mark.index) + 1
        yield Replacement(place, place, " []")
    for number in sorted(places):
        yield _without_lines(text, listing.value[number])


def _take_out_of_flow(listing: yaml.SequenceNode, places: set[int]) -> Iterator[Replacement]:
    """Yield the edits that take items out of a list between brackets, each with a comma."""
    starts = [item.start_mark.index for item in listing.value]
    ends = [item.end_mark.index for item in listing.value]
    first_kept = next((n for n in range(len(starts)) if n not in places), len(starts))
    for number in sorted(places):
        if number > first_kept:
            yield Replacement(ends[number - 1], ends[number], "")
        else:
            is_last = number + 1 == len(starts)
            yield Replacement(starts[number], ends[number] if is_last else starts[number + 1], "")


def _without_lines(text: str, item: yaml.Node) -> Replacement:
    """Return the edit that takes an item's lines out, from its dash to the end of its last line."""
    before = text[: item.start_mark.index].rstrip(" \n\r")
    start = before.rfind("\n") + 1
    if before[start:].strip() != "-":
        raise NotEditableError(f"line {item.start_mark.line + 1} holds more than the rule")
    end = _end_of_line(text, _end(item))
    return Replacement(start, min(end + 1, len(text)), "")


def _end_of_line(text: str, place: int) -> int:
    """Return where the line of a place ends, which may be the place itself behind a block scalar."""
    if place and text[place - 1] == "\n":
        return place - 1
    end = text.find("\n", place)
    return len(text) if end < 0 else end


def _end(node: yaml.Node) -> int:
    """Return where the text of a node ends; that of the library is where the next token begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        key, value = last if isinstance(last, tuple) else (last, last)
        after_key: int = key.end_mark.index
        return max(_end(value), after_key)
    found: int = node.end_mark.index
    return found
