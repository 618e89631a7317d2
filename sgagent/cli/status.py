"""``sgagent status``: the state of the running agent on one screen."""

from __future__ import annotations

import argparse
import time
from contextlib import closing

from sgagent.agent.control import requests
from sgagent.agent.control.status_text import facts, headline
from sgagent.agent.posture import UNJUDGED_STATES, InterfaceStatus, Posture, state_in_words
from sgagent.cli.agent_client import NoAgentError, ask
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import add_option
from sgagent.cli.output import add_width_argument, format_json, lay_out, table_width
from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.json_model import to_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_width_argument(parser)
    add_option(parser, "--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print how the agent is doing; the exit code says whether it enforces.

    Raises:
        NoAgentError: no agent is running; it says whether its rules hold all the same.
    """
    try:
        answer = ask(load_settings(options), requests.StatusQuery(), requests.StatusAnswer)
    except NoAgentError as error:
        raise NoAgentError(f"{error}; {_rules_without_agent()}") from error
    is_enforcing = answer.posture is Posture.ENFORCING
    if options.json:
        print(format_json({"is_enforcing": is_enforcing, **to_json(answer)}))
    else:
        print("\n".join(status_screen(answer, time.time(), table_width(options))))
    return 0 if is_enforcing else 1


def _rules_without_agent() -> str:
    """Return whether the kernel has a table of an agent that has stopped."""
    from sgagent.dataplane.dataplane import LibnftablesDataplane  # noqa: PLC0415 - where an agent runs, no need
    from sgagent.ports import Observed  # noqa: PLC0415 - likewise

    try:
        with closing(LibnftablesDataplane(owned=False)) as dataplane:
            stands = dataplane.observe() != Observed(ruleset=None)
    except (KernelRefusedError, NotPermittedError, OSError):
        return "root sees by this command whether its rules hold all the same"
    if stands:
        return "the rules of table inet sgagent hold all the same, as they were when it stopped"
    return "no rules of it are in the kernel: everything passes"


_LABEL_WIDTH = 9


def status_screen(answer: requests.StatusAnswer, now: float, width: int | None) -> list[str]:
    """Return the lines of the screen.

    Args:
        answer: what the agent said.
        now: seconds since the epoch.
        width: of the terminal; None is no limit.
    """
    lines = lay_out([(headline(answer, now),)], width=width)
    lines += lay_out(list(facts(answer, now)), width=width, least=(_LABEL_WIDTH, 0))
    if answer.interfaces:
        headings = ("INTERFACE", "STATE", "MODE", "ENI", "GROUPS", "SESSIONS")
        lines += ["", *lay_out([headings, *map(_interface_row, answer.interfaces)], width=width)]
    return lines


def _interface_row(interface: InterfaceStatus) -> tuple[str, ...]:
    sessions = "checked at every packet" if interface.is_judged_at_every_packet else "cached"
    return (
        interface.name,
        state_in_words(interface),
        "-" if interface.mode is None else interface.mode.value,
        interface.network_interface_id or "-",
        ", ".join(interface.security_group_ids) or "-",
        "-" if interface.state in UNJUDGED_STATES else sessions,
    )
