"""Models of mappings: one declaration of fields for the reader, the messages and JSON Schema (2020-12)."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping as MappingOf
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, partial
from itertools import chain, pairwise
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args, get_type_hints

from sgagent.core.model import LAST_PORT
from sgagent.documents import values
from sgagent.documents.field import Field
from sgagent.documents.scalars import MISSING_FIELD, Fault, InvalidValueError, parse_mapping, parse_word
from sgagent.documents.tree import Listing, Mapping, Node, is_set

Schema = dict[str, Any]
"""JSON Schema is JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class FieldType:
    """The values that a field takes, as metadata of its type."""

    parse: Callable[..., object]
    """Takes the node; raises InvalidValueError."""

    schema: Schema = field(default_factory=dict)
    remedy: str = ""
    """Where a required field is missing, if there is more to say than to add it."""

    takes_place: bool = False
    """Whether the parser takes the place instead, for warnings and for the budget."""


PlacedValue = partial(FieldType, takes_place=True)
"""Values whose parser takes the place."""

_REQUIRED = object()


class Declaration(NamedTuple):
    """What stands right of a field, where that is more than its default."""

    default: Any = _REQUIRED
    name: str = ""
    """In documents, if it is not the one that the model gives it."""

    description: str = ""
    """If it is no docstring."""


declare: Callable[..., Any] = Declaration
"""Return a declaration as what a type checker takes for a default."""


class ModelField(NamedTuple):
    """A field of a model."""

    attribute: str
    value: FieldType
    default: Any
    description: str


class DocumentModel:
    """A mapping of a document: one declaration for the reader, the JSON Schema and the messages.

    A field that has an error has its default, and None where it is required.
    """

    refuses_unknown = True
    more_schema: ClassVar[Schema] = {}

    def __init__(self) -> None:
        """Start with the defaults."""
        self.__dict__.update(self.defaults())
        self.given: set[str] = set()
        """The fields that the document has, wrong ones too."""

    @classmethod
    def entries_of(cls, node: Mapping) -> MappingOf[str, Node]:
        """Return the fields of a mapping that count."""
        return node.entries

    @classmethod
    def name_of(cls, attribute: str) -> str:
        """Return the name that documents have for a field, if it declares none."""
        return attribute

    @classmethod
    @cache
    def fields(cls) -> MappingOf[str, ModelField]:
        """Return the fields by the names that documents have for them, in order, those of bases first."""
        found = {}
        for attribute, hint in get_type_hints(cls, include_extras=True).items():
            right = getattr(cls, attribute, _REQUIRED)
            default, name, text = right if isinstance(right, Declaration) else Declaration(right)
            for part in (hint, *get_args(hint)):  # of a type that may be None, too
                for value in getattr(part, "__metadata__", ()):
                    found[name or cls.name_of(attribute)] = ModelField(attribute, value, default, text)
        return found

    @classmethod
    @cache
    def names(cls) -> MappingOf[str, str]:
        """Return the name that documents have for each field."""
        return {field.attribute: name for name, field in cls.fields().items()}

    @classmethod
    @cache
    def defaults(cls) -> MappingOf[str, Any]:
        """Return the value of each field that the document lacks."""
        fields = cls.fields().values()
        return {field.attribute: None if field.default is _REQUIRED else field.default for field in fields}


class LooseModel(DocumentModel):
    """A mapping of another tool: unknown fields do not count; null and an empty text mean unset."""

    refuses_unknown = False

    @classmethod
    def entries_of(cls, node: Mapping) -> MappingOf[str, Node]:
        """Return the fields that are set."""
        return {name: value for name, value in node.entries.items() if is_set(value)}


def one_of(meanings: MappingOf[str, object], remedy: str = "") -> FieldType:
    """Return the values of a field that holds one of a few words."""
    remedy = remedy or "one of " + ", ".join(meanings)
    return FieldType(partial(parse_word, words=meanings), words(meanings), remedy)


M = TypeVar("M", bound=DocumentModel)


