"""The address at which a server of the agent accepts connections."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from sgagent.documents.scalars import invalid, parse_text
from sgagent.documents.tree import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddress:
    """Where a server accepts connections."""

    host: str = "127.0.0.1"
    """An address, or a name; IPv6 without brackets."""

    port: int = 9469
    """0 lets the kernel choose."""

    def __str__(self) -> str:
        """Return the address as the configuration has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Return whether only this host can reach it; of names, only of ``localhost``."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


DEFAULT_LISTEN = ListenAddress()
HOST_LABELS = r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*"
"""The pattern of a name that can be looked up: no label is empty or too long (RFC 1035, section 2.3.4)."""

_LISTEN = re.compile(rf"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>{HOST_LABELS}\.?)):(?P<port>[0-9]{{1,5}})")


def parse_listen_address(node: Node) -> ListenAddress:
    """Return the address that a text means, like ``[::1]:9469``.

    Raises:
        InvalidValueError: it is none.
    """
    match = _LISTEN.fullmatch(parse_text(node))
    if match is None or int(match["port"]) > 65535:
        example = "like 127.0.0.1:9469 or [::1]:9469"
        raise invalid("bad_listen", "not an address with a port", example)
    return ListenAddress(host=match["ipv6"] or match["host"], port=int(match["port"]))
