"""The commands that ask the running agent or give it a command, from ``sgagent confirm`` to ``rollback``.

``sgagent complete``, which asks it for the scripts of the shells, comes last.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from sgagent.agent.clock import clock_time
from sgagent.agent.control import requests
from sgagent.agent.posture import UNJUDGED_STATES
from sgagent.agent.state.directory import DamagedStateError, StateDirectory
from sgagent.cli import inputs, lockout_guard
from sgagent.cli.agent_client import NoAgentError, ask, enforced_now, print_enforced, warn_of_loss
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import add_option
from sgagent.cli.output import add_width_argument, format_json, lay_out, table_width
from sgagent.core.errors import SgagentError, UsageError, printable
from sgagent.core.model import Snapshot
from sgagent.documents import parse_documents
from sgagent.host.links import NetlinkHost
from sgagent.json_model import to_json
from sgagent.settings import Settings
from sgagent.settings.sources import FileSourceSettings


def _add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option of all but ``complete``."""
    add_option(parser, "--json", "print one JSON object")


def _print_json(answer: requests.ControlAnswer) -> None:
    print(format_json(to_json(answer)))


add_confirm_arguments = add_reload_arguments = _add_json_argument


def add_history_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that print a table."""
    add_width_argument(parser)
    _add_json_argument(parser)


def run_history(options: argparse.Namespace) -> int:
    """Print the history; damaged files are named on standard error."""
    answer = ask(load_settings(options), requests.HistoryQuery(), requests.HistoryAnswer)
    if options.json:
        _print_json(answer)
        return 0
    print("\n".join(history_table(answer, table_width(options))))
    for entry in answer.entries:
        if entry.fault is not None:
            print(printable(f"damaged: {entry.fault}"), file=sys.stderr)
    return 0


_HISTORY_HEADINGS = ("N", "", "VERSION", "SINCE", "BY", "FILES", "BYTES", "RULES", "CHAINS", "LINKS")


def history_table(answer: requests.HistoryAnswer, width: int | None) -> list[str]:
    """Return the lines of the table.

    Args:
        answer: what the agent said.
        width: of the terminal; None is no limit.
    """
    if not answer.entries:
        return ["nothing was enforced on this host yet"]
    rows = [_HISTORY_HEADINGS, *map(_history_row, answer.entries)]
    return lay_out(rows, right=(0, 5, 6, 7, 8), width=width)


def _history_row(entry: requests.HistoryEntry) -> tuple[str, ...]:
    mark, extent = "*" if entry.is_in_force else "", entry.extent
    if entry.fault is not None:
        return (str(entry.number), mark, "(damaged)", *("" for _ in _HISTORY_HEADINGS[3:]))
    return (
        str(entry.number),
        mark,
        entry.version or "",
        "" if entry.enforced_at is None else clock_time(entry.enforced_at),
        entry.origin.value if entry.origin else "",
        str(entry.documents or 0),
        str(entry.bytes or 0),
        *(map(str, (extent.rules, extent.chains, extent.interfaces)) if extent else ("", "", "")),
    )


def run_confirm(options: argparse.Namespace) -> int:
    """Keep the definitions or the mode that is on trial; the exit code says whether there were any."""
    answer = ask(load_settings(options), requests.ConfirmCommand(), requests.ConfirmAnswer)
    if options.json:
        _print_json(answer)
    elif not answer.is_confirmed:
        print("sgagent: there is no trial to confirm: it was confirmed, or has ended", file=sys.stderr)
    else:
        what = answer.version
        if answer.is_of_mode:
            what = f"mode {answer.mode.value}" if answer.mode else "the modes of the configuration"
        print(printable(f"confirmed {what}"))
        warn_of_loss(answer)
        if newer := answer.overtaken_by:
            print(printable(f"the source has delivered {newer} meanwhile, which is enforced now"))
    return 0 if answer.is_confirmed else 1


def run_reload(options: argparse.Namespace) -> int:
    """Have the agent read its source, and print the version in force; raise why the source's is not."""
    answer = ask(load_settings(options), requests.ReloadCommand(), requests.EnforcedAnswer)
    print_enforced(answer, as_json=options.json)
    return 0


