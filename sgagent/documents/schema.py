"""JSON Schema (draft 2020-12) of the native format, for editors and other tools.

The schema constrains single fields; ``sgagent check`` also checks the fields of a rule against each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sgagent.core.model import DEFAULT_GROUP_TYPE, DEFAULT_INNER_ACCESS, ported_text
from sgagent.documents import native
from sgagent.documents.values import (
    ACCOUNT_PATTERN,
    CLOUDS,
    DIRECTIONS,
    FAMILIES,
    GROUP_TYPES,
    ID_PATTERN,
    MAC_PATTERN,
    POLICIES,
    PROTOCOLS,
)

Schema = dict[str, Any]
"""JSON Schema is JSON: this is the one place where it is put together."""

_PORTED = ported_text("and")
_SINGLE_PORT = r"[0-9]{1,5}"
_PORTS = rf"^({_SINGLE_PORT}([/-]{_SINGLE_PORT})?|-1/-1)$"
_BLOCK = r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?"


def json_schema() -> Schema:
    """Return the schema of a native document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sgagent definitions",
        "description": "Security groups and what they refer to, in the native format of sgagent.",
        **_object(
            native.DOCUMENT_FIELDS,
            {
                "version": {"const": native.FORMAT_VERSION, "description": "Of the format."},
                "vpc_id": _ref(
                    "id", "The VPC of every group and interface of this document that names none."
                ),
                "account_id": _ref("account", "The account of every group and interface that names none."),
                "security_groups": _list(_ref("security_group"), "Security groups."),
                "prefix_lists": _list(_ref("prefix_list"), "Prefix lists."),
                "port_lists": _list(_ref("port_list"), "Port lists."),
                "network_interfaces": _list(_ref("network_interface"), "Elastic network interfaces."),
            },
            required=("version",),
        ),
        "$defs": _definitions(),
    }


def _definitions() -> Schema:
    """Return what the schema refers to."""
    return {
        "id": {"type": "string", "pattern": f"^{ID_PATTERN}$"},
        "account": {
            "anyOf": [
                {"type": "string", "pattern": f"^{ACCOUNT_PATTERN}$"},
                {"type": "integer", "minimum": 0},
            ]
        },
        "free_text": {"type": ["string", "integer"]},
        "block": {"type": "string", "pattern": f"^{_BLOCK}$"},
        "port_range": {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": _PORTS},
            ]
        },
        "ports": {"anyOf": [_ref("port_range"), {**_list(_ref("port_range")), "minItems": 1}]},
        "security_group": _security_group(),
        "rule": _rule(),
        "prefix_list": _prefix_list(),
        "port_list": _port_list(),
        "network_interface": _network_interface(),
    }


def _security_group() -> Schema:
    """Return the schema of a security group (§1.1)."""
    return _object(
        native.GROUP_FIELDS,
        {
            "security_group_id": _ref("id", "Unique among the groups of all documents."),
            "name": _ref("free_text", "For people."),
            "vpc_id": _ref("id", "Group objects reach only groups of the same VPC."),
            "account_id": _ref("account", "The owner."),
            "type": _words(
                GROUP_TYPES,
                f"Default {DEFAULT_GROUP_TYPE.value}; normal and enterprise are the API's words for the two.",
            ),
            "inner_access_policy": _words(
                POLICIES,
                "Whether members of a basic group reach each other whatever the rules say; default"
                f" {DEFAULT_INNER_ACCESS.value}.",
            ),
            "cloud": _words(CLOUDS, "Whose limits check warns of; default alibaba. It changes no verdict."),
            "tags": {
                "type": "object",
                "additionalProperties": _ref("free_text"),
                "description": "Texts by key.",
            },
            "member_addresses": _list(
                _ref("block"), "Members that are on no interface of the documents; no host bits."
            ),
            "rules": _list(_ref("rule"), "In any order: only priority and policy order them."),
        },
        required=("security_group_id",),
    )


