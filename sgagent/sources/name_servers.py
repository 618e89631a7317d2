"""Name servers of this host, which the agent needs to resolve a source's name."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from sgagent.core.model import TCP, UDP
from sgagent.core.policy import Endpoint
from sgagent.settings import SourceSettings
from sgagent.sources.factory import servers

RESOLV_CONF = Path("/etc/resolv.conf")
BEHIND_A_STUB = Path("/run/systemd/resolve/resolv.conf")
"""The upstream servers of systemd-resolved; with it, the other file names a stub on loopback."""

_DNS = 53
_MOST_SERVERS = 8
_LONGEST_FILE = 65_536


def name_servers(
    source: SourceSettings, files: tuple[Path, ...] = (RESOLV_CONF, BEHIND_A_STUB)
) -> tuple[Endpoint, ...]:
    """Return the endpoints of the host's name servers; none if the source needs no resolver.

    Args:
        source: the configured source.
        files: in the format of resolv.conf(5); an unreadable file names no servers.
    """
    if all(_is_address(host) for host, _ in servers(source)):
        return ()
    addresses = dict.fromkeys(address for file in files for address in _named_in(file))
    return tuple(
        Endpoint.at(address, _DNS, protocol)
        for address in list(addresses)[:_MOST_SERVERS]
        for protocol in (UDP, TCP)
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _named_in(file: Path) -> list[str]:
    """Return the addresses of the name servers in a file, except loopback."""
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            lines = opened.read(_LONGEST_FILE).splitlines()
    except OSError:
        return []
    words = (line.split() for line in lines)
    named = (found[1].partition("%")[0] for found in words if len(found) > 1 and found[0] == "nameserver")
    return [a for a in named if _is_address(a) and not ipaddress.ip_address(a).is_loopback]
