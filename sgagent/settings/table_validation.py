"""Validate the tables of the configuration: each value by pydantic, then the keys against each other.

Only a configuration that is not empty needs this module, which imports pydantic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sgagent.core.model import ALL_PORTS, CidrBlock, Direction, Protocol
from sgagent.documents.field import nearest_name
from sgagent.documents.models import faults_of
from sgagent.documents.scalars import MISSING_FIELD, UNKNOWN_FIELD, Fault, InvalidValueError
from sgagent.documents.values import PORT_FORMS
from sgagent.settings.constraints import Word, wrong_type_of
from sgagent.settings.sources import ENDPOINTS_EXAMPLE, SOURCE_TABLES, FileSourceSettings, SourceType
from sgagent.settings.tables import (
    LISTS,
    NETWORK,
    NO_KEYS,
    OUTPUT_FORM,
    PORTS,
    PROTOCOL,
    TABLES,
    ExemptionTable,
    FlowOutput,
    Settings,
)

Written = Mapping[str, object]
"""A table as it is written."""

_EXAMPLES = {
    "url": 'like url = "https://policy.example.com/web.yaml"',
    "endpoints": ENDPOINTS_EXAMPLE,
    "region": 'like region = "cn-hangzhou"',
    "public_keys": 'like public_keys = ["ed25519:…"], as `sgagent keygen` prints it',
}
"""The remedy where one of these keys is missing."""


_NAMES = tuple("interface" if field.name == "interfaces" else field.name for field in fields(Settings))


def read_tables(written: Written) -> tuple[dict[str, Any], list[Fault]]:
    """Return the values of all tables by their names, and everything that is wrong in them.

    Without what is wrong, a table holds what is right; one that needs what is wrong has no value.
    """
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in written.items():
        if name == "source":
            found, wrong = _read_source(value)
        elif name in TABLES:
            found, wrong = _read_table(name, TABLES[name], value)
        elif name in LISTS:
            found, wrong = _read_list(name, value)
        else:
            remedy = nearest_name(name, _NAMES)
            found, wrong = None, [Fault(UNKNOWN_FIELD, "unknown field", remedy)]
        faults += (replace(fault, path=(name, *fault.path)) for fault in wrong)
        if found is not None:
            values[name] = found
    return values, faults


def _read_source(value: object) -> tuple[Any, list[Fault]]:
    """Return the settings of a source: ``type`` says which keys the table has."""
    if not isinstance(value, dict):
        return _read_table("source", FileSourceSettings, value)
    try:
        kind = Word(SourceType).check(value.get("type", SourceType.FILE.value))
    except InvalidValueError as error:
        return None, [replace(fault, path=("type", *fault.path)) for fault in error.faults]
    declared = SOURCE_TABLES[SourceType(kind)]
    found, faults = _read_table(
        f"source {kind.value}", declared, {key: item for key, item in value.items() if key != "type"}
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
    if not isinstance(value, list):
        return None, [wrong_type_of(value, "a list")]
    found: list[tuple[int, Any]] = []
    faults: list[Fault] = []
    for index, item in enumerate(value):
        if name == "platform" and not isinstance(item, dict):
            entry, wrong = _read_address(item)
        else:
            entry, wrong = _read_table(name, LISTS[name], item)
        faults += (replace(fault, path=(index, *fault.path)) for fault in wrong)
        if not wrong:
            found.append((index, entry))
    return found, faults + list(_duplicates(value) if name == "interface" else ())


def _read_address(value: object) -> tuple[ExemptionTable | None, list[Fault]]:
    """Return an entry of the platform list that is only an address: everything may leave to it (§7.3)."""
    written = {"direction": Direction.EGRESS.value, "cidr": value, "protocol": "all"}
    entry, faults = _read_table("platform", ExemptionTable, written)
    return entry, [replace(fault, path=()) for fault in faults]


def _read_table(name: str, declared: type[Any], value: object) -> tuple[Any, list[Fault]]:
    """Return a table without what is wrong in it; None where it can't do without."""
    found, faults = _validate(declared, value)
    if not isinstance(value, dict):
        return found, faults
    keys = ["type"] * (declared in SOURCE_TABLES.values()) + _keys(declared)
    faults = [_with_remedy(fault, keys) for fault in faults]
    if faults:
        wrong = {fault.path[0] for fault in faults}
        found, _ = _validate(declared, {key: item for key, item in value.items() if key not in wrong})
    return found, faults + list(_CONFLICTS[name](value) if name in _CONFLICTS else ())


def _keys(declared: type[Any]) -> list[str]:
    return [field.name for field in fields(declared) if field.name not in NO_KEYS]


