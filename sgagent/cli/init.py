"""``sgagent init``: write a first policy and configuration for this host, in observe mode."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from sgagent.agent.control.requests import ModeAnswer, ModeOrder
from sgagent.cli.agent_client import NoAgentError, ask
from sgagent.cli.apply import own_sessions
from sgagent.cli.first_policy import (
    OBSERVING,
    HostView,
    OpenPort,
    first_configuration,
    make_first_policy,
)
from sgagent.cli.main import DEFAULT_CONFIGURATION, option_adder
from sgagent.cli.output import replace_file
from sgagent.core.errors import UsageError, printable
from sgagent.core.model import TCP, CidrBlock, Family, Mode
from sgagent.dataplane.live_sessions import list_listeners, list_sockets
from sgagent.host.links import NetlinkHost
from sgagent.host.processes import sockets_of_logins
from sgagent.settings import Settings, parse_settings
from sgagent.settings.sources import FileSourceSettings
from sgagent.sources.files.reader import is_document_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    add("--web", "admit everyone to ports 80 and 443")
    text = "admit SSH from here; repeatable (default: only the session that you are in)"
    add("--ssh-from CIDR", text, action="append", default=[], type=_block)
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Write both files, where there are none yet; nothing is dropped by them."""
    place: Path = options.config or DEFAULT_CONFIGURATION
    text, settings, is_written = _configuration(place, is_default=options.config is None)
    policy_file = _policy_file(settings)
    policy = make_first_policy(look_at_host(), ssh_from=options.ssh_from, is_web_server=options.web)
    if not is_written:
        _write(place, text)
    # A running agent has read an older configuration: it has to observe before it finds the policy.
    with suppress(NoAgentError):
        ask(settings, ModeOrder(mode=Mode.OBSERVE, interface=None), ModeAnswer)
    _write(policy_file, policy.text)
    if options.json:
        files = {"configuration": str(place), "definitions": str(policy_file)}
        found = {"interfaces": policy.interfaces, "admitted": policy.admitted, "notes": policy.notes}
        print(json.dumps({**files, **found}))
        return 0
    lines = (
        f"wrote {place}: observe mode, nothing is dropped",
        f"wrote {policy_file}: filters {', '.join(policy.interfaces) or 'no link'}",
        *(f"  admits {entry}" for entry in policy.admitted),
        *(f"note: {note}" for note in policy.notes),
        "next: 'sgagent check', then start the agent, and watch 'sgagent hits' and 'sgagent denied';",
        "      'sgagent mode enforce' enforces the policy",
    )
    print("\n".join(map(printable, lines)))
    return 0


def _block(text: str) -> CidrBlock:
    try:
        return CidrBlock.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no address or network, like 203.0.113.0/24") from None


def _configuration(place: Path, *, is_default: bool) -> tuple[str, Settings, bool]:
    """Return the text of the configuration, what it sets, and whether the file has it already.

    Raises:
        UsageError: there is one that sets something and does not observe, or it is wrong.
    """
    beside = None if is_default else str(place.absolute().parent / "groups.d")
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = first_configuration(beside)
        return text, parse_settings(text, str(place)), False
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place}: the configuration can't be read: {error}") from error
    settings = parse_settings(text, str(place))
    if settings.enforcement.mode is Mode.OBSERVE:
        return text, settings, True
    if settings != parse_settings("", str(place)):
        raise UsageError(
            f'{place}: sets something already; set mode = "observe" under [enforcement], or name another file'
            " by --config"
        )
    added = first_configuration(beside).partition("\n\n")[2] if beside else "\n".join((*OBSERVING, ""))
    text = f"{text.rstrip()}\n\n{added}"
    return text, parse_settings(text, str(place)), False


def _policy_file(settings: Settings) -> Path:
    """Return where the policy goes.

    Raises:
        UsageError: documents are there already, or definitions come from elsewhere.
    """
    if not isinstance(settings.source, FileSourceSettings):
        raise UsageError(f"definitions come from {settings.source.place}: write the first policy there")
    path = settings.source.path
    if path.suffix in {".yaml", ".yml"} and not path.is_dir():
        found = [path.name] if path.exists() else []
        place = path
    else:
        found = sorted(filter(is_document_name, os.listdir(path))) if path.is_dir() else []  # noqa: PTH208 - names
        place = path / "first.yaml"
    if found:
        raise UsageError(
            f"{path}: there are documents already ({found[0]}): 'sgagent init' writes only a first policy"
        )
    return place


def look_at_host() -> HostView:
    """Return what the policy is made of.

    Raises:
        UsageError: the kernel does not say which ports are open.
    """
    try:
        facts, listeners, sockets = NetlinkHost().facts(), list_listeners(), list_sockets().at_listeners
    except OSError as error:
        raise UsageError(f"links and sockets of this host can't be listed: {error.strerror}") from error
    local = {(one.family, one.first) for link in facts.links for one in link.addresses}
    peers: dict[int, set[CidrBlock]] = defaultdict(set)
    for session in sockets:
        if (session.family, session.peer_address) not in local:
            peers[session.local_port].add(_address(session.family, session.peer_address))
    ports = sorted({(one.protocol, one.port) for one in listeners})
    return HostView(
        name=socket.gethostname().partition(".")[0],
        links=facts.links,
        ports=tuple(
            OpenPort(protocol="tcp", port=port, peers=frozenset(peers[port]))
            if protocol == TCP.number
            else OpenPort(protocol="udp", port=port)
            for protocol, port in ports
        ),
        logins=frozenset(
            (one.local_port, _address(one.family, one.peer_address))
            for one in own_sessions(sockets, sockets_of_logins(), os.environ)
        ),
    )


def _address(family: Family, number: int) -> CidrBlock:
    return CidrBlock.around(family, number, family.bits)


def _write(place: Path, text: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{place.parent}: can't be made: {error.strerror}") from error
    replace_file(place, text)
