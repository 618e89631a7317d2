"""Read mappings by pydantic models, turn pydantic's errors into faults, and generate JSON Schema (2020-12).

Only code that is about to read something imports this module: importing pydantic takes longer than most
commands run.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping as MappingOf
from dataclasses import replace
from functools import cache, partial
from itertools import chain, pairwise
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema, core_schema

from sgagent.core.model import LAST_PORT
from sgagent.documents import values
from sgagent.documents.field import Field
from sgagent.documents.problems import Findings
from sgagent.documents.scalars import MISSING_FIELD, UNKNOWN_FIELD, Fault, parse_mapping, parse_word
from sgagent.documents.tree import Listing, Mapping, Node, is_set

Schema = dict[str, Any]
"""JSON Schema is JSON."""


class Value:
    """The values that a field takes, as metadata of its type."""

    def __init__(self, parse: Callable[..., object], schema: Schema | None = None, remedy: str = "") -> None:
        """Take the parser and the JSON Schema of the field's values.

        Args:
            parse: of the node, or of the node and pydantic's information about the field.
            schema: the JSON Schema.
            remedy: what to do where a required field is missing, if there is more to say than to add it.
        """
        self.remedy = remedy
        self._parse = parse
        self._schema = schema or {}

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema by which pydantic calls the parser."""
        return pydantic.PlainValidator(self._parse).__get_pydantic_core_schema__(Any, handler)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        """Return the JSON Schema."""
        del core, handler
        return dict(self._schema)


def located(parse: Callable[[Field], object]) -> Callable[[Node, ValidationInfo], object]:
    """Return a parser for models that passes the value on with its place, for warnings and for the budget."""

    def parse_located(node: Node, info: ValidationInfo) -> object:
        place: Field
        declared: type[DocumentModel]
        place, declared = info.context  # type: ignore[misc] # read_model sets it
        return parse(place.child(declared.names()[info.field_name or ""], node))

    return parse_located


class DocumentModel(pydantic.BaseModel):
    """A mapping of a document: one declaration for the reader, the JSON Schema and the messages.

    A field that has an error has its default, and None where it is required.
    """

    model_config = pydantic.ConfigDict(extra="forbid", defer_build=True)

    @classmethod
    def entries_of(cls, node: Mapping) -> MappingOf[str, Node]:
        """Return the fields of a mapping that count."""
        return node.entries

    @classmethod
    @cache
    def names(cls) -> MappingOf[str, str]:
        """Return the name that documents have for each field."""
        cls.model_rebuild()  # which sets the names, if nothing was read before
        return {name: field.alias or name for name, field in cls.model_fields.items()}

    def has(self, name: str) -> bool:
        """Return whether the document sets a field, be it to a wrong value."""
        return name in self.model_fields_set

    @classmethod
    @cache
    def remedies(cls) -> MappingOf[str, str]:
        """Return the remedies for missing fields, by the names that documents have for them."""
        return {
            cls.names()[name]: value.remedy
            for name, field in cls.model_fields.items()
            for value in field.metadata
            if isinstance(value, Value) and value.remedy
        }


class LooseModel(DocumentModel):
    """A mapping of another tool: unknown fields do not count; null and an empty text mean unset."""

    model_config = pydantic.ConfigDict(extra="ignore")

    @classmethod
    def entries_of(cls, node: Mapping) -> MappingOf[str, Node]:
        """Return the fields that are set."""
        return {name: value for name, value in node.entries.items() if is_set(value)}


def one_of(meanings: MappingOf[str, object], remedy: str = "") -> Value:
    """Return the values of a field that holds one of a few words."""
    remedy = remedy or "one of " + ", ".join(meanings)
    return Value(partial(parse_word, words=meanings), words(meanings), remedy)


M = TypeVar("M", bound=DocumentModel)


def read_model(declared: type[M], place: Field) -> M | None:
    """Return a mapping as its model, with errors added for all that is wrong.

    Where something is wrong, the model holds what is right. The result is None for anything but a mapping.
    """
    node = place.node
    if not isinstance(node, Mapping):
        place.read(parse_mapping)
        return None
    entries, known = declared.entries_of(node), declared.names().values()
    if len(entries) > len(known) and declared.model_config.get("extra") == "forbid":
        entries = dict(_known_entries(place, entries, known))
    try:
        model: M = declared.__pydantic_validator__.validate_python(entries, context=(place, declared))
    except pydantic.ValidationError as error:
        wrong = _note(error, declared, place)
        model = _read_partly(declared, place, {name: entries[name] for name in entries.keys() - wrong})
        model.model_fields_set.update(name for name, known in declared.names().items() if known in entries)
    return model


def read_each(declared: type[M], places: Iterable[Field]) -> Iterator[tuple[Field, M]]:
    """Yield values as models, with their places; anything but a mapping is an error and left out."""
    for place in places:
        model = read_model(declared, place)
        if model is not None:
            yield place, model


def items_of(place: Field, name: str) -> Iterator[Field]:
    """Yield the items of a list of a mapping; nothing where it is something else."""
    listing = place.entries.get(name)
    return place.child(name, listing).items() if isinstance(listing, Listing) else iter(())


def _known_entries(
    place: Field, entries: MappingOf[str, Node], known: Collection[str]
) -> Iterator[tuple[str, Node]]:
    """Yield the known fields, and refuse the others: pydantic would keep the errors of a million at once."""
    for name, node in entries.items():
        if name in known:
            yield name, node
        else:
            place.child(name, node).refuse_name(name, known)


