"""Read and write JSON by the dataclasses that declare its fields: state files, etcd, control protocol.

pydantic is imported when the first value is read: commands that only name or write these classes do not wait
for it.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic_core import SchemaValidator

# Of pydantic, which only this module imports: no plugin of another package runs here, and no time goes into
# checks of the schemas that pydantic itself makes of the dataclasses.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
os.environ.setdefault("PYDANTIC_SKIP_VALIDATING_CORE_SCHEMAS", "true")

T = TypeVar("T")

UNREADABLE = (ValueError, RecursionError)
"""What reading JSON raises that is damaged or of another program."""


@dataclass(frozen=True, slots=True)
class _Envelope:
    """The content of a small state file: JSON as a text in JSON, so that the checksum is of exact bytes."""

    sha256: str
    body: str
    boot_id: str | None = None


def from_json(declared: type[T], value: object, file_format: int | None = None) -> T:
    """Return the instance of a dataclass that a JSON object states; keys without a field are ignored.

    Args:
        declared: the dataclass.
        value: what :func:`json.loads` returned; no text or boolean stands for a number.
        file_format: what the key ``format`` of the object must be; None for objects without that key.

    Raises:
        ValueError: the value is no such object; the message is one line, and names the first wrong field.
    """
    if file_format is not None and isinstance(value, dict) and value.get("format") != file_format:
        raise ValueError(f"unknown format {value.get('format')!r}, where {file_format} is expected")
    try:
        found: T = _validator(declared).validate_python(value)  # type: ignore[arg-type] # classes are hashable
    except ValueError as error:
        raise ValueError(_first_reason(error)) from error
    return found


def to_json(value: object) -> Any:  # noqa: ANN401 - what json.dumps takes
    """Return a value as JSON has it: dataclasses as objects, their fields in their order; bytes as a text."""
    match value:
        case enum.Enum():
            return value.value
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return value.decode()
        case tuple():
            return [to_json(item) for item in value]
        case Mapping():
            return {name: to_json(item) for name, item in value.items()}
        case _:
            assert is_dataclass(value)  # noqa: S101 - there is nothing else; for the type checker
            return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}


def checksum(content: bytes) -> str:
    """Return the checksum of content as files hold it."""
    return hashlib.sha256(content).hexdigest()


def seal(body: object, file_format: int, boot_id: str | None = None) -> bytes:
    """Return the content of a small state file."""
    text = json.dumps(body)
    boot = {} if boot_id is None else {"boot_id": boot_id}
    return json.dumps(
        {"format": file_format, **boot, "sha256": checksum(text.encode()), "body": text}
    ).encode()


def unseal(content: bytes, file_format: int) -> tuple[Any, str | None]:
    """Return the body of a small state file, and the boot that it belongs to, if it says so.

    Raises:
        ValueError: it is no such file, or is damaged.
        RecursionError: it is nested too deep.
    """
    envelope = from_json(_Envelope, json.loads(content), file_format)
    if envelope.sha256 != checksum(envelope.body.encode()):
        raise ValueError("the checksum does not agree")
    return json.loads(envelope.body), envelope.boot_id


@cache
def _validator(declared: type[Any]) -> SchemaValidator:
    """Return the validator of a dataclass; pydantic's own takes texts and booleans for numbers."""
    from pydantic import TypeAdapter  # noqa: PLC0415 - it takes longer than most commands
    from pydantic_core import SchemaValidator  # noqa: PLC0415 - as above

    return SchemaValidator(_exact(TypeAdapter(declared).core_schema))


def _exact(schema: Any) -> Any:  # noqa: ANN401 - a schema of pydantic-core is nested dictionaries
    """Return a schema whose numbers and booleans take nothing else for them."""
    match schema:
        case {"type": "int" | "float" | "bool"}:
            return {**schema, "strict": True}
        case dict():
            return {name: _exact(part) for name, part in schema.items()}
        case list():
            return list(map(_exact, schema))
        case _:
            return schema


_WORDS = {
    "bool_type": "expected true or false",
    "dataclass_type": "expected an object",
    "dict_type": "expected an object",
    "float_type": "expected a number",
    "int_type": "expected a whole number",
    "mapping_type": "expected an object",
    "missing": "missing",
    "string_type": "expected a text",
    "tuple_type": "expected a list",
    "unexpected_keyword_argument": "unknown field",
}
"""What pydantic's errors mean, by their types."""


def _first_reason(error: ValueError) -> str:
    """Return the first of pydantic's reasons in our words, with the path to the value."""
    from pydantic_core import ValidationError  # noqa: PLC0415 - as above

    if not isinstance(error, ValidationError):
        return str(error)
    reason = error.errors(include_url=False, include_input=False)[0]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in reason["loc"])
    words = _WORDS.get(reason["type"], reason["msg"])
    if reason["type"] == "enum":
        words = "expected one of " + reason["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
    return f"{path.removeprefix('.')}: {words}" if path else words
