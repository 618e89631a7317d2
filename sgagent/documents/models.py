"""Read mappings by pydantic models, and turn pydantic's errors into faults.

Only code that is about to read something imports this module: importing pydantic takes longer than most
commands run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping as MappingOf
from dataclasses import replace
from functools import cache, partial
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field as Declared,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic_core import CoreSchema, ErrorDetails

from sgagent.documents.field import Field
from sgagent.documents.problems import Budget, Findings
from sgagent.documents.scalars import MISSING_FIELD, UNKNOWN_FIELD, Fault, parse_mapping, parse_word
from sgagent.documents.tree import Listing, Mapping, Node, is_set

Schema = dict[str, Any]
"""JSON Schema is JSON."""


class Value:
    """What a field takes, as metadata of its type."""

    def __init__(self, parse: Callable[..., object], schema: Schema | None = None) -> None:
        """Take the parser and the JSON Schema of what it takes.

        Args:
            parse: of the node, or of the node and pydantic's information about the field.
            schema: the JSON Schema.
        """
        self._parse = parse
        self._schema = schema or {}

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema by which pydantic calls the parser."""
        return PlainValidator(self._parse).__get_pydantic_core_schema__(Any, handler)

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


class DocumentModel(BaseModel):
    """A mapping of a document: one declaration for the reader, the JSON Schema and the messages.

    A field that has an error has its default, and None where it is required.
    """

    model_config = ConfigDict(extra="forbid", defer_build=True)

    remedies: ClassVar[MappingOf[str, str]] = {}
    """What to do where a field is missing, if there is more to say than to add it."""

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


class LooseModel(DocumentModel):
    """A mapping of another tool: unknown fields do not count; null and an empty text mean unset."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def entries_of(cls, node: Mapping) -> MappingOf[str, Node]:
        """Return the fields that are set."""
        return {name: value for name, value in node.entries.items() if is_set(value)}


def one_of(words: MappingOf[str, object]) -> Value:
    """Return what a field takes that holds one of a few words."""
    return Value(partial(parse_word, words=words))


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
    except ValidationError as error:
        wrong = _note(error, declared, place)
        return _read_partly(declared, place, {name: entries[name] for name in entries.keys() - wrong})
    return model


def read_each(declared: type[M], places: Iterable[Field]) -> Iterator[tuple[Field, M]]:
    """Yield values as models, with their places; what is no mapping is an error and left out."""
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


def _note(error: ValidationError, declared: type[DocumentModel], place: Field) -> set[str | int]:
    """Add an error for each fault; return the names of the fields that are wrong."""
    wrong: set[str | int] = set()
    for fault in faults_of(error):
        name = fault.path[0]
        wrong.add(name)
        if fault.code == MISSING_FIELD and name in place.entries:
            place.at(name).error(MISSING_FIELD, "has no value", declared.remedies.get(str(name), "a value"))
        elif fault.code == MISSING_FIELD:
            place.refuse_missing(str(name), declared.remedies.get(str(name), fault.remedy))
        elif fault.code == UNKNOWN_FIELD:
            place.at(name).refuse_name(str(name), declared.names().values())
        else:
            place.refuse([fault])
    return wrong


def _read_partly(declared: type[M], place: Field, right: MappingOf[str, Node]) -> M:
    """Return the model of these fields; what they count and warn of is noted already."""
    reading = place.reading
    budget = Budget(limits=reading.budget.limits, blocks=reading.budget.blocks)
    quiet = place.of_reading(replace(reading, findings=Findings(0), budget=budget))
    validator = _without_required(declared).__pydantic_validator__
    model: M = validator.validate_python(right, context=(quiet, declared))
    return model


@cache
def _without_required(declared: type[M]) -> type[M]:
    """Return a model that takes what a model takes, and requires nothing."""
    optional: dict[str, Any] = {
        name: (Annotated[field.annotation, *field.metadata], Declared(None, alias=field.alias))
        for name, field in declared.model_fields.items()
        if field.is_required()
    }
    return create_model(declared.__name__, __base__=declared, **optional)


def faults_of(
    error: ValidationError, other: Callable[[ErrorDetails], Fault] | None = None
) -> Iterator[Fault]:
    """Yield what is wrong, with the path from the value that was validated.

    Args:
        error: of pydantic.
        other: words an error of pydantic's own checks, if the models have any.
    """
    for found in error.errors(include_url=False):
        path = found["loc"]
        if found["type"] == "value_error":
            faults = found["ctx"]["error"].faults
            yield from (replace(fault, path=(*path, *fault.path)) for fault in faults)
        elif found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            yield Fault(UNKNOWN_FIELD, "unknown field", "", path)
        elif found["type"] == "missing":
            yield Fault(MISSING_FIELD, "missing", "add the field", path)
        else:
            assert other is not None  # noqa: S101 - parsers of ours make all other errors
            yield other(found)
