"""``sgagent hits``: what each rule decided, in the order in which rules decide."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator

from sgagent.agent.asking.questions import Hit, HitsAnswer, HitsQuestion, HitStep, InterfaceHits
from sgagent.agent.asking.wire import encode_fields
from sgagent.cli.columns import lay_out, terminal_width
from sgagent.cli.inputs import load_settings
from sgagent.cli.liveagent import ask
from sgagent.cli.watching import interruptible
from sgagent.core.model import Mode, Policy

WATCH_SECONDS = 1.0
"""Between two looks."""

_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR = "\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--watch", action="store_true", help="show them anew each second, until Ctrl-C")
    parser.add_argument("--interface", metavar="NAME", help="of this interface only")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with --watch one a line")


def run(options: argparse.Namespace) -> int:
    """Print what was counted."""
    settings = load_settings(options)

    def look() -> HitsAnswer:
        return ask(settings, HitsQuestion(interface=options.interface), HitsAnswer)

    def lines() -> list[str]:
        if options.json:
            return [json.dumps(encode_fields(look()))]
        return table(look(), terminal_width())

    if options.watch:
        _watch(lines, repaint=sys.stdout.isatty() and not options.json)
    else:
        print("\n".join(lines()))
    return 0


def table(answer: HitsAnswer, width: int | None) -> list[str]:
    """Return the lines of the table, a part for each interface and direction.

    Args:
        answer: what the agent said.
        width: of the terminal; None is no limit.
    """
    if not answer.interfaces:
        return ["nothing is judged on this host"]
    rows = [_HEADINGS, *(_row(hit, part.mode) for part in answer.interfaces for hit in part.hits)]
    headings, *laid_out = lay_out(rows, right=(0, 1, 3), width=width)
    left = iter(laid_out)
    lines: list[str] = []
    for part in answer.interfaces:
        lines += ["", _title(part), headings, *(next(left) for _ in part.hits)]
    return lines[1:]


_HEADINGS = ("PACKETS", "BYTES", "VERDICT", "PRIO", "RULE", "GROUP", "OBJECT", "PROTOCOL", "PORTS")


def _title(part: InterfaceHits) -> str:
    title = f"{part.interface} {part.direction.value}"
    if part.mode is Mode.OBSERVE:
        packets = part.would_drop_packets or 0
        title += (
            f", only observed: nothing is dropped, and {packets} packet{'s' * (packets != 1)} would have been"
        )
    return title


def _row(hit: Hit, mode: Mode) -> tuple[str, ...]:
    by_rule = hit.step is HitStep.RULE
    is_observed = mode is Mode.OBSERVE and hit.verdict is Policy.DROP
    return (
        str(hit.packets),
        str(hit.bytes),
        f"would {hit.verdict.value}" if is_observed else hit.verdict.value,
        "" if hit.priority is None else str(hit.priority),
        hit.rule_id or f"({hit.step.value})",
        hit.security_group_id or "",
        hit.authorization_object or "",
        hit.protocol or "",
        hit.ports or ("any" if by_rule else ""),
    )


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
