"""Read the part of Markdown in which docs/ is written into blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; level 1 is the document's title."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text, on one line."""

    text: str


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Text that is shown as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class BulletList:
    """Items, each on one line."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells by row, the header first."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Paragraph | CodeBlock | BulletList | Table

_HEADING = re.compile(r"(#+) (.*)")
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_CELL = re.compile(r"(?<!\\)\|")

LINK = re.compile(r"\[((?:`[^`]*`|[^\]`])+)\]\([^)]*\)")
"""A link, whose words may hold code with brackets."""

MARKED = re.compile(r"(`+)(.+?)\1|\*\*(.+?)\*\*|(?<!\w)\*(\w[^*]*)\*(?!\w)")
"""Marked words: code (group 2), strong (3), emphasis (4). A sign within code marks nothing."""


def plain_text(text: str) -> str:
    """Return running text without its marks, and links as their words."""
    return MARKED.sub(lambda mark: mark[2] or mark[3] or mark[4], LINK.sub(r"\1", text))


def parse_markdown(text: str) -> tuple[Block, ...]:
    """Return the blocks of a document; comments are left out."""
    return tuple(_blocks(_COMMENT.sub("", text).split("\n")))


def section(blocks: tuple[Block, ...], title: str) -> tuple[Block, ...]:
    """Return the blocks under a heading, up to the next of its level or above; empty if there is none."""
    found: list[Block] = []
    level = 0
    for block in blocks:
        if isinstance(block, Heading):
            if level and block.level <= level:
                break
            if not level and block.text == title:
                level = block.level
                continue
        if level:
            found.append(block)
    return tuple(found)


def _blocks(lines: list[str]) -> Iterator[Block]:
    """Yield blocks; each reader takes its lines off the front."""
    lines = [*lines, ""]
    while lines:
        line = lines[0]
        if heading := _HEADING.fullmatch(line):
            del lines[0]
            yield Heading(len(heading[1]), heading[2])
        elif line.startswith("```"):
            yield _code(lines)
        elif line.startswith("|"):
            yield _table(lines)
        elif _ITEM.match(line):
            yield _list(lines)
        elif line.strip():
            yield Paragraph(" ".join(_running(lines)))
        else:
            del lines[0]


def _code(lines: list[str]) -> CodeBlock:
    end = lines.index("```", 1)
    text = "\n".join(lines[1:end])
    del lines[: end + 1]
    return CodeBlock(text)


def _table(lines: list[str]) -> Table:
    rows = []
    while lines[0].startswith("|"):
        cells = _CELL.split(lines.pop(0).strip()[1:].removesuffix("|"))
        rows.append(tuple(cell.strip().replace("\\|", "|") for cell in cells))
    return Table(rows[0], tuple(rows[2:]))


def _list(lines: list[str]) -> BulletList:
    items: list[str] = []
    while lines[0].strip() and (_ITEM.match(lines[0]) or lines[0].startswith(" ")):
        line = lines.pop(0)
        if _ITEM.match(line):
            items.append(_ITEM.sub("", line, count=1))
        else:
            items[-1] += f" {line.strip()}"
    return BulletList(tuple(items))


def _running(lines: list[str]) -> Iterator[str]:
    """Yield the lines of a paragraph: up to an empty one, or one that begins another block."""
    while lines[0].strip() and not lines[0].startswith(("```", "|", "#", "- ")):
        yield lines.pop(0).strip()
