"""Output of commands: colours, columns, progress, and files replaced whole."""

from __future__ import annotations

import argparse
import contextlib
import enum
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sgagent.core.errors import Problem, UsageError, printable

if TYPE_CHECKING:  # who only prints columns does without
    from sgagent.core.evaluate import Decision
    from sgagent.core.explanation import Explanation


class Colour(enum.Enum):
    """The few colours that are used, as the numbers that terminals know."""

    RED = 31
    GREEN = 32
    YELLOW = 33


def painted(text: str, colour: Colour, stream: TextIO | None = None) -> str:
    """Return the text in a colour, if the stream, by default standard output, shows any."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    shows_colour = (stream or sys.stdout).isatty() and not is_plain
    return f"\x1b[{colour.value}m{text}\x1b[0m" if shows_colour else text


SEVERITY_COLOURS = {"error": Colour.RED, "warning": Colour.YELLOW}


def problem_text(problem: object, stream: TextIO | None = None) -> str:
    """Return a problem, or a line that begins with a severity as problems do, with that in its colour.

    Args:
        problem: what to print.
        stream: where it is printed; standard error if not given.
    """
    severity, colon, rest = str(problem).partition(":")
    colour = SEVERITY_COLOURS.get(severity)
    return f"{painted(severity, colour, stream or sys.stderr) if colour else severity}{colon}{rest}"


def warn(text: str) -> None:
    """Print a warning on standard error, safe to print."""
    print(problem_text(printable(f"warning: {text}")), file=sys.stderr)


def problem_as_json(problem: Problem) -> dict[str, object]:
    """Return a problem's fields for scripts."""
    return {
        "code": problem.code,
        "file": problem.origin.file,
        "line": problem.origin.line or None,
        "path": problem.origin.path,
        "message": problem.message,
        "value": problem.value,
    }


_GAP = "  "
_NARROWEST = 8
"""Columns are not folded below this; a terminal that is narrower yet wraps."""


def lay_out(
    rows: Sequence[Sequence[str]],
    *,
    right: Iterable[int] = (),
    width: int | None,
    least: Sequence[int] | None = None,
    narrowest: int = _NARROWEST,
) -> list[str]:
    """Return each row as text with aligned columns, safe to print; a row may take several lines.

    Args:
        rows: of cells, equally many in each.
        right: columns that are aligned to the right, and never folded: numbers.
        width: of the terminal; the widest columns are folded until a line fits. None is no limit.
        least: how wide columns are at least, where rows are printed bit by bit.
        narrowest: below which none is folded.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    to_the_right = frozenset(right)
    texts = [number for number in range(len(widths)) if number not in to_the_right]
    for number in texts:
        widths[number] = max(widths[number], least[number] if least else 0)
    gaps = len(_GAP) * (len(widths) - 1)
    while width is not None and texts and sum(widths) + gaps > width:
        widest = max(texts, key=widths.__getitem__)
        if widths[widest] <= narrowest:
            break
        widths[widest] -= 1
    return ["\n".join(_lines_of_row(row, widths, to_the_right)) for row in cells]


def _lines_of_row(row: Sequence[str], widths: Sequence[int], right: Container[int]) -> Iterator[str]:
    """Yield the lines of a row; a cell that is too long goes on below itself."""
    folded = [_folded(cell, size) for cell, size in zip(row, widths, strict=True)]
    for pieces in zip_longest(*folded, fillvalue=""):
        yield _GAP.join(
            piece.rjust(size) if number in right else piece.ljust(size)
            for number, (piece, size) in enumerate(zip(pieces, widths, strict=True))
        ).rstrip()


def decision_as_json(decision: Decision | Explanation) -> dict[str, object]:
    """Return the fields of a verdict and its decider for scripts."""
    rule = decision.rule
    return {
        "verdict": decision.verdict.value,
        "decided_by": decision.decided_by.value,
        "rule_id": rule.rule_id if rule else None,
        "security_group_id": rule.security_group_id if rule else None,
        "priority": rule.priority if rule else None,
    }


def add_width_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option for tables that are wider than the terminal."""
    parser.add_argument("--wide", action="store_true", help="fold no column to fit the terminal")


def table_width(options: argparse.Namespace) -> int | None:
    """Return how wide a table may be; None where ``--wide`` is given, or the output is no terminal."""
    return None if options.wide else terminal_width()


