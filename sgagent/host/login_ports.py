"""The ports at which the SSH server of this host is configured to listen.

A service manager hides other users' processes from the agent, which can't see the server's sockets then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_FILES = (
    "etc/ssh/sshd_config",
    "etc/ssh/sshd_config.d/*.conf",
    *(
        f"{top}/{unit}.socket{part}"
        for top in ("etc/systemd/system", "run/systemd/system", "run/systemd/generator")
        for unit in ("ssh", "sshd")
        for part in ("", ".d/*.conf")
    ),
)
_PORT = re.compile(
    r"^[ \t]*(?:port[ \t=]+\"?(\d+)|listenaddress[ \t=]+\S*(?:\]|^|[^:\s]):(\d+)\s*$"
    r"|listenstream[ \t]*=[ \t]*(?:\S*:)?(\d+)\s*$)",
    re.IGNORECASE | re.MULTILINE,
)
_LAST_PORT = 65535


def configured_ssh_ports(root: Path = Path("/")) -> frozenset[int]:
    """Return the ports of the server's configuration and socket units, as far as they can be read."""
    ports = (int(next(filter(None, found))) for text in _texts(root) for found in _PORT.findall(text))
    return frozenset(port for port in ports if 0 < port <= _LAST_PORT)


def _texts(root: Path) -> Iterator[str]:
    for pattern in _FILES:
        with suppress(OSError):
            for path in sorted(root.glob(pattern)):
                with suppress(OSError):
                    if path.is_file():
                        yield path.read_text(encoding="utf-8", errors="replace")
