"""JSON that is read in large pieces comes to what it comes to when it is read word by word."""

from __future__ import annotations

import json
import tracemalloc
from typing import SupportsIndex

import pytest
from hypothesis import example, given, strategies as st

from sgagent.documents import Limits
from sgagent.documents.json_text import parse_json
from sgagent.documents.tree import DuplicateKey, Listing, MalformedError, Mapping, Node, Scalar, TreeBuilder
from tests.draws import Draws
from tests.strategies import draws

LIMITS = Limits(depth=4, rules=1, addresses=10)

Read = tuple[object, ...]
"""Values with their lines, and names that stand twice; or a complaint."""


def read(text: str, *, word_by_word: bool, limits: Limits = LIMITS) -> Read:
    """Return what a text comes to."""
    builder = TreeBuilder(limits)
    try:
        parse_json(text, builder, word_by_word=word_by_word)
    except MalformedError as error:
        return (error.code, error.message, error.line, error.value, error.remedy)
    root = builder.root
    return (None if root is None else with_lines(root, builder.root_line)), builder.duplicates


def with_lines(node: Node, line: int) -> object:
    """Return a value as plain tuples, with all lines and sizes."""
    match node:
        case str():
            return line, node
        case Scalar(kind, text):
            return line, kind, text
        case Listing():
            items = [with_lines(item, node.line_of(index)) for index, item in enumerate(node.items)]
            return node.line, node.size, tuple(items)
        case Mapping():
            entries = [(name, with_lines(value, node.line_of(name))) for name, value in node.entries.items()]
            return node.line, node.size, tuple(entries)


def alike(text: str, limits: Limits = LIMITS) -> None:
    """Check that both ways come to the same; half a surrogate pair gets in as an escape only."""
    text = text.encode(errors="replace").decode()
    assert read(text, word_by_word=False, limits=limits) == read(text, word_by_word=True, limits=limits)


TEXTS = st.text(max_size=4) | st.sampled_from(("10.0.0.1", "a\nb", 'a"b', "\\ud800", "é", "\ud83d", "\0"))
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
TREES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=25,
)
SNIPPETS = st.sampled_from(
    (
        "",
        " ",
        "\n",
        ",",
        ":",
        "[",
        "]",
        "{",
        "}",
        '"',
        "\\",
        "\\u",
        "-",
        "0",
        "1e5",
        "null",
        "NaN",
        '"a":1,',
        "\t",
    )
)


@given(TREES, st.sampled_from((None, 0, 1)), st.booleans())
def test_any_value(tree: object, indent: int | None, is_ascii: bool) -> None:  # noqa: FBT001 - hypothesis calls it
    """So it is with all that the standard library writes, NaN and the like included."""
    text = json.dumps(tree, indent=indent, ensure_ascii=is_ascii)
    alike(text, Limits())
    alike(text)


@given(TREES, st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), SNIPPETS), max_size=4))
@example(tree={"a": 1}, changes=[(1.0, 0, '{"a": 1, "a": 2}')])
def test_any_damage(tree: object, changes: list[tuple[float, int, str]]) -> None:
    """So it is with what is broken anywhere, and the complaint is the same, with its line."""
    text = json.dumps(tree, indent=1, ensure_ascii=False)
    for part, length, snippet in changes:
        place = round(part * len(text))
        text = text[:place] + snippet + text[place + length :]
    alike(text)


@given(st.text(alphabet='{}[]":,-\n\t 01eE.\\unlNa', max_size=40))
def test_any_punctuation(text: str) -> None:
    """So it is with what is mostly syntax."""
    alike(text)


@given(draws())
def test_any_changes_of_long_lists(draws: Draws) -> None:
    """So it is with long lists of what is read at once, with all lines, and so are complaints."""
    limits = draws.choice((Limits(), Limits(), Limits(depth=3), Limits(rules=2, addresses=0)))
    text = long_lists(draws)
    for _ in range(8):
        alike(text, limits)
        alike(damaged(draws, text), limits)
        text = changed(draws, text)


def long_lists(draws: Draws) -> str:
    """Return a text of lists of passages, with some other values in between."""

    def passage() -> object:
        number = draws.randint(0, 2)
        return draws.choice(({"a": f"{number}", "b": "x"}, {"a": number}, [f"{number}", "y"], ["1,2"]))

    def items() -> list[object]:
        inner = [passage() for _ in range(draws.randint(1, 39))]
        return [one if draws.chance(95) else draws.choice((1, "a", None, [one])) for one in inner]

    tree = draws.choice((items(), {"k": items()}, [items(), items()], {"k": items(), "l": {"m": items()}}))
    return json.dumps(tree, indent=draws.choice((None, 0, 1)))


