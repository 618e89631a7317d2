"""Flow tables: what forwards packets of known sessions past all hooks but the network card's own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.netlink import NETLINK_NETFILTER, Message, NetlinkSocket, attributes

_GET_FLOW_TABLE = 10 << 8 | 23
_HEADER = struct.Struct("=BBH")
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_TABLE, _NAME, _HOOK = 1, 2, 3
_DEVICES = 3
"""Of the hook."""

_DEVICE_NAME = 1


@dataclass(frozen=True, slots=True, order=True)
class FlowTable:
    """A flow table of a table of nftables."""

    family: str
    table: str
    name: str
    links: tuple[str, ...]
    """From which it takes packets; sorted."""

    def __str__(self) -> str:
        """Return it as people write it: ``inet filter fastpath (eth0, eth1)``."""
        return f"{self.family} {self.table} {self.name} ({', '.join(self.links) or 'no link'})"


def list_flow_tables() -> tuple[FlowTable, ...]:
    """Return the flow tables of the calling thread's network namespace, sorted.

    Needs CAP_NET_ADMIN. A kernel without flow tables has none.

    Raises:
        OSError: the kernel can't tell.
    """
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        return tuple(sorted(map(_flow_table, netlink.dump(_GET_FLOW_TABLE, _HEADER.pack(0, 0, 0)))))


def _flow_table(message: Message) -> FlowTable:
    found = attributes(message.payload[_HEADER.size :])
    devices = attributes(found[_HOOK]).get(_DEVICES, memoryview(b""))
    return FlowTable(
        family=_FAMILIES.get(message.payload[0], str(message.payload[0])),
        table=_text(found[_TABLE]),
        name=_text(found[_NAME]),
        links=tuple(sorted(_texts(devices))),
    )


def _texts(devices: memoryview) -> Iterator[str]:
    """Yield the names in a list of attributes of one kind."""
    place = 0
    while place + 4 <= len(devices):
        length, kind = struct.unpack_from("=HH", devices, place)
        if length < 4:
            return
        if kind == _DEVICE_NAME:
            yield _text(devices[place + 4 : place + length])
        place += length + 3 & ~3


def _text(value: memoryview) -> str:
    return str(value, "utf-8", "replace").rstrip("\0")
