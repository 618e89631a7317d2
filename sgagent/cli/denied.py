"""``sgagent denied``: show recently dropped packets, with the deciding rule and names for addresses."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from sgagent.agent.control.protocol import encode_fields
from sgagent.agent.control.queries import DeniedAnswer, DeniedQuestion
from sgagent.agent.flowlog.flow import Flow, FlowsLeftOut, sentence
from sgagent.cli.agent_client import NoAgentError, ask, interruptible
from sgagent.cli.denied_table import FollowedTable, report
from sgagent.cli.inputs import load_settings
from sgagent.cli.output import terminal_width
from sgagent.core.errors import printable
from sgagent.core.model import Direction
from sgagent.settings import parse_interface_name

FOLLOW_SECONDS = 0.5
"""Between two questions."""

_SHOWN = 20
"""Lines, unless another number is asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--follow", action="store_true", help="go on with what is dropped from now on")
    parser.add_argument("--interface", metavar="NAME", help="on this interface only")
    parser.add_argument(
        "--direction", choices=[direction.value for direction in Direction], help="in this direction only"
    )
    parser.add_argument("--rule", metavar="ID", help="by this rule only")
    parser.add_argument(
        "--lines", metavar="N", type=_lines, default=_SHOWN, help=f"the newest N lines (default: {_SHOWN})"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, with --follow one a line for each drop"
    )


def run(options: argparse.Namespace) -> int:
    """Print who was dropped."""
    settings = load_settings(options)
    question = DeniedQuestion(
        interface=parse_interface_name(options.interface, "--interface") if options.interface else None,
        direction=Direction(options.direction) if options.direction else None,
        rule_id=options.rule,
    )

    def look(after: int) -> DeniedAnswer:
        return ask(settings, replace(question, after=after), DeniedAnswer)

    first = look(0)
    if options.follow:
        _follow(first, look, lines=options.lines, as_json=options.json)
    elif options.json:
        print(json.dumps(encode_fields(replace(first, flows=_newest(first.flows, options.lines)))))
    else:
        print("\n".join(report(first, options.lines, terminal_width())))
    return 0


def _lines(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a number of lines: {text}")
    return int(text)


def _newest(flows: tuple[Flow, ...], most: int) -> tuple[Flow, ...]:
    return flows[max(0, len(flows) - most) :]


def _follow(answer: DeniedAnswer, look: Callable[[int], DeniedAnswer], *, lines: int, as_json: bool) -> None:
    """Print what is dropped until interrupted, the newest that were dropped before at first."""
    printer = _Printer(as_json=as_json)
    with interruptible() as is_interrupted:
        pause = threading.Event()
        printer.print(_newest(answer.flows, lines), ())
        known = answer
        if known.unavailable is not None:
            print(printable(f"drops are not recorded: {known.unavailable}"), file=sys.stderr)
        while not is_interrupted():
            pause.wait(FOLLOW_SECONDS)
            answer = _waited_for(partial(look, known.newest), pause)
            if answer.begun_at != known.begun_at:  # another agent, that counts anew
                answer = look(0)
                known = replace(answer, left_out=())
            printer.print(answer.flows, _grown(known.left_out, answer.left_out))
            known = answer


def _waited_for(look: Callable[[], DeniedAnswer], pause: threading.Event) -> DeniedAnswer:
    """Return an answer, if need be by waiting for an agent that is started anew; that is said."""
    is_said = False
    while True:
        try:
            return look()
        except NoAgentError as error:
            if not is_said:
                print(printable(f"sgagent: {error}; waiting for one"), file=sys.stderr)
            is_said = True
            pause.wait(FOLLOW_SECONDS)


def _grown(before: tuple[FlowsLeftOut, ...], now: tuple[FlowsLeftOut, ...]) -> Iterator[FlowsLeftOut]:
    """Yield how many more were left out."""
    known = {replace(entry, seen_at=0.0, left_out=0): entry.left_out for entry in before}
    for entry in now:
        more = entry.left_out - known.get(replace(entry, seen_at=0.0, left_out=0), 0)
        if more > 0:
            yield replace(entry, left_out=more)


class _Printer:
    """Print flows as they come."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._table = FollowedTable()

    def print(self, flows: tuple[Flow, ...], left_out: Iterator[FlowsLeftOut] | tuple[()]) -> None:
        """Print what is new, at once."""
        if self._as_json:
            lines = [json.dumps(encode_fields(entry)) for entry in (*flows, *left_out)]
        else:
            lines = [*self._table.lines(flows, terminal_width()), *map(sentence, left_out)]
        for line in lines:
            print(line)
        sys.stdout.flush()
