"""Flow tables: they forward packets of known sessions past all hooks but the network card's own."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket
from sgagent.nft.kernel_table import read_tables

_GET_FLOW_TABLE = 10 << 8 | 23
_ANY_FAMILY = bytes(4)


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
        tables = read_tables(netlink.dump_unread(_GET_FLOW_TABLE, _ANY_FAMILY))
    return tuple(
        sorted(
            FlowTable(table.family, table.name, one.name, tuple(sorted(one.devices)))
            for table in tables
            for one in table.flow_tables
        )
    )
