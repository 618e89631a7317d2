"""Write the results of one bench: tables for people, numbers as JSON, and the promises about them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.bytecode import write_bytecode
from bench.goals import Goal
from integration.namespaces import remove_stale_namespaces
from integration.parts import with_parts

_ROOT = Path(__file__).resolve().parents[1]
PAGE = _ROOT / "docs" / "performance.md"
COSTS_PAGE = _ROOT / "bench" / "costs.md"
RESULTS = _ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Section:
    """The results of one bench: a part of the page, between its marks, and a file of numbers."""

    name: str
    """Of the part and of the file."""

    lines: Sequence[str]
    """In Markdown."""

    numbers: object
    """A dataclass, or a sequence of such."""

    page: Path = PAGE
    """The document that has the part."""

    @property
    def json(self) -> str:
        """Return the numbers as they are kept."""
        return json.dumps(self.numbers, default=dataclasses.asdict, indent=1)

    def write(self) -> None:
        """Keep the numbers, and put the lines into the page."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(self.json + "\n", encoding="utf-8")
        text = f"{measured_at()}\n\n" + "\n".join(self.lines).strip("\n") + "\n\n"
        document = with_parts(self.page.read_text(encoding="utf-8"), {self.name: text})
        self.page.write_text(document, encoding="utf-8")

    @property
    def _file(self) -> Path:
        return RESULTS / f"{self.name}.json"


def measured_at() -> str:
    """Return the sentence that says which commit was measured, and when that was made."""
    command = ("git", "show", "--no-patch", "--format=%h, %cs", "HEAD")
    told = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return f"Measured at {told}."


def parser_of(module: str, text: str) -> argparse.ArgumentParser:
    """Return a parser of a bench's arguments, with those that all have."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{module}", description=text)
    parser.add_argument(
        "--write", action="store_true", help="keep the numbers, and put the tables into the document"
    )
    parser.add_argument("--quick", action="store_true", help="measure less; don't quote it")
    return parser


def begin() -> None:
    """Refuse to go on without privilege, compile the program, and remove the remains of a killed run.

    Raises:
        SystemExit: with 2.
    """
    if os.geteuid() != 0:
        print("network namespaces and nftables need root", file=sys.stderr)
        raise SystemExit(2)
    write_bytecode()
    remove_stale_namespaces()


def finish(section: Section, goals: Sequence[Goal], *, writes: bool) -> int:
    """Print a section, write it down if asked to, and return 1 if a goal is missed."""
    print("\n".join(section.lines))
    if writes:
        section.write()
    return 0 if all(goal.is_met for goal in goals) else 1


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, and an empty one behind them."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def goal_table(goals: Sequence[Goal]) -> Iterator[str]:
    """Yield the table of goals and measurements."""
    rows = ((g.text, g.limit, figure(g.measured), "met" if g.is_met else "**missed**") for g in goals)
    yield from table(("goal", "limit", "measured", ""), rows)


def figure(value: float) -> str:
    """Return a number with three digits that count, and no more places than that takes."""
    if not value or abs(value) >= 100:
        return f"{value:,.0f}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}".rstrip("0").rstrip(".") if places else f"{value:.0f}"


def milliseconds(seconds: float) -> str:
    """Return a duration in milliseconds, without the unit."""
    return figure(1000 * seconds)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed: one of them, nothing in between."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
