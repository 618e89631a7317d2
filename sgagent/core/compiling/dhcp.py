"""Let DHCP pass, whatever the groups say (§7.1)."""

from __future__ import annotations

from sgagent.core.always import DHCP
from sgagent.core.compiling.selectors import Reading
from sgagent.core.kernel import names
from sgagent.core.kernel.ruleset import Goto, Interval, Rule
from sgagent.core.model import UDP, Direction, Family


def dhcp_rule(reading: Reading, direction: Direction, interface: str, family: Family) -> Rule:
    """Return the rule that accepts DHCP between this host, as a client, and any server.

    The source port stands first: libnftables lists neighbouring fields of a header in the header's order.
    """
    server, client = (Interval.single(port) for port in DHCP[family])
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    number = UDP.number or 0
    *protocol, port = reading.match_port(number, destination)
    accept = Goto(names.accept_chain(direction, interface))
    return Rule((*protocol, reading.match_source_port(number, source), port, accept))
