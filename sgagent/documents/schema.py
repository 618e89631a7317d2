"""JSON Schema (draft 2020-12), generated from models, for editors and other tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from sgagent.core.model import LAST_PORT
from sgagent.documents.models import DocumentModel, Schema
from sgagent.documents.values import (
    ACCOUNT_PATTERN,
    FORMAT_VERSION,
    ID_PATTERN,
    INSTANT_PATTERN,
    LAST_PRIORITY,
    MAC_PATTERN,
    PROTOCOLS,
)


def _pattern(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$"}


def any_of(*schemas: Schema) -> Schema:
    """Return the schema of what one of several takes."""
    return {"anyOf": [*schemas]}


def words(known: Iterable[str]) -> Schema:
    """Return the schema of one of a few words, in any letter case; editors are offered the usual one."""
    patterns = (
        "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else letter for letter in word)
        for word in known
    )
    return {"type": "string", "anyOf": [{"enum": list(known)}, {"pattern": f"^({'|'.join(patterns)})$"}]}


def ref(name: str) -> Schema:
    """Return what stands for a reference to a definition until the whole schema is generated."""
    return {"defined": name}


_SINGLE_PORT = "[0-9]{1,5}"
_BLOCK = "[0-9A-Fa-f:.]+(/[0-9]{1,3})?"
_DEFINITIONS: dict[str, Schema] = {
    "id": _pattern(ID_PATTERN),
    "account": any_of(_pattern(ACCOUNT_PATTERN), {"type": "integer", "minimum": 0}),
    "free_text": {"type": ["string", "integer"]},
    "block": _pattern(_BLOCK),
    "object": _pattern(rf"({_BLOCK}|{ID_PATTERN}|[^/]+/sg-[A-Za-z0-9._:-]+|[Dd][Nn][Ss]:.+)"),
    "objects": any_of(ref("object"), {"type": "array", "items": ref("object"), "minItems": 1}),
    "port_range": any_of(
        {"type": "integer", "minimum": 1, "maximum": LAST_PORT},
        _pattern(f"({_SINGLE_PORT}([/-]{_SINGLE_PORT})?|-1/-1)"),
    ),
    "ports": any_of(ref("port_range"), {"type": "array", "items": ref("port_range"), "minItems": 1}),
    "protocol": any_of(
        words(PROTOCOLS),
        {"type": "integer", "minimum": 0, "maximum": 255},
        _pattern("(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"),
    ),
    "protocols": any_of(
        ref("protocol"),
        {"type": "array", "items": ref("protocol"), "minItems": 1, "uniqueItems": True},
    ),
    "priority": {"type": "integer", "minimum": 1, "maximum": LAST_PRIORITY},
    "instant": {"format": "date-time", **_pattern(INSTANT_PATTERN)},
    "mac_address": _pattern(MAC_PATTERN),
}
"""JSON Schema of the values of fields."""


def document_schema(document: type[DocumentModel], models: Mapping[str, type[DocumentModel]]) -> Schema:
    """Return the schema of a document, with those of the models that it refers to by name."""
    schema = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:sgagent:definitions:{FORMAT_VERSION}",
        "title": "sgagent definitions",
        **_schema_of(document),
        "$defs": {**_DEFINITIONS, **{name: _schema_of(model) for name, model in models.items()}},
    }
    return {name: _linked(part) for name, part in schema.items()}


def _linked(part: object) -> object:
    """Return the schema with references; pydantic generates only those to its own definitions."""
    match part:
        case list():
            return [_linked(item) for item in part]
        case {"defined": str(name), **others}:
            return {"$ref": f"#/$defs/{name}", **others}
        case dict():
            return {name: _linked(item) for name, item in part.items()}
        case _:
            return part


def _schema_of(model: type[DocumentModel]) -> Schema:
    return model.model_json_schema(schema_generator=_Generator)


class _Generator(GenerateJsonSchema):
    """Generate no titles, which would repeat names, and no null, which documents write for nothing."""

    def field_title_should_be_set(self, schema: object) -> bool:
        """Leave titles of fields out."""
        del schema
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        """Leave titles of models out."""
        found = super().model_schema(schema)
        found.pop("title", None)
        return found

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        """Return the schema of what is there if the field is."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        """Show a default only if it is not empty."""
        found = super().default_schema(schema)
        if not found.get("default"):
            found.pop("default", None)
        return found

    def sort(self, value: Schema, parent_key: str | None = None) -> Schema:
        """Keep the order of the declarations."""
        del parent_key
        return value
