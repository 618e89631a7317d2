"""Make flows for tests."""

from __future__ import annotations

from sgagent.agent.flows.flow import Flow, FlowEnd
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import Direction, Family, Mode, Policy


def dropped(number: int, port: int = 22) -> Flow:
    """Return a SYN from a stranger that the default dropped."""
    return Flow(
        number=number,
        seen_at=1_700_000_000.0 + number,
        interface="eth0",
        direction=Direction.INGRESS,
        verdict=Policy.DROP,
        mode=Mode.ENFORCE,
        decided_by=DecidedBy.DEFAULT,
        family=Family.IPV4,
        protocol="tcp",
        source=FlowEnd(address="203.0.113.9", port=40_000),
        destination=FlowEnd(
            address="10.0.0.11",
            port=port,
            network_interface_id="eni-web-1",
            security_group_ids=("sg-web",),
        ),
        bytes=60,
    )
