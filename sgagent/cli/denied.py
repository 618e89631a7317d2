"""``sgagent denied``: show recently dropped packets, with the deciding rule and names for addresses."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from sgagent.agent.clock import clock_time
from sgagent.agent.control.requests import DeniedAnswer, DeniedQuery
from sgagent.agent.flowlog.flow import Flow, FlowEnd, FlowsLeftOut, decider, sentence, traffic
from sgagent.cli.agent_client import NoAgentError, ask, interruptible, pause
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import option_adder
from sgagent.cli.output import add_width_argument, format_json, lay_out, table_width
from sgagent.core.clauses import DecidedBy
from sgagent.core.errors import printable
from sgagent.core.model import Direction, Mode
from sgagent.json_model import to_json
from sgagent.settings import parse_interface_name

_HEADINGS = ("TIME", "PACKETS", "INTERFACE", "WAY", "TRAFFIC", "FROM", "TO", "BY")
_NUMBERS = (1,)
_Row = tuple[str, ...]
_Look = Callable[[int], DeniedAnswer]
"""Asks the agent for the drops after one of them."""


def report(answer: DeniedAnswer, shown: int, width: int | None) -> list[str]:
    """Return the lines of the report: the newest drops, and how many more there were.

    Args:
        answer: what the agent said.
        shown: how many lines of drops at most.
        width: of the terminal; None is no limit.
    """
    if answer.unavailable is not None:
        return lay_out([(f"drops are not recorded: {answer.unavailable}",)], width=width)
    rows = folded(answer.flows)
    newest = rows[max(0, len(rows) - shown) :]
    lines = lay_out([_HEADINGS, *newest], right=_NUMBERS, width=width) if newest else []
    if not rows:
        none = f"no {'such drop' if answer.newest else 'drop'} is recorded since the agent started"
        counted = f"at {clock_time(answer.begun_at)}; 'sgagent hits' counts earlier ones too"
        lines = lay_out([(f"{none} {counted}",)], width=width)
    if earlier := len(rows) - len(newest):
        lines.append(f"… and {earlier} earlier: --lines {len(rows)} shows them")
    return [*lines, *_sentences(answer.left_out, width)]


def _sentences(left_out: Iterable[FlowsLeftOut], width: int | None) -> Iterator[str]:
    """Yield the flows left out, in words, each in as many lines as the width asks for."""
    for entry in left_out:
        yield from lay_out([(sentence(entry),)], width=width)


class FollowedTable:
    """Lay rows out as they come, below those before."""

    def __init__(self) -> None:
        """Start without a row."""
        self._least = [8, *map(len, _HEADINGS[1:])]
        self._is_begun = False

    def lines(self, flows: Sequence[Flow], width: int | None) -> list[str]:
        """Return lines for flows that are new, with headings above the first of all.

        Columns only grow, so that most rows stand below each other.
        """
        if not flows:
            return []
        rows = folded(flows)
        self._least = [max(least, *map(len, cells)) for least, *cells in zip(self._least, *rows, strict=True)]
        headline, *laid_out = lay_out([_HEADINGS, *rows], right=_NUMBERS, width=width, least=self._least)
        lines = laid_out if self._is_begun else [headline, *laid_out]
        self._is_begun = True
        return lines


def folded(flows: Iterable[Flow]) -> list[_Row]:
    """Return a row for all flows that read alike, with the time of the newest, which decides the order."""
    found: dict[_Row, tuple[int, float]] = {}
    for flow in flows:
        cells = _cells(flow)
        packets, _ = found.pop(cells, (0, 0.0))
        found[cells] = packets + 1, flow.seen_at
    return [(_moment(seen_at), str(packets), *cells) for cells, (packets, seen_at) in found.items()]


def _cells(flow: Flow) -> _Row:
    would = "would, by " if flow.mode is Mode.OBSERVE else ""
    limit = " (over_limit)" if flow.decided_by is DecidedBy.OVER_LIMIT else ""
    return (
        flow.interface,
        "in" if flow.direction is Direction.INGRESS else "out",
        traffic(flow) + (" (reply)" if flow.is_reply else ""),
        _end(flow.source),
        _end(flow.destination),
        would + (flow.rule_id or decider(flow)) + limit,
    )


def _moment(seconds: float) -> str:
    """Return a moment of today by its time, any other with its date, where this is."""
    then, now = time.localtime(seconds), time.localtime()
    is_today = (then.tm_year, then.tm_yday) == (now.tm_year, now.tm_yday)
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", then)


def _end(one: FlowEnd) -> str:
    """Return an end by its names, or by its address where it has none: ``eni-web-1 (sg-web)``."""
    groups = ", ".join(one.security_group_ids)
    if one.network_interface_id is not None:
        return f"{one.network_interface_id} ({groups})" if groups else one.network_interface_id
    return f"{one.address} ({groups})" if groups else one.address


FOLLOW_SECONDS = 0.5
"""Between two questions."""

_SHOWN = 20
"""Lines, unless another number is asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    directions = [direction.value for direction in Direction]
    add("--follow", "also print new drops, until Ctrl-C")
    add("--interface NAME", "this interface only")
    add("--direction", "this direction only", choices=directions)
    add("--rule ID", "this rule only")
    add("--lines N", f"the newest N lines (default: {_SHOWN})", type=_lines, default=_SHOWN)
    add_width_argument(parser)
    add("--json", "print one JSON object, with --follow one a line for each drop")