def changed(draws: Draws, text: str) -> str:
    """Return the text with what stands between two commas taken out, said again, or said otherwise."""
    parts = text.split(",")
    first = draws.index(parts)
    end = first + draws.randint(1, 3)
    stretch, place = parts[first:end], draws.index(parts)
    match draws.choice(("out", "again", "other", "blank")):
        case "out":
            parts[first:end] = []
        case "again":
            parts[place:place] = stretch
        case "other":
            parts[first] = parts[first].replace("1", "2").replace("x", "z")
        case "blank":
            parts[first] += draws.choice((" ", "\n", "\n\n"))
    return ",".join(parts)


def damaged(draws: Draws, text: str) -> str:
    """Return the text with a few characters less or more somewhere."""
    place, length = draws.randint(0, len(text)), draws.randint(0, 2)
    more = draws.choice(("", "", "[", "}", '"', ",", "\n", "[1],", '{"a": 1},', "\\"))
    return text[:place] + more + text[place + length :]


def test_a_value_may_begin_below_its_name() -> None:
    """It counts as standing where its name does, and what is in it where it is written."""
    alike('{"a":\n[1, 2],\n"b":\n\n{"c": 1},\n"d":\n[],\n"e":\n[\n1]}')


def test_names_that_stand_twice_are_told() -> None:
    """A mapping that is read at once hides none of them."""
    text = '[\n{"a": "1",\n"a": "2"}]'
    found = read(text, word_by_word=False)
    assert found[1] == [DuplicateKey("[0].a", 3)]
    alike(text)


def test_what_does_not_fit_is_told_where_it_is() -> None:
    """Limits hold within what could be read at once."""
    text = "[" + ",\n".join("0" for _ in range(100)) + "]"
    code, _, line, *_ = read(text, word_by_word=False)
    assert (code, line) == ("too_many_values", LIMITS.nodes + 1)
    alike(text)
    alike("[[[[[1]]]]]")


def test_what_does_not_fit_is_not_even_read() -> None:
    """A list of very many values takes no more memory than the limits allow."""
    text = "[" + ",".join("0" for _ in range(200_000)) + "]"
    tracemalloc.start()
    try:
        assert read(text, word_by_word=False)[0] == "too_many_values"
        assert tracemalloc.get_traced_memory()[1] < 3 * len(text)
    finally:
        tracemalloc.stop()


@pytest.mark.one_python
@pytest.mark.parametrize("item", ("[]", "{}", "[[]]", '{"a": []}'))
def test_lists_and_mappings_take_a_bounded_amount_of_memory(item: str) -> None:
    """An empty list takes as much memory as several texts, so they have a limit of their own."""
    limits = Limits(rules=1_000, addresses=10_000)
    text = "[" + ",".join([item] * limits.containers) + "]"
    tracemalloc.start()
    try:
        assert read(text, word_by_word=False, limits=limits)[0] == "too_many_values"
        assert tracemalloc.get_traced_memory()[1] < 400 * limits.containers
    finally:
        tracemalloc.stop()
    for few in (item, ",".join([item] * 100)):
        alike(f"[{few}]")


class _CountedText(str):
    """A text that counts the characters that searches for a line feed look at."""

    __slots__ = ("searched",)
    searched: int

    def find(self, sub: str, start: SupportsIndex | None = None, end: SupportsIndex | None = None, /) -> int:
        """Search as any text does, and count."""
        found = super().find(sub, start, end)
        looked_at = (len(self) if found < 0 else found) - (0 if start is None else start.__index__())
        self.searched = getattr(self, "searched", 0) + looked_at
        return found


@pytest.mark.one_python
@pytest.mark.parametrize(
    "item",
    (
        '{"a": "1"}',
        "[]",
        '[{"a": "1"}]',
        '{"a": [' + ",".join(['{"b": "1"}'] * 16) + "]}",
        '{"a": true}',
        '"a"',
        "1",
    ),
)
@pytest.mark.parametrize("separator", (",", ",\n", ",\n" + ",".join(["1"] * 50) + ","))
def test_lines_are_counted_in_linear_time(item: str, separator: str) -> None:
    """The search for line feeds looks at each character once, in short and long lines."""
    text = _CountedText("[" + separator.join([item] * 150) + "]")
    read(text, word_by_word=False, limits=Limits())
    assert text.searched <= len(text)
