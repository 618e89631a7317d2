"""Importer of the console's export of one group: its rules as JSON, or as a table with a header row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sgagent.core.errors import DocumentError, Origin, Problem, UsageError
from sgagent.core.model import Direction, GroupType, Policy
from sgagent.core.rule_values import decimal
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.misspellings import console_word, ports_slip
from sgagent.importers.aws_rules import ImportEffect, Notes
from sgagent.importers.context import Imported

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "rule_id": ("rule id", "security group rule id", "securitygroupruleid"),
    "direction": ("direction", "rule direction"),
    "policy": ("action", "policy", "authorization policy"),
    "priority": ("priority",),
    "protocol": ("protocol", "protocol type", "ip protocol", "ipprotocol"),
    "port_range": ("port", "ports", "port range", "portrange", "destination port range"),
    "authorization_object": (
        "authorization object",
        "authorization objects",
        "source",
        "destination",
        "source/destination",
        "sourcecidrip",
        "destcidrip",
    ),
    "description": ("description", "rule description"),
}
"""The fields of rules, with the words of header rows for them, in lower case."""

_NEEDED = ("policy", "protocol", "port_range", "authorization_object")
_SEPARATORS = re.compile(r"[,;\n]")
_API_TYPES = {GroupType.BASIC: "normal", GroupType.ADVANCED: "enterprise"}
_API_WORDS = {word: group_type for group_type, word in _API_TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The facts that an export leaves out."""

    security_group_id: str
    group_type: GroupType | None = None
    """None where the export has to say it: only basic groups have an inner access policy of accept, and only
    rules of basic groups name groups."""

    direction: Direction | None = None
    """Of all rules, where no column says it."""


def import_console(files: Sequence[DocumentFile], limits: Limits, known: Known) -> Imported:
    """Return the group that exports are of: its rules of both directions may be in two files.

    Raises:
        DocumentError: the file has errors.
        UsageError: it lacks something that has to be named.
    """
    tables: dict[str, _Rows] = {}
    answers: list[dict[str, Any]] = []
    types: list[GroupType] = []
    inner: set[str] = set()
    for file in files:
        text = file.content.decode("utf-8-sig", errors="replace")
        if text.lstrip()[:1] in ("[", "{"):
            found = _parsed(text, file.name)
            types += [_API_WORDS[word] for word in _said_types(found) if word in _API_WORDS]
            inner |= {_said(found, "InnerAccessPolicy")} - {""}
            answers += _permissions(found, file.name, known)
        else:
            tables[file.name] = list(_rows(text, file.name, known))
    rules = [rule for rows in tables.values() for _, rule in rows]
    if rules and answers:
        raise UsageError("import console: JSON and tables at once: import one after the other")
    types += [GroupType.BASIC] * (any(map(_names_group, rules)) or any(map(_names_group, answers)))
    if known.group_type is None and not types:
        raise UsageError(
            "import console: nothing in the export says the type: --type basic or --type advanced"
        )
    known = replace(known, group_type=known.group_type or types[0])
    if len(files) > 1:
        for name, table in tables.items():  # of errors, each file names its own lines
            parse_documents([DocumentFile(name, _native(table, known))], limits)
    rows = [(1, rule) for rule in rules] if len(files) > 1 else next(iter(tables.values()), [])
    content = _of_api(answers, known) if answers else _native(rows, known)
    named = DocumentFile(files[0].name if len(files) == 1 else "<console>", content)
    snapshot, problems = parse_documents([named], limits)
    (group,) = snapshot.security_groups
    notes = Notes()
    if not inner and group.group_type is GroupType.BASIC:
        message = "its inner access policy is missing; it is read as drop"
        notes.add(ImportEffect.NARROWED, Origin(file=named.name), group.security_group_id, message)
    policy = Policy.ACCEPT if inner == {"accept"} else Policy.DROP
    snapshot = replace(snapshot, security_groups=(replace(group, inner_access_policy=policy),))
    return Imported(snapshot=snapshot, notes=tuple(notes), problems=problems)


def _parsed(text: str, name: str) -> Any:  # noqa: ANN401 - whatever the file has
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _refused(name, 0, "not JSON", "the export as it was downloaded") from None


def _said_types(found: object) -> Iterator[str]:
    """Yield the types that an answer names; an inner access policy of accept is of basic groups only."""
    yield _said(found, "SecurityGroupType")
    yield "normal" if _said(found, "InnerAccessPolicy") == "accept" else ""


def _said(found: object, field: str) -> str:
    return f"{found.get(field) or ''}".lower() if isinstance(found, dict) else ""


def _names_group(rule: Mapping[str, object]) -> bool:
    """Return whether a rule names a group, which the cloud takes in basic groups only."""
    objects = rule.get("authorization_object", "")
    named = [rule.get("SourceGroupId"), rule.get("DestGroupId")]
    named += objects if isinstance(objects, list) else [objects]
    return any(isinstance(one, str) and one.rpartition("/")[2].startswith("sg-") for one in named)


