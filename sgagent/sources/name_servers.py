"""Know which name servers this host asks, for a source that is given by name."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from sgagent.core.model import TCP, UDP
from sgagent.core.policy import Endpoint
from sgagent.settings import SourceSettings
from sgagent.sources.factory import servers

RESOLV_CONF = Path("/etc/resolv.conf")
BEHIND_A_STUB = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved names the servers that it asks itself; the other file leads to loopback then."""

_DNS = 53
_MOST_SERVERS = 8
_LONGEST_FILE = 65_536


def name_servers(
    source: SourceSettings, files: tuple[Path, ...] = (RESOLV_CONF, BEHIND_A_STUB)
) -> tuple[Endpoint, ...]:
    """Return the host's name servers, which have to be reached to find a source; none if it has no name.

    Args:
        source: what the configuration says of it.
        files: that name them, as resolv.conf(5) describes; what can't be read names none.
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
    """Return the addresses of the name servers in a file, but for those on this host."""
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            lines = opened.read(_LONGEST_FILE).splitlines()
    except OSError:
        return []
    words = (line.split() for line in lines)
    named = (found[1].partition("%")[0] for found in words if len(found) > 1 and found[0] == "nameserver")
    return [a for a in named if _is_address(a) and not ipaddress.ip_address(a).is_loopback]