def _note(error: pydantic.ValidationError, declared: type[DocumentModel], place: Field) -> set[str | int]:
    """Add an error for each fault; return the names of the fields that are wrong."""
    wrong: set[str | int] = set()
    for fault in faults_of(error):
        name = fault.path[0]
        wrong.add(name)
        if fault.code == MISSING_FIELD and name in place.entries:
            place.at(name).error(MISSING_FIELD, "has no value", declared.remedies().get(str(name), "a value"))
        elif fault.code == MISSING_FIELD:
            place.refuse_missing(str(name), declared.remedies().get(str(name), fault.remedy))
        elif fault.code == UNKNOWN_FIELD:
            place.at(name).refuse_name(str(name), declared.names().values())
        else:
            place.refuse([fault])
    return wrong


def _read_partly(declared: type[M], place: Field, right: MappingOf[str, Node]) -> M:
    """Return the model of these fields; their counts and warnings are noted already."""
    budget = replace(place.reading.budget, rules=0, addresses=0)
    quiet = place.of_reading(replace(place.reading, findings=Findings(0), budget=budget))
    validator = _without_required(declared).__pydantic_validator__
    model: M = validator.validate_python(right, context=(quiet, declared))
    return model


@cache
def _without_required(declared: type[M]) -> type[M]:
    """Return a model that takes a model's values, and requires nothing."""
    optional: dict[str, Any] = {
        name: (Annotated[field.annotation, *field.metadata], pydantic.Field(None, alias=field.alias))
        for name, field in declared.model_fields.items()
        if field.is_required()
    }
    return pydantic.create_model(declared.__name__, __base__=declared, **optional)


def faults_of(error: pydantic.ValidationError) -> Iterator[Fault]:
    """Yield the faults, with the path from the value that was validated."""
    for found in error.errors(include_url=False):
        path = found["loc"]
        if found["type"] == "extra_forbidden":
            yield Fault(UNKNOWN_FIELD, "unknown field", "", path)
        elif found["type"] == "missing":
            yield Fault(MISSING_FIELD, "missing", "add the field", path)
        else:  # parsers of ours make all others
            faults = found["ctx"]["error"].faults
            yield from (replace(fault, path=(*path, *fault.path)) for fault in faults)


def _pattern(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$"}


def any_of(*schemas: Schema) -> Schema:
    """Return the schema of a value that one of several schemas takes."""
    return {"anyOf": [*schemas]}


def words(known: Iterable[str]) -> Schema:
    """Return the schema of one of a few words, in any letter case; editors are offered the usual one."""
    patterns = (
        "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else letter for letter in word)
        for word in known
    )
    return {"type": "string", "anyOf": [{"enum": list(known)}, {"pattern": f"^({'|'.join(patterns)})$"}]}


def ref(name: str) -> Schema:
    """Return the placeholder of a reference to a definition until the whole schema is generated."""
    return {"defined": name}


_SINGLE_PORT = "[0-9]{1,5}"
_BLOCK = "[0-9A-Fa-f:.]+(/[0-9]{1,3})?"
_DEFINITIONS: dict[str, Schema] = {
    "id": _pattern(values.ID_PATTERN),
    "account": any_of(_pattern(values.ACCOUNT_PATTERN), {"type": "integer", "minimum": 0}),
    "free_text": {"type": ["string", "integer"]},
    "block": _pattern(_BLOCK),
    "object": _pattern(rf"({_BLOCK}|{values.ID_PATTERN}|[^/]+/sg-[A-Za-z0-9._:-]+|[Dd][Nn][Ss]:.+)"),
    "objects": any_of(ref("object"), {"type": "array", "items": ref("object"), "minItems": 1}),
    "port_range": any_of(
        {"type": "integer", "minimum": 1, "maximum": LAST_PORT},
        _pattern(f"({_SINGLE_PORT}([/-]{_SINGLE_PORT})?|-1/-1)"),
    ),
    "ports": any_of(ref("port_range"), {"type": "array", "items": ref("port_range"), "minItems": 1}),
    "protocol": any_of(
        words(values.PROTOCOLS),
        {"type": "integer", "minimum": 0, "maximum": 255},
        _pattern("(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"),
    ),
    "protocols": any_of(
        ref("protocol"),
        {"type": "array", "items": ref("protocol"), "minItems": 1, "uniqueItems": True},
    ),
    "priority": {"type": "integer", "minimum": 1, "maximum": values.LAST_PRIORITY},
    "instant": {"format": "date-time", **_pattern(values.INSTANT_PATTERN)},
    "mac_address": _pattern(values.MAC_PATTERN),
}
"""JSON Schema of the values of fields."""


def document_schema(document: type[DocumentModel], models: MappingOf[str, type[DocumentModel]]) -> Schema:
    """Return the schema of a document, with those of the models that it refers to by name."""
    schema = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:sgagent:definitions:{values.FORMAT_VERSION}",
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
    schema = model.model_json_schema(schema_generator=_Generator)
    for name, text in _docstrings(model):
        schema["properties"][model.names()[name]]["description"] = text
    return schema


def _docstrings(model: type[DocumentModel]) -> Iterator[tuple[str, str]]:
    """Yield names and docstrings of fields, which only the source has: pydantic would always read it."""
    declared = [base for base in reversed(model.__mro__) if issubclass(base, DocumentModel)]
    for node in chain.from_iterable(ast.parse(inspect.getsource(base)).body for base in declared):
        assert isinstance(node, ast.ClassDef)  # noqa: S101 - for the type checker
        for before, after in pairwise(node.body):
            match before, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    yield name, inspect.cleandoc(text)


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
        """Return the schema of the field's value where the field is present."""
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
