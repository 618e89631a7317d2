"""``sgagent mode``: override the configured mode, enforce or observe (§9.1)."""

from __future__ import annotations

import argparse
import json
import sys

from sgagent.agent.control.protocol import encode_fields
from sgagent.agent.control.requests import InterfaceMode, ModeAnswer, ModeOrder
from sgagent.cli.agent_client import order
from sgagent.cli.inputs import load_settings
from sgagent.cli.output import lay_out, terminal_width
from sgagent.core.errors import printable
from sgagent.core.model import Mode
from sgagent.settings import parse_interface_name

_MODES = {"enforce": Mode.ENFORCE, "observe": Mode.OBSERVE, "default": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("mode", choices=tuple(_MODES), help="'default' clears the override")
    parser.add_argument("--interface", metavar="NAME", help="this interface only (default: every interface)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Switch, and print the modes that hold now."""
    settings = load_settings(options)
    interface = options.interface
    if interface is not None and interface != _UNBOUND:
        parse_interface_name(interface, "--interface")
    answer = order(settings, ModeOrder(mode=_MODES[options.mode], interface=interface), ModeAnswer)
    if options.json:
        print(json.dumps(encode_fields(answer)))
        return 0
    print("\n".join(table(answer, terminal_width())))
    if answer.fault is not None:
        print(
            printable(f"warning: this change is lost when the agent stops: {answer.fault}"), file=sys.stderr
        )
    return 0


_UNBOUND = "*"
"""Stands for the links that nothing is bound to, where the configuration closes those."""


def table(answer: ModeAnswer, width: int | None) -> list[str]:
    """Return the lines of the table.

    Args:
        answer: what the agent said.
        width: of the terminal; None is no limit.
    """
    if not answer.interfaces:
        return ["no interface is bound yet; the mode applies once one is"]
    return lay_out([("INTERFACE", "MODE", "BY"), *map(_row, answer.interfaces)], width=width)


def _row(interface: InterfaceMode) -> tuple[str, ...]:
    by = "sgagent mode" if interface.is_overridden else "the configuration"
    return (interface.interface, interface.mode.value, by)
