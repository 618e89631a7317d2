"""Rows on a terminal."""

from __future__ import annotations

import pytest

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
def test_the_widest_column_is_cut_to_what_the_terminal_holds(width: int) -> None:
    """Whatever is cut ends in a sign that it was."""
    lines = lay_out(ROWS, right=(0,), width=width)
    assert max(map(len, lines)) <= width
    assert lines[1].endswith("all")
    assert "…  all" in lines[1]


def test_numbers_are_never_cut() -> None:
    """Half a number is another one."""
    (line,) = lay_out([("123456789012", "a name of some length")], right=(0,), width=24)
    assert line == "123456789012  a name of…"


def test_columns_may_have_a_least_width() -> None:
    """So that rows that are printed one by one stand below each other."""
    assert lay_out([("a", "b")], width=None, least=(5, 0)) == ["a      b"]


def test_a_terminal_that_is_far_too_narrow_wraps() -> None:
    """Columns keep a few letters."""
    assert lay_out(ROWS, width=3)[1] == "1     a name …  all"


def test_what_a_cell_says_can_not_drive_the_terminal() -> None:
    """Control characters are shown, not sent."""
    assert lay_out([("\x1b[2J",)], width=None) == ["\\x1b[2J"]
