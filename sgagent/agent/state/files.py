"""State files: written, renamed and removed atomically, and their JSON by the dataclasses that declare it.

A crash or a power cut leaves the old file or the new one. pydantic is imported when the first file is read or
written: commands that only name these classes do not wait for it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file by new content, all of it or nothing, safe from a power cut.

    Raises:
        OSError: nothing was changed.
    """
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    rename_durably(draft, path)


def rename_durably(path: Path, target: Path) -> None:
    """Give a file another name in the same file system, in place of what has that name."""
    path.replace(target)
    _sync_directory(target.parent)
    if path.parent != target.parent:
        _sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)
    if path.parent.exists():
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

UNREADABLE = (ValueError, RecursionError)
"""What reading a file raises that is damaged or of another program."""


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What a small state file holds: JSON as a text in JSON, so that the checksum is of exact bytes."""

    format: int
    sha256: str
    body: str
    boot_id: str | None = None


def from_json(declared: type[T], value: object) -> T:
    """Return the instance of a dataclass that a JSON object states; keys without a field are ignored.

    Raises:
        ValueError: the value is no such object; the message is one line.
    """
    try:
        found: T = _adapter(declared).validate_python(value)  # type: ignore[arg-type] # classes are hashable
    except ValueError as error:
        raise ValueError(_first_reason(error)) from error
    return found


def to_json(value: object) -> Any:  # noqa: ANN401 - what json.dumps takes
    """Return a dataclass as values of JSON, its fields in their order."""
    return _adapter(type(value)).dump_python(value, mode="json")  # type: ignore[arg-type] # classes are hashable


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
    envelope = from_json(_Envelope, json.loads(content))
    if envelope.format != file_format or envelope.sha256 != checksum(envelope.body.encode()):
        raise ValueError("the format or the checksum does not agree")
    return json.loads(envelope.body), envelope.boot_id


@cache
def _adapter(declared: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - it takes longer than most commands

    return TypeAdapter(declared)


def _first_reason(error: ValueError) -> str:
    """Return the first of pydantic's reasons, with the way to the value."""
    from pydantic import ValidationError  # noqa: PLC0415 - as above

    if not isinstance(error, ValidationError):
        return str(error)
    reason = error.errors(include_url=False, include_context=False)[0]
    way = ".".join(str(step) for step in reason["loc"])
    return f"{way}: {reason['msg']}" if way else reason["msg"]
