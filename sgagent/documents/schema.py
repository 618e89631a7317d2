"""JSON Schema (draft 2020-12) of the native format, for editors and other tools, generated from its models.

The schema constrains single fields; ``sgagent check`` also checks the fields of a rule against each other.
"""

from __future__ import annotations

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from sgagent.documents.native import DEFINITIONS, MODELS, NativeModel
from sgagent.documents.validation import DocumentModel, Schema
from sgagent.documents.values import FORMAT_VERSION


def json_schema() -> Schema:
    """Return the schema of a native document."""
    models = {name: _schema_of(model) for name, model in MODELS.items()}
    schema = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:sgagent:definitions:{FORMAT_VERSION}",
        "title": "sgagent definitions",
        **_schema_of(NativeModel),
        "$defs": {**DEFINITIONS, **models},
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
