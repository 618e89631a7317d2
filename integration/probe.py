"""See which packets of a batch got past the agent's hooks, by a table of the test's own right behind them.

A packet is known by its number, which stands in the identification of IPv4 and in the flow label of IPv6. The
table notes the number and drops the packet, so that it has no effect at all.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from integration.namespaces import Namespace
from sgagent.policy_test.packet_bytes import WirePacket

LAST_IDENTITY = 60_000
"""Packets of one batch; they are told apart by a number of 16 bits."""

SENTINEL = LAST_IDENTITY + 1
"""The number of the packet (of protocol 253) that ends a batch: it is noted before any judging."""

_TABLE = """
add table inet testprobe
delete table inet testprobe
table inet testprobe {{
    set seen_ipv4 {{ typeof ip id; size 65536; flags dynamic; }}
    set seen_ipv6 {{ typeof @nh,16,16; size 65536; flags dynamic; }}
    counter arrived {{ }}
    chain arrival {{
        type filter hook prerouting priority -450; policy accept;
        ip id {sentinel} ip protocol 253 add @seen_ipv4 {{ ip id }} drop
        ether saddr {mac} counter name arrived
    }}
    chain entered {{
        type filter hook prerouting priority -149; policy accept;
        ether saddr {mac} meta nfproto ipv4 add @seen_ipv4 {{ ip id }} drop
        ether saddr {mac} meta nfproto ipv6 add @seen_ipv6 {{ @nh,16,16 }} drop
    }}
    chain left {{
        type filter hook postrouting priority 301; policy accept;
        oifname != "lo" meta nfproto ipv4 add @seen_ipv4 {{ ip id }} drop
        oifname != "lo" meta nfproto ipv6 add @seen_ipv6 {{ @nh,16,16 }} drop
    }}
}}
"""


@contextlib.contextmanager
def probing(host: Namespace, sender: str) -> Iterator[Probe]:
    """Put the probe in, empty, and take it out again.

    Args:
        host: where the packets are judged.
        sender: the MAC address of what comes in.
    """
    host.nft("-f", "-", stdin=_TABLE.format(sentinel=SENTINEL, mac=sender))
    try:
        yield Probe(host)
    finally:
        host.remove_table("testprobe")


@dataclass(frozen=True, slots=True)
class Probe:
    """The table that notes the packets past the edge."""

    host: Namespace

    def seen(self, version: int) -> frozenset[int]:
        """Return the numbers of the packets of one family that got past."""
        listing = json.loads(self.host.nft("-j", "list", "set", "inet", "testprobe", f"seen_ipv{version}"))
        elements = next(item["set"] for item in listing["nftables"] if "set" in item).get("elem", ())
        return frozenset(one if isinstance(one, int) else one["elem"]["val"] for one in elements)

    def arrived(self) -> int:
        """Return how many packets have come in, whatever became of them."""
        listing = json.loads(self.host.nft("-j", "list", "counter", "inet", "testprobe", "arrived"))
        return int(next(item["counter"]["packets"] for item in listing["nftables"] if "counter" in item))

    def verdicts(self, packets: Sequence[WirePacket]) -> list[bool]:
        """Tell of each packet of the batch whether it got past."""
        seen = {4: self.seen(4), 6: self.seen(6)}
        return [identity in seen[packet.source.version] for identity, packet in enumerate(packets, start=1)]
