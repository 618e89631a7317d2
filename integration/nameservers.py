"""A name server beyond the wire of a lab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from integration.lab import Lab
from sgagent.core.model import CidrBlock, Family
from sgagent.core.resolved_rules import KnownNames
from tests.nameserver import NameServer, addresses, serving

SERVER = "192.0.2.53"
DNS = f'[dns]\nservers = ["{SERVER}"]\n'
"""Has an agent ask it."""


@contextmanager
def on_the_wire(lab: Lab, server: NameServer) -> Iterator[None]:
    """Have the peer be a name server until the context is left."""
    lab.peer.ip(f"address replace {SERVER}/32 dev {lab.interfaces[0]}")
    with serving(server, SERVER, 53, lab.peer.socket):
        yield


def knowing(names: KnownNames) -> NameServer:
    """Return a name server that knows these names."""
    server = NameServer()
    for name, found in names.items():
        texts = (
            str(CidrBlock.around(family, first, family.bits))
            for family in Family
            for first, _ in found.ranges(family)
        )
        server.zone[name] = addresses(*texts, ttl=3600)
    return server
