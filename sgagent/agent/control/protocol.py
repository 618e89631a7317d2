"""The codec of the control protocol: one JSON line for a question, one for the answer."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Mapping
from typing import TypeVar

from sgagent.agent.control.commands import (
    ApplyOrder,
    ConfirmAnswer,
    ConfirmOrder,
    EnforcedAnswer,
    HistoryAnswer,
    HistoryQuestion,
    ModeAnswer,
    ModeOrder,
    ReloadOrder,
    RollbackOrder,
)
from sgagent.agent.control.queries import (
    Answer,
    DeniedAnswer,
    DeniedQuestion,
    DocumentsAnswer,
    DocumentsQuestion,
    ExplainAnswer,
    ExplainQuestion,
    HitsAnswer,
    HitsQuestion,
    Question,
    Refusals,
    StatusAnswer,
    StatusQuestion,
)

PROTOCOL_VERSION = 1

LONGEST_QUESTION = 16 * 1024
"""Bytes, with the line's end."""

LONGEST_ORDER = 512 * 1024 * 1024
"""Bytes, of those who may change something: room for as many documents as a source may deliver, escaped."""

SOCKET_NAME = "control.sock"
"""In the runtime directory."""

LONGEST_ANSWER = 128 * 1024 * 1024
"""Bytes, with the line's end: room for the hits of as many rules as documents may hold."""

_QUESTIONS: Mapping[str, type[Question]] = {
    "status": StatusQuestion,
    "hits": HitsQuestion,
    "explain": ExplainQuestion,
    "history": HistoryQuestion,
    "apply": ApplyOrder,
    "confirm": ConfirmOrder,
    "reload": ReloadOrder,
    "rollback": RollbackOrder,
    "mode": ModeOrder,
    "documents": DocumentsQuestion,
    "denied": DeniedQuestion,
}
_ANSWERS: Mapping[type[Question], type[Answer]] = {
    StatusQuestion: StatusAnswer,
    HitsQuestion: HitsAnswer,
    ExplainQuestion: ExplainAnswer,
    HistoryQuestion: HistoryAnswer,
    ApplyOrder: EnforcedAnswer,
    ConfirmOrder: ConfirmAnswer,
    ReloadOrder: EnforcedAnswer,
    RollbackOrder: EnforcedAnswer,
    ModeOrder: ModeAnswer,
    DocumentsQuestion: DocumentsAnswer,
    DeniedQuestion: DeniedAnswer,
}
_Value = TypeVar("_Value")


class MalformedRequestError(Exception):
    """A line is none of this protocol; the message says why."""


def encode_question(question: Question) -> bytes:
    """Return a question as a line."""
    word = next(word for word, kind in _QUESTIONS.items() if isinstance(question, kind))
    return _line({"version": PROTOCOL_VERSION, "question": word, **encode_fields(question)})


def decode_question(line: bytes) -> Question:
    """Return the question that a line asks.

    Raises:
        MalformedError: it asks none, or not rightly.
    """
    outer = _object(line)
    if outer.pop("version", None) != PROTOCOL_VERSION:
        raise MalformedRequestError(f"this agent speaks version {PROTOCOL_VERSION} of the protocol")
    word = outer.pop("question", None)
    kind = _QUESTIONS.get(word) if isinstance(word, str) else None
    if kind is None:
        raise MalformedRequestError(f"question: expected one of {', '.join(_QUESTIONS)}")
    unknown = outer.keys() - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        raise MalformedRequestError(f"unknown field: {min(unknown)}")
    return decode(kind, outer)


def encode_answer(answer: Answer | Refusals) -> bytes:
    """Return an answer as a line."""
    word = "refused" if isinstance(answer, Refusals) else "answer"
    return _line({"version": PROTOCOL_VERSION, word: encode_fields(answer)})


def decode_answer(question: Question, line: bytes) -> Answer | Refusals:
    """Return the answer to a question; fields that a newer agent adds are passed over.

    Raises:
        MalformedError: it is none.
    """
    outer = _object(line)
    if outer.get("version") != PROTOCOL_VERSION:
        raise MalformedRequestError(f"expected version {PROTOCOL_VERSION} of the protocol")
    if "refused" in outer:
        return decode(Refusals, outer["refused"])
    return decode(_ANSWERS[type(question)], outer.get("answer"))


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _object(line: bytes) -> dict[str, object]:
    """Return the object that stands on a line.

    Raises:
        MalformedError: none does.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise MalformedRequestError("not a line of JSON") from None
    if not isinstance(value, dict):
        raise MalformedRequestError("not a JSON object")
    return value


def encode_fields(value: object) -> dict[str, object]:
    """Return the fields of a dataclass as JSON."""
    assert dataclasses.is_dataclass(value)  # noqa: S101 - the protocol's own values; for the type checker
    return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _encode(value: object) -> object:
    match value:
        case enum.Enum():
            return value.value
        case tuple():
            return [_encode(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return encode_fields(value)


def decode(kind: type[_Value], value: object) -> _Value:
    """Return the value of a type that JSON stands for.

    Args:
        kind: a dataclass of numbers, texts, enums, tuples of such, and of its like.
        value: what was read.

    Raises:
        MalformedError: it stands for none; says which field is wrong.
    """
    read = _decode(kind, value, "")
    assert isinstance(read, kind)  # noqa: S101 - what was just made; for the type checker
    return read


def _decode(hint: object, value: object, path: str) -> object:
    """Return what stands for a type hint at a place."""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise MalformedRequestError(f"{path}: expected a list")
        item = typing.get_args(hint)[0]
        return tuple(_decode(item, part, f"{path}[{number}]") for number, part in enumerate(value))
    assert isinstance(hint, type)  # noqa: S101 - no other hints occur in the protocol; for the type checker
    if dataclasses.is_dataclass(hint):
        return _decode_fields(hint, value, path)
    if issubclass(hint, enum.Enum):
        return _decode_word(hint, value, path)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise MalformedRequestError(f"{path}: expected {_KINDS[hint]}")
    return value


_KINDS = {bool: "true or false", float: "a number", int: "a whole number", str: "a text"}


def _decode_fields(kind: type, value: object, path: str) -> object:
    if not isinstance(value, dict):
        raise MalformedRequestError(f"{path or kind.__name__}: expected an object")
    missing = [name for name in _required(kind) if name not in value]
    if missing:
        raise MalformedRequestError(f"{path}.{missing[0]}: missing" if path else f"{missing[0]}: missing")
    return kind(
        **{
            name: _decode(hint, value[name], f"{path}.{name}" if path else name)
            for name, hint in _hints(kind).items()
            if name in value
        }
    )


@functools.cache
def _hints(kind: type) -> Mapping[str, object]:
    return typing.get_type_hints(kind)


@functools.cache
def _required(kind: type) -> tuple[str, ...]:
    """Return the names of the fields without a default."""
    fields = dataclasses.fields(kind)
    return tuple(
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )


def _decode_word(kind: type[enum.Enum], value: object, path: str) -> enum.Enum:
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(str(member.value) for member in kind)
        raise MalformedRequestError(f"{path}: expected one of {words}") from None
