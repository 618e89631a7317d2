"""Name everyone that is measured."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bench.peers.contender import Contender
from bench.peers.firewalld import Firewalld
from bench.peers.foomuuri import Foomuuri
from bench.peers.iptables import Iptables
from bench.peers.nftlist import NftList
from bench.peers.ours import Command, Daemon

COMMAND = "sgagent compile"
DAEMON = "sgagent run"

CONTENDERS: Mapping[str, type[Contender]] = MappingProxyType(
    {
        DAEMON: Daemon,
        COMMAND: Command,
        "nft, a list": NftList,
        "iptables and ipset": Iptables,
        "firewalld": Firewalld,
        "foomuuri": Foomuuri,
    }
)
"""By the names that the tables show."""
