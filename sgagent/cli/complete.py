"""``sgagent complete``: print what a shell may complete a word with. For the scripts of the shells only."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from sgagent.agent.control.requests import StatusAnswer, StatusQuestion
from sgagent.agent.status import InterfaceState
from sgagent.cli.agent_client import NoAgentError, ask, enforced_now
from sgagent.cli.inputs import UNNAMED, add_definitions_arguments, fetch, load_settings
from sgagent.core.errors import SgagentError
from sgagent.core.model import Snapshot
from sgagent.documents import parse_documents
from sgagent.host.links import NetlinkHost
from sgagent.settings import Settings
from sgagent.settings.sources import FileSourceSettings

_LOOPBACK = "lo"
_UNBOUND = (InterfaceState.UNBOUND, InterfaceState.PORT)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("kind", choices=("groups", "rules", "links"))
    add_definitions_arguments(parser)


def run(options: argparse.Namespace) -> int:
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
        interfaces = ask(settings, StatusQuestion(), StatusAnswer).interfaces
    except NoAgentError:
        return [link.name for link in NetlinkHost().facts().links if link.name != _LOOPBACK]
    return [interface.name for interface in interfaces if interface.state not in _UNBOUND]


def _ids(settings: Settings, options: argparse.Namespace) -> Iterable[str]:
    """Return the ids of groups or rules in the definitions."""
    groups = _definitions(settings, options).security_groups
    if options.kind == "groups":
        return [group.security_group_id for group in groups]
    return [rule.rule_id for group in groups for rule in group.rules]


def _definitions(settings: Settings, options: argparse.Namespace) -> Snapshot:
    """Return the documents that are named or configured; where they are not on this host, those in force."""
    if options.definitions is not None or isinstance(settings.source, FileSourceSettings):
        return fetch(settings, options.definitions, UNNAMED).snapshot
    return parse_documents(enforced_now(settings).documents or (), settings.limits, UNNAMED)[0]