def _with_remedy(fault: Fault, keys: Collection[str]) -> Fault:
    """Return the fault of a key that is unknown or missing with its remedy."""
    match fault:
        case Fault(code="unknown_field", path=[str(key)]):
            return replace(fault, remedy=nearest_name(key, keys))
        case Fault(code="missing_field", path=[str(key)]):
            return replace(fault, remedy=_EXAMPLES.get(key, "add the field"))
        case _:
            return fault


def _validate(declared: type[Any], value: object) -> tuple[Any, list[Fault]]:
    """Return what a value is as this type, or None and everything that is wrong with it."""
    try:
        return _adapter(declared).validate_python(value), []  # type: ignore[arg-type] # classes are hashable
    except ValidationError as error:
        return None, list(faults_of(error, _fault_of_shape))


@cache
def _adapter(declared: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(declared)


def _fault_of_shape(error: ErrorDetails) -> Fault:
    """Return the fault of a value that is no table or no list where one is expected."""
    expected = "a mapping" if error["type"] == "dataclass_type" else "a list"
    return replace(wrong_type_of(error["input"], expected), path=error["loc"])


def _half_pairs(*pairs: tuple[str, str]) -> Callable[[Written], Iterator[Fault]]:
    """Return a check that the first key of each pair is there if the second is."""

    def check(table: Written) -> Iterator[Fault]:
        for key, other in pairs:
            if other in table and key not in table:
                remedy = (
                    "the certificate that client_key belongs to"
                    if key == "client_certificate"
                    else f"what {other} belongs to"
                )
                yield Fault(MISSING_FIELD, "missing", remedy, (key,))

    return check


def _two_credentials(table: Written) -> Iterator[Fault]:
    if "ram_role" in table and "credentials_file" in table:
        message = "a RAM role beside a file with an access key"
        yield Fault("two_credentials", message, "one of the two", ("ram_role",))


def _no_output(table: Written) -> Iterator[Fault]:
    nowhere = FlowOutput.NONE.value
    if table.get("accepted") is True and table.get("output", nowhere) == nowhere:
        message = "accepted flows are only written down, and there is no output"
        yield Fault("no_output", message, OUTPUT_FORM, ("accepted",))


def _no_public_keys(table: Written) -> Iterator[Fault]:
    if "public_keys" not in table:
        yield Fault(MISSING_FIELD, "missing", _EXAMPLES["public_keys"], ("public_keys",))


def _bad_binding(table: Written) -> Iterator[Fault]:
    if ("network_interface_id" in table) == ("security_group_ids" in table):
        remedy = "either network_interface_id or security_group_ids"
        yield Fault("bad_binding", "what to bind to", remedy)


def _duplicates(tables: list[object]) -> Iterator[Fault]:
    """Yield a fault for each binding of a link that an earlier one binds."""
    seen: set[str] = set()
    for index, table in enumerate(tables):
        name = table.get("name") if isinstance(table, dict) else None
        if isinstance(name, str) and name in seen:
            yield Fault("duplicate_interface", f"{name} is bound twice", "bind it once", (index,))
        elif isinstance(name, str):
            seen.add(name)


def _bad_exemption(table: Written) -> Iterator[Fault]:
    """Yield what is wrong between CIDR, protocol and ports, by the rules' own law (§4.1, §4.2)."""
    protocol, block = None, None
    with suppress(InvalidValueError, KeyError):  # what is wrong with a single value is reported already
        protocol = PROTOCOL.check(table["protocol"])
    with suppress(InvalidValueError, KeyError):
        block = NETWORK.check(table["cidr"])
    if not isinstance(protocol, Protocol):
        return
    only = protocol.only_family
    if only is not None and isinstance(block, CidrBlock) and block.family is not only:
        message = f"{protocol} with {block.family.value}"
        yield Fault("family_of_protocol", message, f"an {only.value} CIDR", ("cidr",))
    if "port_range" not in table and protocol.has_ports:
        yield Fault(MISSING_FIELD, "missing", PORT_FORMS, ("port_range",))
    elif "port_range" in table and not protocol.has_ports and _names_ports(table["port_range"]):
        message = f"{protocol} has no ports"
        yield Fault("ports_do_not_fit", message, "-1/-1, or leave the key out", ("port_range",))


def _names_ports(value: object) -> bool:
    """Return whether a value is a list of ports, and not every port."""
    try:
        return PORTS.check(value) != ALL_PORTS
    except InvalidValueError:
        return False


_CONFLICTS: dict[str, Callable[[Written], Iterator[Fault]]] = {
    "source https": _half_pairs(("client_certificate", "client_key")),
    "source etcd": _half_pairs(
        ("client_certificate", "client_key"), ("password_file", "user"), ("user", "password_file")
    ),
    "source aliyun": _two_credentials,
    "signature": _no_public_keys,
    "flow_log": _no_output,
    "interface": _bad_binding,
    "failsafe": _bad_exemption,
    "platform": _bad_exemption,
}
"""What is wrong between the keys of a table, as they are written: found whatever else is wrong there."""
