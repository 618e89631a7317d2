"""Types of fields that several models have: each with its parser and its JSON Schema."""

from __future__ import annotations

from typing import Annotated

from sgagent.core.model import CidrBlock, Policy, PortSet
from sgagent.documents import scalars, values
from sgagent.documents.models import FieldType, PlacedValue, one_of, ref
from sgagent.documents.tree import Node


def _parse_version(node: Node) -> int:
    if scalars.parse_integer(node) != values.FORMAT_VERSION:
        message = "this sgagent does not know this version of the format"
        raise scalars.invalid("unknown_version", message, f"{values.FORMAT_VERSION}")
    return values.FORMAT_VERSION


Version = Annotated[
    int, FieldType(_parse_version, {"const": values.FORMAT_VERSION}, f"version: {values.FORMAT_VERSION}")
]
Id = Annotated[str, FieldType(values.parse_id, ref("id"))]
Account = Annotated[str, FieldType(values.parse_account, ref("account"))]
Text = Annotated[str, FieldType(scalars.parse_digits, ref("free_text"))]
PolicyWord = Annotated[Policy, one_of(values.POLICIES)]
RulePorts = Annotated[PortSet, FieldType(values.parse_ports, ref("ports"))]
PortRange = Annotated[PortSet, FieldType(values.parse_port_range, ref("port_range"))]
Block = Annotated[CidrBlock, PlacedValue(values.parse_block, ref("block"))]
Member = Annotated[CidrBlock, PlacedValue(values.parse_member, ref("block"))]
Mac = Annotated[str, FieldType(values.parse_mac, ref("mac_address"))]