def _rule() -> Schema:
    """Return the schema of a rule (§1.2)."""
    return _object(
        native.RULE_FIELDS,
        {
            "rule_id": _ref(
                "id", "Unique among the rules of all documents; derived from the content if missing."
            ),
            "direction": _words(DIRECTIONS, "Which way a session is opened, as seen from the interface."),
            "policy": _words(
                POLICIES, "What becomes of it; allow and deny mean the same as accept and drop."
            ),
            "priority": {
                "type": "integer",
                "minimum": 1,
                "maximum": 2**31 - 1,
                "default": 1,
                "description": "1 is the most urgent; among equals drop wins. Above 100 only in old data.",
            },
            "protocol": {
                "anyOf": [
                    _words(PROTOCOLS),
                    {"type": "integer", "minimum": 0, "maximum": 255},
                    _number_text(),
                ],
                "description": "A name in any letter case, or an IANA number.",
            },
            "port_range": _ref(
                "ports", f"Destination ports in both directions; {_PORTED} need them or a port list."
            ),
            "port_list_id": _ref("id", f"A port list in place of a port range; {_PORTED} only."),
            "source_port_range": _ref("ports", f"Source ports; {_PORTED} only. Missing: any."),
            "authorization_object": {
                "type": "string",
                "pattern": rf"^({_BLOCK}|sg-[A-Za-z0-9._:-]+|pl-[A-Za-z0-9._:-]+|[^/]+/sg-[A-Za-z0-9._:-]+)$",
                "description": "The other end: an address, a CIDR, sg-…, account/sg-… or pl-….",
            },
            "local_address": _ref(
                "block", "What the near end must be in; of the object's family. Missing: anywhere."
            ),
            "description": _ref("free_text", "For people."),
        },
        required=("direction", "policy", "protocol", "authorization_object"),
    )


def _prefix_list() -> Schema:
    """Return the schema of a prefix list (§1.4)."""
    entry = _object(
        native.PREFIX_ENTRY_FIELDS,
        {"cidr": _ref("block", "An address or CIDR."), "description": _ref("free_text", "For people.")},
        required=("cidr",),
    )
    return _object(
        native.PREFIX_LIST_FIELDS,
        {
            "prefix_list_id": _ref("id", "Unique; pl-… where rules refer to it."),
            "address_family": _words(FAMILIES, "Of every entry."),
            "entries": _list({"anyOf": [_ref("block"), entry]}, "Empty matches nothing."),
        },
        required=("prefix_list_id", "address_family", "entries"),
    )


def _port_list() -> Schema:
    """Return the schema of a port list (§1.4)."""
    entry = _object(
        native.PORT_ENTRY_FIELDS,
        {
            "port_range": _ref("port_range", "A port or range."),
            "description": _ref("free_text", "For people."),
        },
        required=("port_range",),
    )
    return _object(
        native.PORT_LIST_FIELDS,
        {
            "port_list_id": _ref("id", "Unique; prl-… by custom."),
            "entries": _list({"anyOf": [_ref("port_range"), entry]}, "Empty matches nothing."),
        },
        required=("port_list_id", "entries"),
    )


def _network_interface() -> Schema:
    """Return the schema of a network interface (§1.3)."""
    return _object(
        native.INTERFACE_FIELDS,
        {
            "network_interface_id": _ref("id", "Unique."),
            "mac_address": {
                "type": "string",
                "pattern": f"^{MAC_PATTERN}$",
                "description": "Finds the link on the host.",
            },
            "addresses": _list(
                _ref("block"), "Private addresses, primary first, and delegated prefixes; no host bits."
            ),
            "security_group_ids": _list(
                _ref("id"), "The groups attached to it; none: everything is dropped."
            ),
            "vpc_id": _ref("id", "The VPC."),
            "account_id": _ref("account", "The owner."),
            "instance_id": _ref("id", "The machine that it belongs to."),
        },
        required=("network_interface_id",),
    )


def _object(known: Iterable[str], properties: Schema, *, required: Iterable[str]) -> Schema:
    """Return the schema of a mapping that takes no other fields; every known one must be described."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {name: properties[name] for name in known},
    }


def _ref(name: str, description: str = "") -> Schema:
    """Return a reference to a definition."""
    reference: Schema = {"$ref": f"#/$defs/{name}"}
    return {**reference, "description": description} if description else reference


def _list(items: Schema, description: str = "") -> Schema:
    """Return the schema of a list."""
    schema: Schema = {"type": "array", "items": items}
    return {**schema, "description": description} if description else schema


def _words(words: Iterable[str], description: str = "") -> Schema:
    """Return the schema of one of a few words, in any letter case; editors are offered the usual one."""
    patterns = [
        "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else letter for letter in word)
        for word in words
    ]
    schema: Schema = {
        "type": "string",
        "anyOf": [{"enum": list(words)}, {"pattern": f"^({'|'.join(patterns)})$"}],
    }
    return {**schema, "description": description} if description else schema


def _number_text() -> Schema:
    """Return the schema of a protocol number that was written as text."""
    return {"type": "string", "pattern": r"^(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])$"}
