"""``sgagent hits``: show the packets that each rule decided, in the order of evaluation."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator

from sgagent.agent.control.protocol import encode_fields
from sgagent.agent.control.queries import HitsAnswer, HitsQuestion
from sgagent.cli.agent_client import ask, interruptible
from sgagent.cli.hits_table import Rates, sift_unused, table, unused_lines
from sgagent.cli.inputs import load_settings
from sgagent.cli.output import terminal_width
from sgagent.settings import SPAN_FORM, parse_span

WATCH_SECONDS = 1.0
"""Between two looks."""

_UNUSED = "30d"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR = "\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--watch", action="store_true", help="show them anew each second, with rates, until Ctrl-C"
    )
    what.add_argument(
        "--unused",
        metavar="SPAN",
        nargs="?",
        const=_UNUSED,
        type=_span,
        help=f"only rules without a hit for so long (default: {_UNUSED})",
    )
    parser.add_argument("--interface", metavar="NAME", help="of this interface only")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with --watch one a line")


def _span(text: str) -> float:
    seconds = parse_span(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"not a span of time: {text} ({SPAN_FORM})")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Print what was counted."""
    settings, rates = load_settings(options), Rates()

    def look() -> HitsAnswer:
        answer = ask(settings, HitsQuestion(interface=options.interface), HitsAnswer)
        return answer if options.unused is None else sift_unused(answer, options.unused, time.time())

    def lines() -> list[str]:
        answer = look()
        if options.json:
            return [json.dumps(encode_fields(answer))]
        if options.unused is not None:
            return unused_lines(answer, options.unused, time.time(), terminal_width())
        known = rates.after(answer, time.monotonic()) if options.watch else None
        return table(answer, terminal_width(), now=time.time(), rates=known)

    if options.watch:
        _watch(lines, repaint=sys.stdout.isatty() and not options.json)
    else:
        print("\n".join(lines()))
    return 0


def _watch(lines: Callable[[], list[str]], *, repaint: bool) -> None:
    """Show the lines each second until interrupted."""
    pause = threading.Event()
    with interruptible() as is_interrupted:
        if repaint:
            sys.stdout.write(_CLEAR)
        while not is_interrupted():
            text = "".join(_painted(lines()) if repaint else (f"{line}\n" for line in lines()))
            sys.stdout.write(text)
            sys.stdout.flush()
            pause.wait(WATCH_SECONDS)
    if repaint:
        sys.stdout.write("\n")


def _painted(lines: list[str]) -> Iterator[str]:
    """Yield what paints the lines over those before, without a flicker; what has no room is counted."""
    room = shutil.get_terminal_size().lines - 1
    if len(lines) > room:
        lines = [
            *lines[: room - 1],
            f"… {len(lines) - room + 1} more lines: a larger window or --interface shows them",
        ]
    yield _HOME
    for line in lines:
        yield f"{line}{_END_OF_LINE}\n"
    yield _END_OF_SCREEN
