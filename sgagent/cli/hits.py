"""``sgagent hits``: show the packets that each rule decided, in the order of evaluation."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from sgagent.agent.clock import age, short_age
from sgagent.agent.control.answers import counter_of
from sgagent.agent.control.hits import Hit, HitsAnswer, HitsQuery, InterfaceHits
from sgagent.cli import inputs
from sgagent.cli.agent_client import ask, interruptible, pause
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import add_option, option_adder
from sgagent.cli.output import add_width_argument, format_json, lay_out, table_width
from sgagent.core.counter_keys import CounterKey, HitStep
from sgagent.core.errors import count
from sgagent.core.model import Mode, Policy
from sgagent.core.rule_values import few_objects
from sgagent.json_model import to_json

_NARROWEST = 6
"""Columns are many, and a terminal of eighty signs is usual."""

PacketsPerSecond = Mapping[CounterKey, float]


class Rates:
    """Tell how fast each counter grew between two looks."""

    def __init__(self) -> None:
        """Start without a look."""
        self._read: Mapping[CounterKey, int] = {}
        self._read_at: float | None = None

    def after(self, answer: HitsAnswer, now: float) -> PacketsPerSecond:
        """Return packets a second since the look before; nothing at the first, and of new counters.

        Args:
            answer: what the agent said.
            now: seconds that never go back.
        """
        read = {counter_of(part, hit): hit.packets for part in answer.interfaces for hit in part.hits}
        seconds = 0.0 if self._read_at is None else now - self._read_at
        rates = {
            key: max(0, packets - self._read[key]) / seconds
            for key, packets in read.items()
            if seconds > 0 and key in self._read
        }
        self._read, self._read_at = read, now
        return rates


def table(
    answer: HitsAnswer, width: int | None, *, now: float, rates: PacketsPerSecond | None = None
) -> list[str]:
    """Return the lines of the table, a part for each interface and direction.

    Args:
        answer: what the agent said.
        width: of the terminal; None is no limit.
        now: seconds since the epoch.
        rates: to be shown, too.
    """
    if not answer.interfaces:
        return ["no interface of this host is bound"]
    hits = [(hit, part.mode) for part in answer.interfaces for hit in part.hits]
    rows = [_HEADINGS, *(_row(hit, mode, now) for hit, mode in hits)]
    if any(hit.expires_at is not None for hit, _ in hits):
        ends = ("EXPIRES", *(_expiry(hit, now) for hit, _ in hits))
        rows = [(*row, end) for row, end in zip(rows, ends, strict=True)]
    cells: list[str] = []
    if rates is not None:
        keys = [counter_of(part, hit) for part in answer.interfaces for hit in part.hits]
        cells = ["RATE", *(f"{rates[key]:.1f}" if key in rates else "" for key in keys)]
    headline, *laid_out = _laid_out(rows, cells, width)
    left = iter(laid_out)
    lines: list[str] = []
    for part in answer.interfaces:
        title = lay_out([(_title(part),)], width=width)
        lines += ["", *title, headline, *(next(left) for _ in part.hits)]
    return lines[1:]


def _laid_out(rows: list[tuple[str, ...]], rates: list[str], width: int | None) -> list[str]:
    """Return the rows as lines, with rates before bytes if there are some.

    Where a terminal is too narrow for all columns, large numbers are shortened, and bytes make room for
    rates.
    """
    second = rates or [row[1] for row in rows]
    shown = [(_shortened(row[0]), _shortened(cell), *row[2:]) for row, cell in zip(rows, second, strict=True)]
    if rates:
        rows = [(row[0], rate, *row[1:]) for row, rate in zip(rows, rates, strict=True)]
    lines = lay_out(rows, right=(0, 1, 2, 4) if rates else (0, 1, 3), width=None)
    if width is None or max(map(len, lines)) <= width:
        return lines
    return lay_out(shown, right=(0, 1, 3), width=width, narrowest=_NARROWEST)


_LONGEST_NUMBER = 7
"""Digits of a number that is shown whole on a narrow terminal; those of the heading."""


def _shortened(cell: str) -> str:
    """Return a number of many digits in thousands, millions and so on, rounded down: ``12.3G``."""
    digits = cell.partition(".")[0]
    if len(cell) <= _LONGEST_NUMBER or not digits.isdigit():
        return cell
    thousands, first = divmod(len(digits) - 1, 3)
    return f"{digits[: first + 1]}.{digits[first + 1]}{'kMGTPEZY'[thousands - 1]}"


def sift_unused(answer: HitsAnswer, seconds: float, now: float) -> HitsAnswer:
    """Return an answer with the rules alone that were counted for so long, and not hit in that time."""
    parts = (
        replace(part, hits=tuple(hit for hit in part.hits if _is_unused(hit, seconds, now)))
        for part in answer.interfaces
    )
    return replace(answer, interfaces=tuple(part for part in parts if part.hits))


def unused_lines(answer: HitsAnswer, seconds: float, now: float, width: int | None) -> list[str]:
    """Return the table of an answer that was sifted, or that there is no such rule."""
    if not answer.interfaces:
        return [f"no rule was counted without a hit for {age(seconds)}"]
    said = f"rules without a hit for {age(seconds)} or longer, by the counters of the agent:"
    return [said, "", *table(answer, width, now=now)]


def _is_unused(hit: Hit, seconds: float, now: float) -> bool:
    """Return whether a rule was counted for long enough, and not hit in that time."""
    if hit.step is not HitStep.RULE or hit.counted_since is None:
        return False
    return now - max(hit.counted_since, hit.last_hit_at or 0.0) >= seconds


_HEADINGS = ("PACKETS", "BYTES", "VERDICT", "PRIO", "RULE", "GROUP", "OBJECT", "PROTO", "PORTS", "LAST")


def _title(part: InterfaceHits) -> str:
    title = f"{part.interface} {part.direction.value}"
    if part.mode is Mode.OBSERVE:
        packets = count(part.would_drop_packets or 0, "packet")
        title += f", observe mode: nothing is dropped, {packets} would have been"
    return title


def _row(hit: Hit, mode: Mode, now: float) -> tuple[str, ...]:
    is_observed = mode is Mode.OBSERVE and hit.verdict is Policy.DROP
    return (
        str(hit.packets),
        str(hit.bytes),
        f"would {hit.verdict.value}" if is_observed else hit.verdict.value,
        "" if hit.priority is None else str(hit.priority),
        hit.name,
        hit.security_group_id or "",
        few_objects(hit.authorization_object or ""),
        hit.protocol or "",
        hit.ports_text,
        _last_hit(hit, now),
    )


def _last_hit(hit: Hit, now: float) -> str:
    """Return how long ago the last hit was, in few signs; ``none`` where there was none."""
    if hit.last_hit_at is None:
        return "" if hit.counted_since is None else "none"
    return short_age(max(0.0, now - hit.last_hit_at))


def _expiry(hit: Hit, now: float) -> str:
    """Return in how long a rule ends, in few signs; empty where it does not."""
    return "" if hit.expires_at is None else f"in {short_age(max(0.0, hit.expires_at - now))}"


WATCH_SECONDS = 1.0
"""Between two looks."""

_UNUSED = "30d"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR = "\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    what = parser.add_mutually_exclusive_group()
    add_option(what, "--watch", "refresh each second, with rates, until Ctrl-C")
    text = f"only rules without a hit for this long (default: {_UNUSED})"
    add_option(what, "--unused SPAN", text, nargs="?", const=_UNUSED, type=inputs.span)
    add("--interface NAME", "this interface only")
    add_width_argument(parser)
    add("--json", "print one JSON object, with --watch one a line")


def run(options: argparse.Namespace) -> int:
    """Print the hits."""
    settings, rates = load_settings(options), Rates()

    def look() -> HitsAnswer:
        answer = ask(settings, HitsQuery(interface=options.interface), HitsAnswer)
        return answer if options.unused is None else sift_unused(answer, options.unused, time.time())

    def lines() -> list[str]:
        answer = look()
        if options.json:
            return [format_json(to_json(answer))]
        if options.unused is not None:
            return unused_lines(answer, options.unused, time.time(), table_width(options))
        known = rates.after(answer, time.monotonic()) if options.watch else None
        return table(answer, table_width(options), now=time.time(), rates=known)

    if options.watch:
        _watch(lines, repaint=sys.stdout.isatty() and not options.json)
    else:
        print("\n".join(lines()))
    return 0


def _watch(lines: Callable[[], list[str]], *, repaint: bool) -> None:
    """Show the lines each second until interrupted."""
    with interruptible() as is_interrupted:
        if repaint:
            sys.stdout.write(_CLEAR)
        while not is_interrupted():
            text = "".join(_painted(lines()) if repaint else (f"{line}\n" for line in lines()))
            print(text, end="", flush=True)
            pause(WATCH_SECONDS)
    if repaint:
        sys.stdout.write("\n")


def _painted(lines: list[str]) -> Iterator[str]:
    """Yield the text that paints the lines over those before, without a flicker; others are counted."""
    lines = [piece for line in lines for piece in line.split("\n")]
    room = shutil.get_terminal_size().lines - 1
    if len(lines) > room:
        more = len(lines) - room + 1
        lines = [*lines[: room - 1], f"… {more} more lines: a larger window or --interface shows them"]
    yield _HOME
    for line in lines:
        yield f"{line}{_END_OF_LINE}\n"
    yield _END_OF_SCREEN
