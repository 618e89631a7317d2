"""Describe the commands as their parsers declare them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from sgagent import __version__
from sgagent.analysis.lint.findings import CODES
from sgagent.cli.main import make_parser
from sgagent.core.model import PROTOCOL_NAMES


class Value(Enum):
    """What the value of an option may be completed with."""

    NONE = "none"
    """The option is a flag."""

    ANY = "any"
    CHOICE = "choice"
    FILE = "file"
    LINK = "link"
    BOUND_LINK = "bound link"
    """A link that the agent judges."""

    BINDING = "binding"
    """``LINK=GROUP[,GROUP…]``: a link, and then groups of the definitions."""

    RULE = "rule"
    """The id of a rule of the definitions."""

    CODES = "codes"
    """Some of the choices, separated by commas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a command."""

    names: tuple[str, ...]
    value: Value
    metavar: str
    """Empty for a flag."""

    choices: tuple[str, ...] = ()
    text: str
    """What it does, in a few words without a full stop; may be empty."""

    is_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An argument that stands without an option."""

    metavar: str
    value: Value
    choices: tuple[str, ...] = ()
    text: str
    is_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of the program, or the program itself without one."""

    name: str
    summary: str
    """A sentence."""

    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The whole command line."""

    version: str
    options: tuple[Option, ...]
    commands: tuple[Command, ...]


PROTOCOLS = tuple(name for protocol, name in PROTOCOL_NAMES.items() if protocol.number is not None)
"""What ``--protocol`` is completed with: those of packets. It takes numbers too."""

_VALUES = {
    "FILE": Value.FILE,
    "PATH": Value.FILE,
    "DIRECTORY": Value.FILE,
    "FOLDER": Value.FILE,
    "NAME": Value.BOUND_LINK,
    "LINK": Value.LINK,
    "INTERFACE": Value.LINK,
    "ID": Value.RULE,
}
"""What a metavar stands for, where that is known."""


def describe_program() -> Program:
    """Return the command line that the parsers make."""
    parser = make_parser()
    commands = next(action for action in _actions(parser) if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001 - argparse has no other name for it
    summaries = {choice.dest: choice.help or "" for choice in commands._choices_actions}  # noqa: SLF001 - nor another place
    return Program(
        version=__version__,
        options=tuple(_options(parser)),
        commands=tuple(
            Command(
                name=name,
                summary=summaries[name],
                options=tuple(_options(command)),
                arguments=tuple(_arguments(command)),
            )
            for name, command in sorted(commands.choices.items())
        ),
    )


def _options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in _actions(parser):
        if action.option_strings:
            value, choices = _value(action)
            yield Option(
                names=tuple(action.option_strings),
                value=value,
                metavar=_metavar(action, value),
                choices=choices,
                text=_text(action),
                is_required=action.required,
            )


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    for action in _actions(parser):
        if not action.option_strings:
            value, choices = _value(action)
            yield Argument(
                metavar=_metavar(action, value),
                value=value,
                choices=choices,
                text=_text(action),
                is_required=action.required and action.nargs not in ("?", "*"),
            )


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001 - argparse tells them nowhere else


def _value(action: argparse.Action) -> tuple[Value, tuple[str, ...]]:
    """Return what a value may be, and the words that it can be chosen from."""
    if action.nargs == 0:
        return Value.NONE, ()
    if action.choices is not None:
        return Value.CHOICE, tuple(str(choice) for choice in action.choices)
    if action.dest == "protocol":
        return Value.CHOICE, PROTOCOLS
    if isinstance(action.metavar, str) and action.metavar.startswith("NAME="):
        return Value.BINDING, ()
    if isinstance(action.metavar, str) and action.metavar.startswith("CODE["):
        return Value.CODES, CODES
    return _VALUES.get(_declared_metavar(action), Value.ANY), ()


def _metavar(action: argparse.Action, value: Value) -> str:
    """Return how the value is written: its name, or the words there are."""
    if value is Value.NONE:
        return ""
    if action.choices is not None and action.metavar is None:
        return "|".join(str(choice) for choice in action.choices)
    return _declared_metavar(action)


def _declared_metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return action.dest.upper().replace("_", "-")


def _text(action: argparse.Action) -> str:
    """Return an action's help with its placeholders filled in."""
    if action.help is None or action.help == argparse.SUPPRESS:
        return ""
    return action.help % dict(vars(action), prog="sgagent")
