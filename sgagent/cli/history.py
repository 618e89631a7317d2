"""``sgagent history``: list the enforced definitions, the newest first."""

from __future__ import annotations

import argparse
import sys

from sgagent.agent.clock import clock_time
from sgagent.agent.control.protocol import encode_fields
from sgagent.agent.control.requests import HistoryAnswer, HistoryEntry, HistoryQuestion
from sgagent.agent.state.directory import Extent
from sgagent.cli.agent_client import ask
from sgagent.cli.inputs import load_settings
from sgagent.cli.output import add_width_argument, format_json, lay_out, table_width
from sgagent.core.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_width_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print what was enforced; damaged files are named on standard error."""
    answer = ask(load_settings(options), HistoryQuestion(), HistoryAnswer)
    if options.json:
        print(format_json(encode_fields(answer)))
        return 0
    print("\n".join(table(answer, table_width(options))))
    for entry in answer.entries:
        if entry.fault is not None:
            print(printable(f"damaged: {entry.fault}"), file=sys.stderr)
    return 0


def table(answer: HistoryAnswer, width: int | None) -> list[str]:
    """Return the lines of the table.

    Args:
        answer: what the agent said.
        width: of the terminal; None is no limit.
    """
    if not answer.entries:
        return ["nothing was enforced on this host yet"]
    rows = [_HEADINGS, *map(_row, answer.entries)]
    return lay_out(rows, right=(0, 5, 6, 7, 8), width=width)


_HEADINGS = ("N", "", "VERSION", "SINCE", "BY", "FILES", "BYTES", "RULES", "CHAINS", "LINKS")


def _row(entry: HistoryEntry) -> tuple[str, ...]:
    mark = "*" if entry.is_in_force else ""
    if entry.fault is not None:
        return (str(entry.number), mark, "(damaged)", *("" for _ in _HEADINGS[3:]))
    return (
        str(entry.number),
        mark,
        entry.version or "",
        "" if entry.enforced_at is None else clock_time(entry.enforced_at),
        entry.origin.value if entry.origin else "",
        str(entry.documents or 0),
        str(entry.bytes or 0),
        *_sizes(entry.extent),
    )


def _sizes(extent: Extent | None) -> tuple[str, str, str]:
    return ("", "", "") if extent is None else (str(extent.rules), str(extent.chains), str(extent.interfaces))
