"""``sgagent status``: show the state of the running agent on one screen."""

from __future__ import annotations

import argparse
import time

from sgagent.agent.control.protocol import encode_fields
from sgagent.agent.control.requests import StatusAnswer, StatusQuestion
from sgagent.agent.control.status_text import facts, headline
from sgagent.agent.status import InterfaceState, InterfaceStatus, Posture, state_in_words
from sgagent.cli.agent_client import ask
from sgagent.cli.inputs import load_settings
from sgagent.cli.output import add_width_argument, format_json, lay_out, table_width

_LABEL_WIDTH = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_width_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print how the agent is doing; the exit code says whether it enforces."""
    answer = ask(load_settings(options), StatusQuestion(), StatusAnswer)
    if options.json:
        is_enforcing = answer.posture is Posture.ENFORCING
        print(format_json({"is_enforcing": is_enforcing, **encode_fields(answer)}))
    else:
        print("\n".join(screen(answer, time.time(), table_width(options))))
    return 0 if answer.posture is Posture.ENFORCING else 1


def screen(answer: StatusAnswer, now: float, width: int | None) -> list[str]:
    """Return the lines of the screen.

    Args:
        answer: what the agent said.
        now: seconds since the epoch.
        width: of the terminal; None is no limit.
    """
    lines = lay_out([(headline(answer, now),)], width=width)
    lines += lay_out(list(facts(answer, now)), width=width, least=(_LABEL_WIDTH, 0))
    if answer.interfaces:
        rows = [_HEADINGS, *map(_row, answer.interfaces)]
        lines += ["", *lay_out(rows, width=width)]
    return lines


_HEADINGS = ("INTERFACE", "STATE", "MODE", "ENI", "GROUPS", "SESSIONS")


def _row(interface: InterfaceStatus) -> tuple[str, ...]:
    sessions = "checked at every packet" if interface.is_judged_at_every_packet else "cached"
    return (
        interface.name,
        state_in_words(interface),
        "-" if interface.mode is None else interface.mode.value,
        interface.network_interface_id or "-",
        ", ".join(interface.security_group_ids) or "-",
        "-" if interface.state in (InterfaceState.UNBOUND, InterfaceState.PORT) else sessions,
    )
