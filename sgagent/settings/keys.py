"""Read single keys of the configuration: words, numbers and paths, each with its default."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import TypeVar

from sgagent.documents.field import Fields

Word = TypeVar("Word", bound=enum.Enum)


def read_word(table: Fields, name: str, default: Word) -> Word:
    """Return the meaning of a word; the default if the key is not there."""
    field = table.get(name)
    words = {word.value: word for word in type(default)}
    return (field.word(words) if field else None) or default


def read_boolean(table: Fields, name: str, *, default: bool) -> bool:
    """Return true or false; the default if the key is not there."""
    field = table.get(name)
    found = field.boolean() if field else None
    return default if found is None else found


def read_number(table: Fields, name: str, default: int, *, least: int, most: int) -> int:
    """Return a whole number of a range, both ends included; the default if the key is not there."""
    field = table.get(name)
    found = field.integer() if field else None
    if field is None or found is None:
        return default
    if not least <= found <= most:
        field.error("out_of_range", "a number out of its range", f"from {least} to {most}")
        return default
    return found


def read_path(table: Fields, name: str, default: Path) -> Path:
    """Return a path; the default if the key is not there."""
    return read_optional_path(table, name, like=str(default)) or default


def read_optional_path(table: Fields, name: str, *, like: str) -> Path | None:
    """Return a path; None if the key is not there.

    Args:
        table: the table with the key.
        name: the key.
        like: an example, for the error.
    """
    field = table.get(name)
    text = field.text() if field else None
    if field is None or text is None:
        return None
    if not text or "\0" in text:
        field.error("bad_path", "not a path", like)
        return None
    return Path(text)


def read_form(table: Fields, name: str, form: re.Pattern[str], right: str) -> str | None:
    """Return a text of a form; None, with an error noted if there is another one.

    Args:
        table: the table with the key.
        name: the key.
        form: what the whole text has to match.
        right: that in words, for the error.
    """
    field = table.get(name)
    text = field.text() if field else None
    if field is None or text is None:
        return None
    if not form.fullmatch(text):
        field.error("bad_form", "not of the form that it has", right)
        return None
    return text