def terminal_width() -> int | None:
    """Return how wide a line may be; None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


_BREAK = re.compile(r".*[ ,;:/_.-]", re.DOTALL)
"""As much of a text as ends behind a sign at which it may be folded."""


def _folded(cell: str, size: int) -> list[str]:
    """Return a cell in pieces that have room, parted behind blanks and signs where possible."""
    pieces = []
    while len(cell) > size:
        found = _BREAK.match(cell[:size])
        end = found.end() if found and 2 * found.end() >= size else size
        pieces.append(cell[:end].rstrip())
        cell = cell[end:].lstrip()
    return [*pieces, cell]


PATIENCE_SECONDS = 0.5
"""What takes less is not spoken of."""

_INTERVAL_SECONDS = 0.1
_BACK, _END_OF_LINE = "\r", "\x1b[K"


@contextlib.contextmanager
def progress(
    doing: str, total: int, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], None]]:
    """Count steps on one line of a terminal, which is gone when the work is done; yield the counter.

    Args:
        doing: what is done, like ``judging packets``.
        total: how many steps it has.
        stream: where to tell; standard error if not given.
        clock: in seconds.
    """
    stream = stream or sys.stderr
    done, first = 0, clock() + PATIENCE_SECONDS
    due = first

    def advance() -> None:
        nonlocal done, due
        done += 1
        if (now := clock()) >= due and stream.isatty():
            due = now + _INTERVAL_SECONDS
            print(f"{_BACK}{doing}: {done} of {total}{_END_OF_LINE}", end="", file=stream, flush=True)

    try:
        yield advance
    finally:
        if clock() >= first and stream.isatty():  # maybe another process wrote the line
            print(_BACK + _END_OF_LINE, end="", file=stream, flush=True)


def format_json(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON; instants, in fields like ``seen_at`` or ``since``, are RFC 3339 in UTC."""
    return json.dumps(_with_instants(value), indent=indent)


_INSTANT = re.compile(r"(?:.*_)?(?:at|since)")


def _with_instants(value: object) -> object:
    """Return JSON's values with seconds since the epoch as text."""
    if isinstance(value, dict):
        return {
            key: _instant(one) if _INSTANT.fullmatch(key) else _with_instants(one)
            for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_with_instants(one) for one in value]
    return value


def _instant(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _with_instants(value)
    return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def replace_file(place: Path, text: str) -> None:
    """Write a file as :func:`replace_files` does.

    Raises:
        UsageError: it can't be written.
    """
    replace_files({place: text})


def _write_draft(draft: Path, text: str, old: os.stat_result | None) -> None:
    """Write a draft that nobody may ever read who may not read the old file, if there is one."""
    draft.touch(mode=0o666 if old is None else 0o600, exist_ok=False)
    if old is not None:
        with contextlib.suppress(PermissionError):
            os.chown(draft, old.st_uid, old.st_gid)
    draft.write_text(text, encoding="utf-8", newline="\n")
    if old is not None:
        draft.chmod(stat.S_IMODE(old.st_mode))


def replace_files(texts: Mapping[Path, str]) -> None:
    """Write files, all of them or none, as far as a file system allows: their drafts first, then the renames.

    Only an end between two renames leaves some that are new beside others that are old, each of them whole. A
    file keeps its mode and, as far as this user may give it away, its owner; hard links keep the old text,
    and symbolic links stay. What is no file, like a device or a pipe, is written to.

    Raises:
        UsageError: one can't be written; none was replaced, unless a rename failed.
    """
    drafts: dict[Path, Path] = {}
    place = None
    try:
        for place, text in texts.items():
            if place.exists() and not place.is_file():
                place.write_text(text, encoding="utf-8", newline="\n")
                continue
            file = Path(os.path.realpath(place))
            draft = file.with_name(f".{file.name}.{os.getpid()}.new")
            drafts[draft] = file
            _write_draft(draft, text, file.stat() if file.exists() else None)
        for draft, place in drafts.items():
            draft.replace(place)
    except OSError as error:
        for draft in drafts:
            with contextlib.suppress(OSError):
                draft.unlink()
        raise UsageError(f"{place}: can't be written: {error.strerror}") from error
