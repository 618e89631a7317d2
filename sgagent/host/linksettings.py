"""Set how a link treats IPv4 packets by netlink: /proc/sys is read-only in containers."""

from __future__ import annotations

import enum
import os
import socket
import struct
from collections.abc import Mapping

from sgagent.netlink import NETLINK_ROUTE, NetlinkSocket, attribute


class Ipv4Setting(enum.Enum):
    """What ``net.ipv4.conf.LINK.*`` can set, by the kernel's numbers (linux/ip.h)."""

    RP_FILTER = 8
    ACCEPT_LOCAL = 23
    ROUTE_LOCALNET = 26


def set_ipv4(link: str, values: Mapping[Ipv4Setting, int]) -> None:
    """Set parameters of a link in the network namespace that this thread is in.

    Raises:
        OSError: there is no such link, or the kernel refused.
    """
    settings = b"".join(attribute(one.value, struct.pack("=I", value)) for one, value in values.items())
    of_family = attribute(socket.AF_INET, attribute(_INET_CONF, settings))
    header = _LINK.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex(link), 0, 0)
    with NetlinkSocket(NETLINK_ROUTE) as netlink:
        errors = netlink.order([(_SET_LINK, header + attribute(_AF_SPEC, of_family))])
    if errors:
        raise OSError(errors[0], os.strerror(errors[0]), link)


_SET_LINK = 19
_LINK = struct.Struct("=BxHiII")
_AF_SPEC = 26
_INET_CONF = 1
