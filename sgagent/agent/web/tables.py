"""Lay rows out as a table that a screen reader can walk through and a narrow screen can show."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sgagent.agent.web.markup import Element, Node, tag


class Align(enum.Enum):
    """Where the content of a column stands."""

    LEFT = "left"
    RIGHT = "right"
    """Of numbers."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column and its heading."""

    heading: str
    align: Align = Align.LEFT
    is_name: bool = False
    """Whether its cells say what their rows are about."""

    is_short: bool = False
    """Whether its cells fit into one line, whatever they hold."""


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Node]]) -> Element:
    """Return a table; each row has a cell for each column.

    A narrow screen shows rows one below the other with the headings beside the cells, which takes the meaning
    of a table away from some browsers: so the roles are written down.
    """
    headings = (
        tag("th", column.heading, scope="col", role="columnheader", class_=_class(column))
        for column in columns
    )
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *headings, role="row"), role="rowgroup"),
        tag("tbody", *(_row(columns, row) for row in rows), role="rowgroup"),
        role="table",
    )


def _row(columns: Sequence[Column], row: Sequence[Node]) -> Element:
    return tag("tr", *_cells(columns, row), role="row")


def _cells(columns: Sequence[Column], row: Sequence[Node]) -> Iterator[Element]:
    for column, cell in zip(columns, row, strict=True):
        style = _class(column)
        if column.is_name:
            yield tag("th", cell, scope="row", role="rowheader", class_=style, data_heading=column.heading)
        else:
            yield tag("td", cell, role="cell", class_=style, data_heading=column.heading)


def _class(column: Column) -> str | None:
    classes = {"number": column.align is Align.RIGHT, "short": column.is_short}
    return " ".join(name for name, is_so in classes.items() if is_so) or None
