"""IPv4 settings of a link, set by netlink, since /proc/sys is read-only in containers.

pyroute2 reads these settings but cannot write them.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
from collections.abc import Mapping

from sgagent.netlink import NETLINK_ROUTE, NetlinkSocket, attribute


class Ipv4Setting(enum.Enum):
    """A setting in ``net.ipv4.conf.LINK``, with its number in linux/ip.h."""

    RP_FILTER = 8
    ACCEPT_LOCAL = 23
    ROUTE_LOCALNET = 26


def set_ipv4(link: str, values: Mapping[Ipv4Setting, int]) -> None:
    """Set settings of a link in the network namespace of the calling thread.

    Raises:
        OSError: the link does not exist, or the kernel refused.
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
