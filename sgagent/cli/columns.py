"""Lay out rows for a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence

from sgagent.core.errors import printable

_GAP = "  "
_NARROWEST = 8
"""Columns are not cut below this; a terminal that is narrower yet wraps."""


def lay_out(
    rows: Sequence[Sequence[str]],
    *,
    right: Iterable[int] = (),
    width: int | None,
    least: Sequence[int] | None = None,
    narrowest: int = _NARROWEST,
) -> list[str]:
    """Return rows as lines with aligned columns, safe to print.

    Args:
        rows: of cells, equally many in each.
        right: columns that are aligned to the right, and never cut: numbers.
        width: of the terminal; the widest columns are cut until a line fits. None is no limit.
        least: how wide columns are at least, where rows are printed bit by bit.
        narrowest: below which none is cut.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    natural = [max(map(len, column)) for column in zip(*cells, strict=True)]
    to_the_right = frozenset(right)
    numbers = [size for number, size in enumerate(natural) if number in to_the_right]
    room = None if width is None else width - sum(numbers) - len(_GAP) * (len(natural) - 1)
    texts = [max(size, least[n] if least else 0) for n, size in enumerate(natural) if n not in to_the_right]
    fitted = iter(_fit(texts, room, narrowest))
    widths = [size if number in to_the_right else next(fitted) for number, size in enumerate(natural)]
    return [
        _GAP.join(
            _cut(cell, size).rjust(size) if number in to_the_right else _cut(cell, size).ljust(size)
            for number, (cell, size) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def terminal_width() -> int | None:
    """Return how wide a line may be; None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _fit(widths: list[int], room: int | None, narrowest: int) -> list[int]:
    """Return the widths with the widest made smaller until all of them fit."""
    if room is None:
        return widths
    fitted = list(widths)
    while fitted and sum(fitted) > room:
        widest = max(fitted)
        if widest <= narrowest:
            break
        fitted[fitted.index(widest)] -= 1
    return fitted


def _cut(cell: str, size: int) -> str:
    return cell if len(cell) <= size else cell[: size - 1] + "…"
