"""Write the example configuration: every key with its default, and all of it commented out."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterator

from release.manual import DOCS
from release.markdown import Block, CodeBlock, Heading, Paragraph, Table, parse_markdown, section
from release.roff import said_of_default

_HEAD = """\
# The configuration of sgagent. See sgagent.toml(5), and sgagent-check(1), which reads it too.
#
# Each line that has no blank behind its # is a key with its default, or an example of a table that may
# be repeated: take the # away to change it. The agent reads this file when it starts, and not again:
# systemctl restart sgagent, which costs no session a packet.
"""
_TABLE = re.compile(r"`(\[+[\w.]+\]+|platform)`")
"""Names of tables in a heading, or of the key that stands above all tables."""

_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_REPEATED = re.compile(r"^\[\[.*?(?=^\[|^#|\Z)", re.DOTALL | re.MULTILINE)
_WIDTH = 100


def example_configuration() -> str:
    """Return the file; without the first sign of its lines it is valid, and says the defaults."""
    blocks = parse_markdown((DOCS / "configuration.md").read_text(encoding="utf-8"))
    examples = _repeated_tables(blocks)
    lines = [_HEAD.rstrip()]
    for heading in blocks:
        if isinstance(heading, Heading) and (names := _TABLE.findall(heading.text)):
            lines += ["", *_table(names, section(blocks, heading.text), examples)]
    return "\n".join((*lines, ""))


def _table(names: list[str], blocks: tuple[Block, ...], examples: dict[str, str]) -> Iterator[str]:
    """Yield a table: what is said of it, its keys, and examples where it may be repeated.

    Below headings stand alternatives that exclude each other: the first is the default. Of the others, and of
    a table that means nothing without a key that has no default, it is only told.
    """
    is_table, is_repeated = names[0].startswith("["), names[0].startswith("[[")
    is_default, is_begun = not _needs_a_key(blocks), not is_table or is_repeated
    for block in blocks:
        match block:
            case Paragraph():
                yield from _comment(block.text)
            case Heading():
                yield "#"
                yield from _comment(f"With {block.text}:")
                is_default = not is_begun
                if is_default:
                    yield from (f"#{names[0]}", f"#{block.text.strip('`')}")
                    is_begun = True
            case Table(header=("key", *_)):
                if not is_begun:
                    yield f"#{names[0]}" if is_default else f"# {names[0]}"
                    is_begun = True
                for row in block.rows:
                    yield from _key(*row, is_default=is_default)
            case _:
                pass
    for name in names if is_repeated else ():
        if example := examples.get(name):
            yield from (f"#{line}" for line in example.splitlines())


def _needs_a_key(blocks: tuple[Block, ...]) -> bool:
    """Tell whether the first table of keys has one without a default."""
    tables = (block for block in blocks if isinstance(block, Table) and block.header[0] == "key")
    return any(row[1] == "required" for row in next(tables).rows)


def _key(key: str, *rest: str, is_default: bool) -> Iterator[str]:
    """Yield what a key means, and the line that gives it its default if it has one."""
    *default, meaning = rest
    text = (default[0] if default else "").strip("`")
    name = key.strip("`")
    if is_default and _is_value(text):
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
    plain = re.sub(r"[`*]", "", _LINK.sub(r"\1", text))
    yield from textwrap.wrap(plain, _WIDTH, initial_indent="# ", subsequent_indent="#   ")


def _repeated_tables(blocks: tuple[Block, ...]) -> dict[str, str]:
    """Return the first example of each table that may be repeated, from the document's own."""
    found: dict[str, str] = {}
    for block in blocks:
        if isinstance(block, CodeBlock):
            for example in _REPEATED.findall(block.text):
                found.setdefault(example.splitlines()[0], example.strip())
    return found
