"""Atomic replacement of a file."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sgagent.core.errors import UsageError


def replace_file(place: Path, text: str) -> None:
    """Write a file, all of it or nothing.

    Raises:
        UsageError: it can't be written.
    """
    draft = place.with_name(f".{place.name}.new")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise UsageError(f"{place}: can't be written: {error.strerror}") from error