def read_model(declared: type[M], place: Field) -> M | None:
    """Return a mapping as its model, with errors added for all that is wrong.

    Where something is wrong, the model holds what is right. The result is None for anything but a mapping.
    """
    node = place.node
    if not isinstance(node, Mapping):
        place.read(parse_mapping)
        return None
    entries, fields, model = declared.entries_of(node), declared.fields(), declared()
    faults: list[Fault] = []
    for name, (attribute, value, default, _) in fields.items():
        if name in entries:
            model.given.add(attribute)
            given = entries[name]
            try:
                read = value.parse(place.child(name, given) if value.takes_place else given)
            except InvalidValueError as error:
                faults += error.within(name)
            else:
                setattr(model, attribute, read)
        elif default is _REQUIRED:
            faults.append(Fault(MISSING_FIELD, "missing", value.remedy, (name,)))
    has_many = len(entries) > len(fields)
    if has_many:
        _refuse_unknown(declared, place)
    for fault in faults:
        _refuse(place, fault)
    if not has_many and len(model.given) < len(entries):
        _refuse_unknown(declared, place)
    return model


def _refuse(place: Field, fault: Fault) -> None:
    """Add the error of a field; one of another tool may be there and have no value."""
    name = fault.path[0]
    if fault.code != MISSING_FIELD:
        place.refuse([fault])
    elif name in place.entries:
        place.at(name).error(MISSING_FIELD, "has no value", fault.remedy or "a value")
    else:
        place.refuse_missing(str(name), fault.remedy or "add the field")


def _refuse_unknown(declared: type[DocumentModel], place: Field) -> None:
    """Add an error for each unknown field."""
    for name, node in place.entries.items() if declared.refuses_unknown else ():
        if name not in declared.fields():
            place.child(name, node).refuse_name(name, declared.fields().keys())


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


def _pattern(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$"}


def any_of(*schemas: Schema) -> Schema:
    """Return the schema of a value that one of several schemas takes."""
    return {"anyOf": [*schemas]}


def words(known: Iterable[str]) -> Schema:
    """Return the schema of one of a few words, in any letter case; editors are offered the usual one."""
    pattern = "|".join(map(any_case, known))
    return {"type": "string", "anyOf": [{"enum": list(known)}, {"pattern": f"^({pattern})$"}]}


def any_case(word: str) -> str:
    """Return the pattern of a word in any letter case, as JSON Schema has no flags."""
    return "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else letter for letter in word)


def ref(name: str) -> Schema:
    """Return the schema of a value that the published schema defines."""
    return {"$ref": f"#/$defs/{name}"}


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
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:sgagent:definitions:{values.FORMAT_VERSION}",
        "title": "sgagent definitions",
        **_schema_of(document),
        "$defs": {**_DEFINITIONS, **{name: _schema_of(model) for name, model in models.items()}},
    }


def _schema_of(model: type[DocumentModel]) -> Schema:
    fields, texts = model.fields(), dict(_docstrings(model))
    required = [name for name, field in fields.items() if field.default is _REQUIRED]
    return {
        "type": "object",
        "properties": {
            name: {
                **field.value.schema,
                **_default(field.default),
                "description": field.description or texts[field.attribute],
            }
            for name, field in fields.items()
        },
        **({"required": required} if required else {}),
        "description": model.__doc__,
        "additionalProperties": False,
        **model.more_schema,
    }


def _default(default: object) -> Schema:
    """Return the default, if it is not empty."""
    shown = default.value if isinstance(default, Enum) else default
    return {"default": shown} if shown and default is not _REQUIRED else {}


def _docstrings(model: type[DocumentModel]) -> Iterator[tuple[str, str]]:
    """Yield names and docstrings of fields, which only the source has."""
    declared = [base for base in reversed(model.__mro__) if issubclass(base, DocumentModel)]
    for node in chain.from_iterable(ast.parse(inspect.getsource(base)).body for base in declared):
        assert isinstance(node, ast.ClassDef)  # noqa: S101 - for the type checker
        for before, after in pairwise(node.body):
            match before, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    yield name, inspect.cleandoc(text)
