"""The published schema."""

from __future__ import annotations

import json
from pathlib import Path

from sgagent.documents import json_schema, native

SHIPPED = Path(__file__).parents[3] / "docs" / "schema.json"


def test_the_shipped_schema_is_the_generated_one() -> None:
    """docs/schema.json is what ``sgagent schema`` prints."""
    assert (
        SHIPPED.read_text(encoding="utf-8") == json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    )


def test_the_schema_knows_every_field() -> None:
    """No field of the readers is missing, and unknown ones are refused as the readers do."""
    schema = json_schema()
    known = {
        "security_group": native.GROUP_FIELDS,
        "rule": native.RULE_FIELDS,
        "prefix_list": native.PREFIX_LIST_FIELDS,
        "port_list": native.PORT_LIST_FIELDS,
        "network_interface": native.INTERFACE_FIELDS,
    }
    assert tuple(schema["properties"]) == native.DOCUMENT_FIELDS
    for name, fields in known.items():
        assert tuple(schema["$defs"][name]["properties"]) == fields
        assert schema["$defs"][name]["additionalProperties"] is False


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    """A schema with a dangling reference is no use to an editor."""
    schema = json_schema()
    text = json.dumps(schema)
    names = {piece.split('"')[0] for piece in text.split("#/$defs/")[1:]}
    assert names == set(schema["$defs"])
