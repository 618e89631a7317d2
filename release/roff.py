"""Set blocks of text in the macros of man(7)."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import assert_never

from release.markdown import LINK, MARKED, Block, BulletList, CodeBlock, Heading, Paragraph, Table

_DOCUMENT = re.compile(r" \(\[([\w.]+\.md)\]\([^)]*\)\)")
_WIDTH = 78
_SENTENCE = re.compile(r"(?<=[.!?:;]) +(?=[A-Z`*])")


def set_blocks(blocks: Iterable[Block], *, deepest: str = "SS") -> Iterator[str]:
    """Yield the lines of blocks; headings become ``deepest`` macros."""
    for block in blocks:
        match block:
            case Heading():
                yield f".{deepest} {quoted(set_text(block.text))}"
            case Paragraph():
                yield ".PP"
                yield from set_running(block.text)
            case CodeBlock():
                yield from (".PP", ".RS 4", ".EX", *set_literal(block.text), ".EE", ".RE")
            case BulletList():
                for item in block.items:
                    yield from (".IP \\(bu 2", *set_running(item))
            case Table():
                yield from set_table(block)
            case _:
                assert_never(block)


def set_table(table: Table) -> Iterator[str]:
    """Yield a list of terms: a row's first cell, with what is said of it, and its default at the end."""
    for term, *rest in table.rows:
        texts = dict(zip(table.header[1:], rest, strict=True))
        default = texts.pop("default", "")
        said = ". ".join(
            text if title in ("", "meaning", "means") or len(texts) == 1 else f"{title}: {text}"
            for title, text in texts.items()
            if text
        )
        yield from set_term(term, (said or "—") + said_of_default(default))


def said_of_default(text: str) -> str:
    """Return what is said behind a key's meaning of what holds without it."""
    return {"": "", "required": " (required)"}.get(text, f" (default: {text})")


def set_term(term: str, text: str) -> Iterator[str]:
    """Yield a term and what it means."""
    yield from (".TP", guarded(set_text(term)), *set_running(text))


def set_running(text: str) -> Iterator[str]:
    """Yield running text, a sentence on each line; links keep their words alone."""
    plain = LINK.sub(r"\1", _DOCUMENT.sub("", text))
    for sentence in _SENTENCE.split(plain):
        lines = textwrap.wrap(set_text(sentence), _WIDTH, break_long_words=False, break_on_hyphens=False)
        yield from map(guarded, lines)


def set_text(text: str) -> str:
    """Return text with its marks as fonts: code and strong words bold, emphasis in italics."""
    parts, end = [], 0
    for mark in MARKED.finditer(text):
        code, strong, emphasis = mark[2], mark[3], mark[4]
        parts.append(escaped(text[end : mark.start()]))
        if code or strong:
            parts.append(f"\\fB{escaped(code or strong, is_code=bool(code))}\\fR")
        else:
            parts.append(f"\\fI{escaped(emphasis)}\\fR")
        end = mark.end()
    return "".join((*parts, escaped(text[end:])))


def set_literal(text: str) -> Iterator[str]:
    """Yield text that is shown as it is, line by line."""
    for line in text.split("\n"):
        yield guarded(escaped(line, is_code=True))


def escaped(text: str, *, is_code: bool = False) -> str:
    """Return text that no formatter takes for an escape; in code a hyphen is a minus, to be copied."""
    text = text.replace("\\", "\\e")
    if is_code:
        text = text.replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    return text


def guarded(line: str) -> str:
    """Return a line that no formatter takes for a request."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


def quoted(text: str) -> str:
    """Return one argument of a macro."""
    return '"' + text.replace('"', "\\(dq") + '"'
