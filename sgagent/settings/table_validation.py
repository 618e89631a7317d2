"""Validate the tables of the configuration: values by their constraints, then keys against each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, get_type_hints

from sgagent.core.link_patterns import LinkPattern, is_pattern
from sgagent.core.model import Direction
from sgagent.documents.field import nearest_name
from sgagent.documents.scalars import MISSING_FIELD, UNKNOWN_FIELD, Fault, InvalidValueError
from sgagent.settings.constraints import SettingsTable, Written, word_of, wrong_type_of
from sgagent.settings.sources import SOURCE_TABLES, FileSourceSettings, SeveralSources, SourceType
from sgagent.settings.tables import LISTS, NO_KEYS, TABLES, ExemptionTable, InterfaceTable, Settings

_NAMES = tuple("interface" if field.name == "interfaces" else field.name for field in fields(Settings))


def read_tables(written: Written) -> tuple[dict[str, Any], list[Fault]]:
    """Return the values of all tables by their names, and everything that is wrong in them.

    Without what is wrong, a table holds what is right; one that needs what is wrong has no value.
    """
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in written.items():
        if name == "source":
            found, wrong = _read_sources(value)
        elif name in TABLES:
            found, wrong = _read_table(TABLES[name], value, f"[{name}]")
        elif name in LISTS:
            found, wrong = _read_list(name, value)
        else:
            remedy = nearest_name(name, _NAMES)
            found, wrong = None, [Fault(UNKNOWN_FIELD, "unknown field", remedy)]
        faults += (replace(fault, path=(name, *fault.path)) for fault in wrong)
        if found is not None:
            values[name] = found
    return values, faults


def _read_sources(value: object) -> tuple[Any, list[Fault]]:
    """Return the settings of the source, or of several; nothing if any of them is wrong."""
    if not isinstance(value, list):
        return _read_source(value)
    found: list[Any] = []
    faults: list[Fault] = []
    for index, item in enumerate(value):
        source, wrong = _read_source(item)
        faults += (replace(fault, path=(index, *fault.path)) for fault in wrong)
        found.append(source)
    if not value:
        faults.append(Fault("no_source", "the list of sources is empty", "write [source]"))
    places = [source.place for source in found if source is not None]
    faults += (
        Fault("duplicate_source", "this source is given twice", "remove one of the two", (index,))
        for index, place in enumerate(places)
        if place in places[:index]
    )
    if faults:
        return None, faults
    return (found[0] if len(found) == 1 else SeveralSources(sources=tuple(found))), []


def _read_source(value: object) -> tuple[Any, list[Fault]]:
    """Return the settings of a source: ``type`` says which keys the table has."""
    if not isinstance(value, dict):
        return _read_table(FileSourceSettings, value, "[source]")
    try:
        kind = word_of(SourceType).check(value.get("type", SourceType.FILE.value))
    except InvalidValueError as error:
        return None, list(error.within("type"))
    declared = SOURCE_TABLES[SourceType(kind)]
    found, faults = _read_table(
        declared, {key: item for key, item in value.items() if key != "type"}, "[source]"
    )
    return found, [_of_another_type(fault, SourceType(kind)) for fault in faults]


def _of_another_type(fault: Fault, kind: SourceType) -> Fault:
    """Return the fault of an unknown key with the types of source that have the key, if any does."""
    owners = [
        f'"{other.value}"'
        for other, declared in SOURCE_TABLES.items()
        if fault.code == UNKNOWN_FIELD and fault.path[0] in _keys(declared)
    ]
    if not owners:
        return fault
    message = f'a source of type "{kind.value}" has no such key'
    remedy = f"type = {' or '.join(owners)}, or remove the key"
    return Fault("key_of_another_source", message, remedy, fault.path)


def _read_list(name: str, value: object) -> tuple[Any, list[Fault]]:
    """Return the entries that nothing is wrong with."""
    header = f"[[{name}]]"
    if not isinstance(value, list):
        may_be_array = name == "platform" and not isinstance(value, dict)
        return None, [wrong_type_of(value, "a list", "" if may_be_array else f"write {header}")]
    found: list[tuple[int, Any]] = []
    comparable: list[tuple[int, Any]] = []
    faults: list[Fault] = []
    for index, item in enumerate(value):
        if name == "platform" and not isinstance(item, dict):
            entry, wrong = _read_address(item)
        else:
            entry, wrong = _read_table(LISTS[name], item, header)
        faults += (replace(fault, path=(index, *fault.path)) for fault in wrong)
        if not wrong:
            found.append((index, entry))
        if entry is not None and not any(fault.path[:1] == ("exclude",) for fault in wrong):
            comparable.append((index, entry))
    return found, faults + list(_duplicates(comparable) if name == "interface" else ())


def _read_address(value: object) -> tuple[ExemptionTable | None, list[Fault]]:
    """Return an entry of the platform list that is only an address: everything may leave to it (§7.3)."""
    written = {"direction": Direction.EGRESS.value, "cidr": value, "protocol": "all"}
    entry, faults = _read_table(ExemptionTable, written, "[[platform]]")
    return entry, [replace(fault, path=()) for fault in faults]


def _read_table(declared: type[SettingsTable], value: object, header: str) -> tuple[Any, list[Fault]]:
    """Return a table without its wrong entries; None where it can't do without, and all faults.

    The header is how TOML begins such a table.
    """
    if not isinstance(value, dict):
        return None, [wrong_type_of(value, "a mapping", f"write {header}")]
    found, faults = _validate(declared, value)
    keys = ["type"] * (declared in SOURCE_TABLES.values()) + _keys(declared)
    faults = [_with_remedy(fault, keys, declared.examples) for fault in faults]
    if faults:
        wrong = {fault.path[0] for fault in faults}
        found, _ = _validate(declared, {key: item for key, item in value.items() if key not in wrong})
    return found, faults + list(declared.conflicts(value))


def _keys(declared: type[Any]) -> list[str]:
    return [field.name for field in fields(declared) if field.name not in NO_KEYS]


def _with_remedy(fault: Fault, keys: Collection[str], examples: Mapping[str, str]) -> Fault:
    """Return the fault of a key that is unknown or missing with its remedy."""
    match fault:
        case Fault(code="unknown_field", path=[str(key)]):
            return replace(fault, remedy=nearest_name(key, keys))
        case Fault(code="missing_field", path=[str(key)]):
            return replace(fault, remedy=examples.get(key, "add the field"))
        case _:
            return fault


def _validate(declared: type[Any], written: Written) -> tuple[Any, list[Fault]]:
    """Return a table as this class, or None, and all faults of its keys."""
    types = get_type_hints(declared, include_extras=True)
    defaults = {key.name: key.default for key in fields(declared) if key.name not in NO_KEYS}
    found: dict[str, Any] = {}
    faults: list[Fault] = []
    for key, default in defaults.items():
        if key in written:
            try:
                found[key] = types[key].__metadata__[0].check(written[key])
            except InvalidValueError as error:
                faults += error.within(key)
        elif default is MISSING:
            faults.append(Fault(MISSING_FIELD, "missing", "", (key,)))
    faults += (Fault(UNKNOWN_FIELD, "unknown field", "", (key,)) for key in written if key not in defaults)
    return (None, faults) if faults else (declared(**found), [])


def _duplicates(tables: list[tuple[int, InterfaceTable]]) -> Iterator[Fault]:
    """Yield a fault for each binding of links that an earlier one binds, too (§12.5)."""
    seen: dict[str, LinkPattern] = {}
    for index, table in tables:
        pattern = LinkPattern(text=table.name, exclude=table.exclude)
        if table.name in seen:
            yield Fault("duplicate_interface", f"{table.name} is bound twice", "bind it once", (index,))
        elif is_pattern(table.name):
            if not pattern.matches_prefix(pattern.prefix):
                message = f"{table.name} means no link without those that it excludes"
                yield Fault("nothing_left", message, "exclude fewer", (index, "exclude"))
            overlapping = filter(pattern.overlaps, (one for one in seen.values() if is_pattern(one.text)))
            if other := next(overlapping, None):
                narrow, wide = sorted((pattern.text, other.text), key=len, reverse=True)
                message = f"{wide} also matches links that {narrow} matches"
                remedy = f'add exclude = ["{narrow}"] to {wide}, or remove one of them'
                yield Fault("pattern_covered", message, remedy, (index, "name"))
        seen.setdefault(table.name, pattern)
