"""Replace parts of a document that are written by programs, each between two marks."""

from __future__ import annotations

import datetime as dt
import platform
from collections.abc import Mapping


def with_parts(text: str, parts: Mapping[str, str]) -> str:
    """Return a document with parts of it replaced.

    Args:
        text: the document, which has ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->`` for each part.
        parts: what is to stand between the marks, whole lines.

    Raises:
        ValueError: the document has no such marks.
    """
    for name, content in parts.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the document has no place for {name}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{content}{end}{rest.partition(end)[2]}"
    return text


def where() -> str:
    """Return where something was seen, and when."""
    day = dt.datetime.now(tz=dt.UTC).date()
    kernel = ".".join(platform.release().split(".")[:2])
    return f"Linux {kernel}, Python {platform.python_version()}, {day}"
