"""Rows on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from sgagent.cli.output import lay_out

ROWS = (("N", "NAME", "OF"), ("1", "a name of some length", "all"), ("1000", "b", ""))


def test_columns_stand_under_their_headings() -> None:
    """Numbers to the right, words to the left, and no blanks at the end of a line."""
    assert lay_out(ROWS, right=(0,), width=None) == [
        "   N  NAME                   OF",
        "   1  a name of some length  all",
        "1000  b",
    ]


@pytest.mark.parametrize("width", (31, 30, 25, 20))
def test_the_widest_column_is_folded_to_what_the_terminal_holds(width: int) -> None:
    """Nothing is lost."""
    lines = [line for row in lay_out(ROWS, right=(0,), width=width) for line in row.split("\n")]
    assert max(map(len, lines)) <= width
    assert lines[1].endswith("all")
    written = " ".join(line[6:].removesuffix("all").strip() for line in lines[1:-1])
    assert written == "a name of some length"


@given(st.text("ab-/ ", min_size=1, max_size=60), st.integers(14, 40))
def test_an_id_can_be_read_whole(text: str, width: int) -> None:
    """Whatever signs it may be folded at."""
    (row,) = lay_out([("1", text, "x")], right=(0,), width=width)
    lines = row.split("\n")
    assert all(len(line) <= width for line in lines)
    pieces = [line[3:] for line in lines]
    pieces[0] = pieces[0].removesuffix("x")
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


def test_numbers_are_never_folded() -> None:
    """Half a number is another one."""
    (row,) = lay_out([("123456789012", "a name of some length")], right=(0,), width=24)
    assert row == "123456789012  a name of\n              some\n              length"


def test_columns_may_have_a_least_width() -> None:
    """So that rows that are printed one by one stand below each other."""
    assert lay_out([("a", "b")], width=None, least=(5, 0)) == ["a      b"]


def test_a_terminal_that_is_far_too_narrow_wraps() -> None:
    """Columns keep a few letters."""
    assert lay_out(ROWS, width=3)[1] == "1     a name    all\n      of some\n      length"


def test_what_a_cell_says_can_not_drive_the_terminal() -> None:
    """Control characters are shown, not sent."""
    assert lay_out([("\x1b[2J",)], width=None) == ["\\x1b[2J"]
