"""Return whether a browser means this server, or was led here by a name that somebody else made point to it.

A page of a stranger may have its own name resolve to 127.0.0.1, and then read what it finds there as its own
(DNS rebinding). What it can't do is to have the browser send another name than its own: an address,
``localhost`` or this host's name in the Host header say that the reader asked for just that.
"""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(?::[0-9]{1,5})?")


def is_meant(host: str | None, own_names: frozenset[str]) -> bool:
    """Return whether a Host header names this server.

    Args:
        host: the header; None, which no browser sends, is believed.
        own_names: names of this host, in small letters.
    """
    if host is None:
        return True
    match = _HOST.fullmatch(host.strip())
    if match is None:
        return False
    name = (match["ipv6"] or match["name"]).lower().removesuffix(".")
    is_local = name == "localhost" or name.endswith(".localhost")
    return is_local or name in own_names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
