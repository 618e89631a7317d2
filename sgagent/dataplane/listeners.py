"""List the ports of this host at which programs wait for others."""

from __future__ import annotations

import ipaddress
import socket

from sgagent.core.lint.subject import Listener
from sgagent.core.model import Family
from sgagent.dataplane.sockets import CLOSE, LISTEN, list_in_states
from sgagent.netlink import NETLINK_SOCK_DIAG, NetlinkSocket

_FIRST_EPHEMERAL = 32_768
"""UDP has no listening: a socket without a peer at such a port is most often that of a client."""


def list_listeners() -> tuple[Listener, ...]:
    """Return the TCP and UDP ports at which a program waits, but for those at loopback; sorted.

    Of the calling thread's network namespace.

    Raises:
        OSError: the kernel can't tell.
    """
    found: set[Listener] = set()
    with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
        for protocol, state in ((socket.IPPROTO_TCP, LISTEN), (socket.IPPROTO_UDP, CLOSE)):
            for one in list_in_states(netlink, 1 << state, protocol):
                is_client = protocol == socket.IPPROTO_UDP and one.local_port >= _FIRST_EPHEMERAL
                if one.local_port and not is_client and not _is_loopback(one.family, one.local_address):
                    found.add(
                        Listener(
                            family=one.family,
                            address=one.local_address,
                            protocol=protocol,
                            port=one.local_port,
                        )
                    )
    return tuple(sorted(found, key=lambda one: (one.protocol, one.port, one.family.bits, one.address)))


def _is_loopback(family: Family, address: int) -> bool:
    kind = ipaddress.IPv4Address if family is Family.IPV4 else ipaddress.IPv6Address
    return kind(address).is_loopback
