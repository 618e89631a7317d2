"""The codec of the control protocol: one JSON line for a query, one for the answer."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from sgagent.agent.control.requests import KINDS, ControlAnswer, Query
from sgagent.core.errors import (
    DocumentError,
    KernelRefusedError,
    NotPermittedError,
    Problem,
    SgagentError,
    SourceUnavailableError,
    UsageError,
)
from sgagent.json_model import from_json, to_json

PROTOCOL_VERSION = 1

LONGEST_QUESTION = 16 * 1024
"""Bytes, with the line's end."""

LONGEST_ORDER = 512 * 1024 * 1024
"""Bytes, of those who may change something: room for as many documents as a source may deliver, escaped."""

SOCKET_NAME = "control.sock"
"""In the runtime directory."""

LONGEST_ANSWER = 128 * 1024 * 1024
"""Bytes, with the line's end: room for the hits of as many rules as documents may hold."""

_Value = TypeVar("_Value")


class MalformedRequestError(Exception):
    """A line is none of this protocol; the message says why."""


def encode_question(query: Query) -> bytes:
    """Return a query as a line."""
    word = next(word for word, (kind, _) in KINDS.items() if isinstance(query, kind))
    return _line({"version": PROTOCOL_VERSION, "question": word, **to_json(query)})


def decode_question(line: bytes) -> Query:
    """Return the query that a line asks.

    Raises:
        MalformedRequestError: it asks none, or not rightly.
    """
    outer = _object(line)
    if outer.pop("version", None) != PROTOCOL_VERSION:
        raise MalformedRequestError(f"this agent speaks version {PROTOCOL_VERSION} of the protocol")
    word = outer.pop("question", None)
    if not isinstance(word, str) or word not in KINDS:
        raise MalformedRequestError(f"question: expected one of {', '.join(KINDS)}")
    kind, _ = KINDS[word]
    unknown = outer.keys() - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        raise MalformedRequestError(f"unknown field: {min(unknown)}")
    return _validated(kind, outer)


def encode_answer(answer: ControlAnswer | Refusals) -> bytes:
    """Return an answer as a line."""
    word = "refused" if isinstance(answer, Refusals) else "answer"
    return _line({"version": PROTOCOL_VERSION, word: to_json(answer)})


def decode_answer(query: Query, line: bytes) -> ControlAnswer | Refusals:
    """Return the answer to a query; fields that a newer agent adds are passed over.

    Raises:
        MalformedRequestError: it is none.
    """
    outer = _object(line)
    if outer.get("version") != PROTOCOL_VERSION:
        raise MalformedRequestError(f"expected version {PROTOCOL_VERSION} of the protocol")
    kind: type[ControlAnswer | Refusals] = Refusals
    if "refused" not in outer:
        kind = next(answer for asked, answer in KINDS.values() if isinstance(query, asked))
    value = outer.get("refused", outer.get("answer"))
    try:
        found = _made(kind, value)
    except (KeyError, TypeError, ValueError):
        return _validated(kind, value)
    assert isinstance(found, kind)  # noqa: S101 - what was just made; for the type checker
    return found


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _object(line: bytes) -> dict[str, object]:
    """Return the object that stands on a line.

    Raises:
        MalformedRequestError: none does.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise MalformedRequestError("not a line of JSON") from None
    if not isinstance(value, dict):
        raise MalformedRequestError("not a JSON object")
    return value


def _validated(kind: type[_Value], value: object) -> _Value:
    """Return the value of a type that JSON stands for.

    Raises:
        MalformedRequestError: it stands for none; says which field is wrong.
    """
    try:
        return from_json(kind, value)
    except ValueError as error:
        raise MalformedRequestError(str(error)) from None


def _made(hint: object, value: object) -> object:
    """Return the value of a type hint of answers that JSON stands for, without the time that pydantic takes.

    Raises:
        KeyError, TypeError, ValueError: it stands for none.
    """
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        item = typing.get_args(hint)[0]
        return tuple(_made(item, part) for part in value)
    if not isinstance(hint, type):
        raise TypeError
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        make: Callable[..., object] = hint
        return make(
            **{name: _made(kind, value[name]) for name, kind in _hints(hint).items() if name in value}
        )
    if issubclass(hint, enum.Enum):
        return hint(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError
    return value


@functools.cache
def _hints(kind: type) -> Mapping[str, object]:
    return typing.get_type_hints(kind)


class Refusal(enum.Enum):
    """Why a query was not answered."""

    MALFORMED = "malformed"
    """It is not a query of this protocol, or of a version that this agent does not speak."""

    WRONG_USE = "wrong_use"
    """It makes no sense here."""

    NOT_PERMITTED = "not_permitted"
    DOCUMENTS = "documents"
    """The definitions of a command have errors; nothing was changed."""

    KERNEL = "kernel"
    """The kernel refused a command; the previous rules stay active."""

    SOURCE = "source"
    """The source can't be reached; the previous rules stay active."""

    FAULT = "fault"
    """The agent failed; its log says more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """No answer, and why."""

    reason: Refusal
    message: str
    problems: tuple[Problem, ...] = ()
    """Of definitions."""

    @classmethod
    def of(cls, error: SgagentError) -> Self:
        """Return why something was not answered or not done."""
        reason = next((reason for reason, kind in _ERRORS.items() if isinstance(error, kind)), Refusal.FAULT)
        if isinstance(error, DocumentError):
            return cls(reason=reason, message="the definitions have errors", problems=error.problems)
        return cls(reason=reason, message=str(error))

    def exception(self) -> SgagentError:
        """Return the exception that the client raises."""
        if self.reason is Refusal.DOCUMENTS:
            return DocumentError(self.problems)
        if self.reason is Refusal.NOT_PERMITTED:
            return NotPermittedError(self.message)
        if self.reason in _ERRORS:
            return _ERRORS[self.reason](self.message)
        return SourceUnavailableError(f"the agent can't do this: {self.message}")


_ERRORS: Mapping[Refusal, type[SgagentError]] = {
    Refusal.DOCUMENTS: DocumentError,
    Refusal.KERNEL: KernelRefusedError,
    Refusal.SOURCE: SourceUnavailableError,
    Refusal.WRONG_USE: UsageError,
}
"""The exceptions that the agent raises, and the client again."""