def run(options: argparse.Namespace) -> int:
    """Print who was dropped."""
    settings = load_settings(options)
    question = DeniedQuery(
        interface=parse_interface_name(options.interface, "--interface") if options.interface else None,
        direction=Direction(options.direction) if options.direction else None,
        rule_id=options.rule,
    )

    def look(after: int) -> DeniedAnswer:
        return ask(settings, replace(question, after=after), DeniedAnswer)

    first = look(0)
    newest = first.flows[max(0, len(first.flows) - options.lines) :]
    if options.follow:
        _follow(first, newest, look, options)
    elif options.json:
        print(format_json(to_json(replace(first, flows=newest))))
    else:
        print("\n".join(report(first, options.lines, table_width(options))))
    return 0


def _lines(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a number of lines: {text}")
    return int(text)


def _follow(known: DeniedAnswer, newest: Sequence[Flow], look: _Look, options: argparse.Namespace) -> None:
    """Print the newest earlier drops, then each new one, until Ctrl-C or until the output has no reader."""
    table = FollowedTable()

    def show(flows: Sequence[Flow], left_out: Iterable[FlowsLeftOut]) -> None:
        if options.json:
            lines = [format_json(to_json(entry)) for entry in (*flows, *left_out)]
        else:
            width = table_width(options)
            lines = [*table.lines(flows, width), *_sentences(left_out, width)]
        print("".join(f"{line}\n" for line in lines), end="", flush=True)

    with interruptible() as is_interrupted:
        show(newest, ())
        if known.unavailable is not None:
            print(printable(f"drops are not recorded: {known.unavailable}"), file=sys.stderr)
        while not is_interrupted():
            pause(FOLLOW_SECONDS)
            answer = _wait_for_answer(look, known.newest)
            if answer.begun_at != known.begun_at:  # another agent, that counts anew
                answer = look(0)
                known = replace(answer, left_out=())
            show(answer.flows, _grown(known.left_out, answer.left_out))
            known = answer


def _wait_for_answer(look: _Look, after: int) -> DeniedAnswer:
    """Return the answer; if no agent runs, say so once and wait for one."""
    is_said = False
    while True:
        try:
            return look(after)
        except NoAgentError as error:
            if not is_said:
                print(printable(f"sgagent: {error}; waiting for one"), file=sys.stderr)
            is_said = True
            pause(FOLLOW_SECONDS)


def _grown(before: Iterable[FlowsLeftOut], now: Iterable[FlowsLeftOut]) -> Iterator[FlowsLeftOut]:
    """Yield how many more were left out."""
    known = {replace(entry, seen_at=0.0, left_out=0): entry.left_out for entry in before}
    for entry in now:
        more = entry.left_out - known.get(replace(entry, seen_at=0.0, left_out=0), 0)
        if more > 0:
            yield replace(entry, left_out=more)
