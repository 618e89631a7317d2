"""The lines of keys in a TOML text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from sgagent.settings import RefusedSettingsError, parse_settings
from sgagent.settings.constraints import Path
from sgagent.settings.toml_reader import find_key_lines

EVERYTHING = '''\
# a comment with [brackets] = and "quotes"
top = 1
"quoted \\u0041" = 'a#b'      # behind a value

[plain]
dotted.inner.'last one' = """
not = "a key"
[not.a.table]
\\""" still in it"""
literal = \'\'\'
x = 'y'\'\'\'\'
list = [ # of lists
    [1, 2],
    "x = 1",

    {first = 1, second.third = [true]},
]
moment = 1979-05-27 07:32:00

[[many]]
a = 1
[[many]]

[many.below]
b = -1.5e3
[[many.below.again]]
c = {}
[[many.below.again]]
[[many]]
a = []
[plain.later]
'''

LINES: dict[Path, int] = {
    ("top",): 2,
    ("quoted A",): 3,
    ("plain",): 5,
    ("plain", "dotted"): 6,
    ("plain", "dotted", "inner"): 6,
    ("plain", "dotted", "inner", "last one"): 6,
    ("plain", "literal"): 10,
    ("plain", "list"): 12,
    ("plain", "list", 0): 13,
    ("plain", "list", 0, 0): 13,
    ("plain", "list", 0, 1): 13,
    ("plain", "list", 1): 14,
    ("plain", "list", 2): 16,
    ("plain", "list", 2, "first"): 16,
    ("plain", "list", 2, "second"): 16,
    ("plain", "list", 2, "second", "third"): 16,
    ("plain", "list", 2, "second", "third", 0): 16,
    ("plain", "moment"): 18,
    ("many",): 20,
    ("many", 0): 20,
    ("many", 0, "a"): 21,
    ("many", 1): 22,
    ("many", 1, "below"): 24,
    ("many", 1, "below", "b"): 25,
    ("many", 1, "below", "again"): 26,
    ("many", 1, "below", "again", 0): 26,
    ("many", 1, "below", "again", 0, "c"): 27,
    ("many", 1, "below", "again", 1): 28,
    ("many", 2): 29,
    ("many", 2, "a"): 30,
    ("plain", "later"): 31,
}


def test_each_key_has_its_line() -> None:
    """Whatever stands around it, and with either end of line."""
    assert find_key_lines(EVERYTHING) == LINES
    assert find_key_lines(EVERYTHING.replace("\n", "\r\n")) == LINES


def test_what_is_missing_has_the_line_of_what_lacks_it() -> None:
    """A table, or one of several."""
    entry = '[[failsafe]]\ndirection = "ingress"\ncidr = "::"\nprotocol = "all"\n'
    text = f'[source]\ntype = "https"\n{entry}[[failsafe]]\n'
    with pytest.raises(RefusedSettingsError) as caught:
        parse_settings(text, "x.toml")
    found = {(one.origin.line, one.origin.path) for one in caught.value.problems}
    assert found >= {(1, "source.url"), (7, "failsafe[1].cidr"), (7, "failsafe[1].direction")}


def paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Go through the paths of all values."""
    if path:
        yield path
    for step, item in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from paths(item, (*path, step))


NAMES = st.sampled_from(["a", "b-1", '"c.d"', "'e]'", '"\\""'])
KEYS = st.lists(NAMES, min_size=1, max_size=3).map(" . ".join)
SINGLE = st.sampled_from(
    [
        "1",
        "1.5",
        "true",
        "07:32:00",
        '"x#y"',
        "'[z'",
        '"""\n"\n]"""',
        "'''\n''''",
        '"\\\\"',
        "1979-05-27 07:32:00Z",
    ]
)
VALUES = st.recursive(
    SINGLE,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[ # {\n" + ",\n".join(items) + "\n]")
        | st.lists(st.tuples(NAMES, inner), max_size=2).map(
            lambda pairs: "{" + ", ".join(f"{name} = {value}" for name, value in pairs) + "}"
        )
    ),
    max_leaves=5,
)
STATEMENTS = st.one_of(
    KEYS.map(lambda key: f"[{key}]"),
    KEYS.map(lambda key: f"[[ {key} ]] # ]"),
    st.tuples(KEYS, VALUES).map(" = ".join),
    st.just("# x = 1"),
    st.just(""),
)


@given(st.lists(STATEMENTS, max_size=8).map("\n".join))
def test_any_text_has_lines_for_exactly_its_keys(text: str) -> None:
    """As Python's own reader finds them, and each on a line that there is."""
    try:
        expected = set(paths(tomllib.loads(text)))
    except tomllib.TOMLDecodeError:
        return
    lines = find_key_lines(text)
    assert set(lines) == expected
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@pytest.mark.parametrize("text", ("", "\n", "# x", "a.b = 1"))
def test_short_texts(text: str) -> None:
    """They have lines as well."""
    assert set(find_key_lines(text)) == set(paths(tomllib.loads(text)))