def add_rollback_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sgagent rollback``."""
    text = "a number of 'sgagent history' (default: the newest that is not active)"
    add_option(parser, "number N", text, type=inputs.whole_number, nargs="?")
    add_option(parser, "--yes", "go back even if that cuts your own session or unbinds a link")
    _add_json_argument(parser)


def run_rollback(options: argparse.Namespace) -> int:
    """Have the agent go back to earlier definitions, and print those in force then."""
    settings = load_settings(options)
    if not options.yes:
        _guard_rollback(settings, options.number)
    answer = ask(settings, requests.RollbackCommand(number=options.number), requests.EnforcedAnswer)
    print_enforced(answer, as_json=options.json)
    return 0


def _guard_rollback(settings: Settings, number: int | None) -> None:
    """Refuse to go back where that would lock out the user of the command, or open a link.

    The end of a trial is not guarded: it comes anyway.

    Raises:
        UsageError: it would, or the definitions can't be read.
    """
    status = ask(settings, requests.StatusQuery(), requests.StatusAnswer)
    if status.pending is not None or status.pending_mode is not None:
        return
    history = ask(settings, requests.HistoryQuery(), requests.HistoryAnswer).entries
    if number is None:
        number = earlier_version(history, status.snapshot_version)
    if number not in {one.number for one in history}:
        return  # the agent refuses it, and says why
    try:
        kept = StateDirectory(settings.state.directory).history.read(number)
    except PermissionError:
        return  # the agent takes orders of nobody who may not read its state
    except (OSError, DamagedStateError) as error:
        raise UsageError(f"number {number} of the history can't be read: {error}") from error
    policy = lockout_guard.policy_in_modes(kept.documents, settings, lockout_guard.modes_now(status))
    if policy is not None:  # else the agent refuses the definitions, and says why
        lockout_guard.refuse_to_lock_out(policy, status, "say --yes")


def earlier_version(history: Iterable[requests.HistoryEntry], version: str | None) -> int | None:
    """Return the number of the newest version that is not active, as the agent chooses it.

    Args:
        history: the newest first.
        version: of the status, which just after a step is still the one before, and in the history.
    """
    readable = [one for one in history if one.fault is None]
    versions = [one.version for one in readable]
    active = versions[0] if version in versions else version
    return next((one.number for one in readable if one.version != active), None)


def add_complete_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sgagent complete``."""
    parser.add_argument("kind", choices=("groups", "rules", "links"))
    inputs.add_definitions_arguments(parser)


def run_complete(options: argparse.Namespace) -> int:
    """Print one id or name a line; nothing where they can't be had, as nobody reads errors here."""
    try:
        settings = load_settings(options)
        found = _links(settings) if options.kind == "links" else _ids(settings, options)
        print("".join(f"{one}\n" for one in sorted(set(found))), end="")
    except (SgagentError, OSError):
        return 1
    return 0


def _links(settings: Settings) -> Iterable[str]:
    """Return the links that the agent judges, else those of this host that can be bound."""
    try:
        interfaces = ask(settings, requests.StatusQuery(), requests.StatusAnswer).interfaces
    except NoAgentError:
        return [link.name for link in NetlinkHost().facts().links if link.name != "lo"]
    return [interface.name for interface in interfaces if interface.state not in UNJUDGED_STATES]


def _ids(settings: Settings, options: argparse.Namespace) -> Iterable[str]:
    """Return the ids of groups or rules in the definitions."""
    groups = _definitions(settings, options).security_groups
    if options.kind == "groups":
        return [group.security_group_id for group in groups]
    return [rule.rule_id for group in groups for rule in group.rules]


def _definitions(settings: Settings, options: argparse.Namespace) -> Snapshot:
    """Return the documents that are named or configured; where they are not on this host, those in force."""
    if options.definitions is not None or isinstance(settings.source, FileSourceSettings):
        return inputs.fetch(settings, options.definitions, inputs.UNNAMED).snapshot
    return parse_documents(enforced_now(settings).documents or (), settings.limits, inputs.UNNAMED)[0]
