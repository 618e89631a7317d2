"""Write the configuration that the packages ship: every key with its default; it only observes."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from collections.abc import Iterable, Iterator

from release.manual import DOCS
from release.markdown import Block, CodeBlock, Heading, Paragraph, Table, parse_markdown, plain_text, section
from release.roff import said_of_default

_HEAD = """\
# The configuration of sgagent. See sgagent.toml(5), and sgagent-check(1), which reads it too.
#
# Each line that has no blank behind its # is a key with its default, or with an example: take the # away to
# change it. The agent reads this file when it starts, and not again: systemctl restart sgagent, which costs
# no session a packet.
"""
_SHIPPED = {
    ("[enforcement]", "mode"): (
        'mode = "observe"',
        'This file observes: nothing is enforced until "sgagent mode enforce", or "enforce" here, says so.',
    )
}
"""Keys that the packages set, with what is said of that: installing one must lock nobody out."""

_TABLE = re.compile(r"`(\[+[\w.]+\]+|platform)`")
"""Names of tables in a heading, or of the key that stands above all tables."""

_WIDTH = 100


def example_configuration() -> str:
    """Return the file; any of its lines without the first sign, or all of them, leave it valid.

    So tables stand there with nothing in them, and those that may be repeated are arrays in one line, which
    TOML wants above all tables.
    """
    blocks = parse_markdown((DOCS / "configuration.md").read_text(encoding="utf-8"))
    headings = [block for block in blocks if isinstance(block, Heading)]
    parts = [(names, section(blocks, one.text)) for one in headings if (names := _TABLE.findall(one.text))]
    parts.sort(key=lambda part: _is_plain_table(part[0][0]))
    examples = _repeated_tables(blocks)
    lines = [_HEAD.rstrip()]
    for names, described in parts:
        lines += ["", *_table(names, described, examples)]
    return "\n".join((*lines, ""))


def _is_plain_table(name: str) -> bool:
    return name.startswith("[") and not name.startswith("[[")


def _table(names: list[str], blocks: tuple[Block, ...], examples: dict[str, str]) -> Iterator[str]:
    """Yield a table: what is said of it, its keys, and examples where it may be repeated.

    Below headings stand alternatives that exclude each other: the first is the default. Of the others, and of
    a table that means nothing without a key that has no default, it is only told.
    """
    is_default, is_begun = not _needs_a_key(blocks), not _is_plain_table(names[0])
    for block in blocks:
        match block:
            case Paragraph():
                yield from _comment(block.text)
            case Heading():
                yield "#"
                yield from _comment(f"With {block.text}:")
                is_default = not is_begun
                if is_default:
                    yield from (names[0], f"#{block.text.strip('`')}")
                    is_begun = True
            case Table(header=("key", *_)):
                if not is_begun:
                    yield names[0] if is_default else f"# With a table {names[0]}:"
                    is_begun = True
                for row in block.rows:
                    yield from _key(names[0], *row, is_default=is_default)
            case _:
                pass
    yield from (examples[name] for name in names if name in examples)


def _needs_a_key(blocks: tuple[Block, ...]) -> bool:
    """Tell whether the first table of keys has one without a default."""
    tables = (block for block in blocks if isinstance(block, Table) and block.header[0] == "key")
    return any(row[1] == "required" for row in next(tables).rows)


def _key(table: str, key: str, *rest: str, is_default: bool) -> Iterator[str]:
    """Yield what a key means, and the line that gives it its default if it has one."""
    *default, meaning = rest
    text = (default[0] if default else "").strip("`")
    name = key.strip("`")
    if shipped := _SHIPPED.get((table, name)):
        line, said = shipped
        yield from _comment(f"{meaning}{said_of_default(text)}. {said}")
        yield line
    elif is_default and _is_value(text):
        yield from _comment(meaning)
        yield f"#{name} = {text}"
    else:
        yield from _comment(f"{name}: {meaning}{said_of_default(text)}")


def _is_value(text: str) -> bool:
    try:
        tomllib.loads(f"key = {text}")
    except tomllib.TOMLDecodeError:
        return False
    return True


def _comment(text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        plain_text(text),
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _repeated_tables(blocks: Iterable[Block]) -> dict[str, str]:
    """Return the first example of each table that may be repeated, from the document's own, in one line."""
    found: dict[str, str] = {}
    for block in blocks:
        if isinstance(block, CodeBlock):
            for name, entries in tomllib.loads(block.text).items():
                if isinstance(entries, list):
                    keys = ", ".join(f"{key} = {json.dumps(value)}" for key, value in entries[0].items())
                    found.setdefault(f"[[{name}]]", f"#{name} = [{{{keys}}}]")
    return found
