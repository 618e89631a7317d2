"""``sgagent mode``: enforce or observe, permanently or on trial, whatever the configuration says (§9.1)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

from sgagent.agent.clock import time_left
from sgagent.agent.control import requests
from sgagent.cli.agent_client import ask, files_of, warn_of_loss
from sgagent.cli.configuration import load_settings
from sgagent.cli.lockout_guard import (
    WAYS_OUT,
    ModeOf,
    add_guard_arguments,
    announce_trial,
    modes_now,
    policy_in_modes,
    refuse_to_cut_own_session,
    trial_seconds,
)
from sgagent.cli.main import option_adder
from sgagent.cli.output import format_json, lay_out, terminal_width
from sgagent.core.errors import UsageError, count, printable
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.host.links import NetlinkHost
from sgagent.json_model import to_json
from sgagent.settings import Settings, parse_interface_name

_MODES: Mapping[str, Mode | None] = {"enforce": Mode.ENFORCE, "observe": Mode.OBSERVE, "default": None}
_UNBOUND_LINKS = "*"
"""Stands for the links that nothing is bound to, where the configuration closes those."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    text = "'default' clears the override; without one the modes that hold are shown"
    add("mode", text, choices=tuple(_MODES), nargs="?")
    add("--interface NAME", "this interface only (default: every interface)")
    add_guard_arguments(parser, "switch permanently even if that cuts your own session")
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Override the configured mode, if one is named, and print the modes that hold now."""
    settings, seconds = load_settings(options), trial_seconds(options)
    interface = options.interface
    if interface is not None and interface != _UNBOUND_LINKS:
        parse_interface_name(interface, "--interface")
    if options.mode is None:
        if seconds is not None or options.yes:
            raise UsageError(f"--confirm-within and --yes need a mode (one of {', '.join(_MODES)})")
        status = ask(settings, requests.StatusQuery(), requests.StatusAnswer)
        return _print(modes_in_force(status, interface), options)
    command = requests.ModeCommand(mode=_MODES[options.mode], interface=interface, confirm_within=seconds)
    if command.mode is not Mode.OBSERVE and (seconds is not None or not options.yes):
        policy = _policy_after(settings, command)
        if seconds is not None:
            what = f"trying mode {options.mode} for {time_left(seconds)}"
            announce_trial(options, what, "then going back", policy)
        elif policy is not None:
            refuse_to_cut_own_session(policy, NetlinkHost().facts(), WAYS_OUT)
    return _print(ask(settings, command, requests.ModeAnswer), options)


def modes_in_force(status: requests.StatusAnswer, interface: str | None) -> requests.ModeAnswer:
    """Return the modes that hold, of one interface or all that are judged."""
    overridden = [override.interface for override in status.mode_overrides]
    return requests.ModeAnswer(
        interfaces=tuple(
            requests.InterfaceMode(
                interface=link.name,
                mode=link.mode,
                is_overridden=any(one is None or _means(one, link.name) for one in overridden),
            )
            for link in status.interfaces
            if link.mode is not None and interface in (None, link.name)
        )
    )


def _means(name_or_pattern: str, link: str) -> bool:
    """Return whether an override that names an interface, or a pattern, is one of a link."""
    stem = name_or_pattern.removesuffix("*")
    return link == name_or_pattern or (stem != name_or_pattern and link.startswith(stem))


def _print(answer: requests.ModeAnswer, options: argparse.Namespace) -> int:
    if options.json:
        print(format_json(to_json(answer)))
        return 0
    lines = (*mode_table(answer, terminal_width()), *map(printable, _costs(answer)))
    print("\n".join(lines))
    warn_of_loss(answer)
    return 0


def _policy_after(settings: Settings, command: requests.ModeCommand) -> ResolvedPolicy | None:
    """Return the policy in force in the modes after a command; None if none is in force."""
    answer = ask(settings, requests.DocumentsQuery(), requests.DocumentsAnswer)
    status = ask(settings, requests.StatusQuery(), requests.StatusAnswer)
    if answer.snapshot_version is None:
        return None
    return policy_in_modes(files_of(answer), settings, _modes_after(command, modes_now(status)))


def _modes_after(command: requests.ModeCommand, now: ModeOf) -> ModeOf:
    """Return the modes after a command; without a mode it has the configuration's, which are the policy's."""

    def mode_of(judge: ResolvedInterface) -> Mode:
        is_meant = command.interface in (None, judge.name, judge.pattern)
        return (command.mode or judge.mode) if is_meant else now(judge)

    return mode_of


def _costs(answer: requests.ModeAnswer) -> Iterator[str]:
    """Yield the lines for a person about a switch beyond the modes."""
    if answer.seconds_left is not None:
        yield f"goes back in {time_left(answer.seconds_left)}, unless 'sgagent confirm' runs"
    if answer.sessions_cut:
        yield f"cut {count(len(answer.sessions_cut), 'open session')}:"
        yield from (f"  {cut}" for cut in answer.sessions_cut)


def mode_table(answer: requests.ModeAnswer, width: int | None) -> list[str]:
    """Return the lines of the table.

    Args:
        answer: what the agent said.
        width: of the terminal; None is no limit.
    """
    if not answer.interfaces:
        return ["no interface is bound yet; the mode applies once one is"]
    rows = (
        (one.interface, one.mode.value, "sgagent mode" if one.is_overridden else "the configuration")
        for one in answer.interfaces
    )
    return lay_out([("INTERFACE", "MODE", "BY"), *rows], width=width)