def _permissions(found: Any, name: str, known: Known) -> list[dict[str, Any]]:  # noqa: ANN401 - as above
    """Return the rules of a bare list, or of an answer of the API."""
    if isinstance(found, dict):
        inner = found.get("Permissions", found)
        found = inner.get("Permission", inner) if isinstance(inner, dict) else inner
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _refused(name, 0, "no list of rules", "a list of rules as the API has them")
    if known.direction is not None:
        found = [{"Direction": known.direction.value} | one for one in found]
    if any("Direction" not in one for one in found):
        raise UsageError("the rules have no Direction: name it by --direction ingress or --direction egress")
    rules: list[dict[str, Any]] = found
    return rules


def _of_api(permissions: list[dict[str, Any]], known: Known) -> bytes:
    """Return the answers of the API that rules are a part of."""
    group = known.security_group_id
    listed = {"SecurityGroupId": group, "SecurityGroupType": _API_TYPES[_type(known)]}
    answers = [
        {"SecurityGroups": {"SecurityGroup": [listed]}},
        {"SecurityGroupId": group, "Permissions": {"Permission": permissions}},
    ]
    return json.dumps(answers).encode()


def _type(known: Known) -> GroupType:
    assert known.group_type is not None  # noqa: S101 - it is asked for before; for the type checker
    return known.group_type


_Rows = Sequence[tuple[int, Mapping[str, object]]]
"""The rules of a table, each with its line."""


def _native(rows: _Rows, known: Known) -> bytes:
    """Return rules as a native document, which has each of them in its line of the table."""
    group = {"security_group_id": known.security_group_id, "type": _type(known).value}
    text = json.dumps({"version": 1, "security_groups": [group | {"rules": list[object]()}]})
    parts, end = [text.removesuffix("]}]}")], 1
    for line, rule in rows:
        parts += ["," * (len(parts) > 1), "\n" * (line - end), json.dumps(rule)]
        end = line
    return "".join((*parts, "]}]}")).encode()


def _rows(text: str, name: str, known: Known) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the rules of a table, each with its line.

    Raises:
        DocumentError: the table can't be read.
    """
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    rows = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
    line = 1
    try:
        columns = _columns(next(rows, []), name)
        if "direction" not in columns and known.direction is None:
            raise UsageError(
                "no column has the direction: name it by --direction ingress or --direction egress"
            )
        line = rows.line_num + 1
        for row in rows:
            if any(cell.strip() for cell in row):
                missing = [field for field in _NEEDED if columns[field] >= len(row)]
                if missing:
                    message = f"the row has no cell for {', '.join(missing)}"
                    raise _refused(name, line, message, "as many cells as the header row")
                cells = {field: row[at].strip() for field, at in columns.items() if at < len(row)}
                yield line, _rule(cells, Origin(file=name, line=line), known)
            line = rows.line_num + 1
    except csv.Error as error:
        raise _refused(name, line, f"not a table: {error}", "the export as it was downloaded") from None


def _columns(header: list[str], name: str) -> dict[str, int]:
    """Return which field is in which column.

    Raises:
        DocumentError: a field that each rule needs is in none.
    """
    words = [" ".join(cell.lower().split()) for cell in header]
    found = {
        field: next(at for at, word in enumerate(words) if word in names)
        for field, names in _COLUMNS.items()
        if any(word in names for word in words)
    }
    missing = [field for field in _NEEDED if field not in found]
    if missing:
        message = f"the header row has no column for {', '.join(missing)}"
        raise _refused(name, 1, message, f"columns like {', '.join(_COLUMNS[one][0] for one in missing)}")
    return found


def _rule(cells: Mapping[str, str], origin: Origin, known: Known) -> dict[str, object]:
    """Return a rule as native documents have it, of the words of the console."""
    way = known.direction.value if known.direction is not None else ""
    protocol, _, ports = _word(cells["protocol"]).partition(", with port_range ")
    rule: dict[str, object] = {
        "direction": _word(cells.get("direction", "")).lower() or way,
        "policy": _word(cells["policy"]).lower(),
        "protocol": protocol.lower(),
        "authorization_object": _several(cells["authorization_object"]),
    }
    if cells.get("priority"):
        rule["priority"] = _number(cells["priority"], origin)
    written = _several(cells["port_range"])
    found = [_port(one) for one in ([written] if isinstance(written, str) else written)]
    every = ports or "-1/-1"
    rule["port_range"] = every if found in ([""], ["all"], ["-1/-1"]) else found
    for field in ("rule_id", "description"):
        if cells.get(field):
            rule[field] = cells[field]
    return rule


def _word(text: str) -> str:
    slip = console_word(text)
    return slip[1] if slip else text


def _port(text: str) -> str:
    slip = ports_slip(text)
    return slip[1] if slip else text.lower()


def _several(text: str) -> str | list[str]:
    found = [part.strip() for part in _SEPARATORS.split(text) if part.strip()]
    return found if len(found) > 1 else "".join(found)


def _number(text: str, origin: Origin) -> int:
    number = decimal(text, 999_999_999)
    if number is None:
        raise _refused(
            origin.file, origin.line, f"not a priority: {text[:40]!r}", "a whole number from 1 to 100"
        )
    return number


def _refused(name: str, line: int, message: str, remedy: str) -> DocumentError:
    return DocumentError([Problem.error(Origin(file=name, line=line), "bad_export", None, message, remedy)])
