"""Let the kernel judge packets as the specification sees them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from integration.lab import Lab
from sgagent.compiler.compilation import compile_
from sgagent.core.counter_keys import CounterKey
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.transactions import encode_plan
from sgagent.policy_test.packet_bytes import encode_packet

LAYOUT = MarkLayout(0xFFFF0000)

NOTRACK = """
table inet testnotrack {
    chain in { type filter hook prerouting priority -300; policy accept; notrack; }
    chain out { type filter hook output priority -300; policy accept; notrack; }
}
"""
"""Takes every packet out of conntrack's hands (§6.6)."""


def enforce(lab: Lab, policy: ResolvedPolicy) -> Mapping[str, CounterKey]:
    """Load a policy on the host in place of the one before, and return the keys of its counters."""
    compiled = compile_(policy, LAYOUT, first_state(policy.remembering, LAYOUT))
    lab.host.remove_table("sgagent")
    lab.host.nft("-j", "-f", "-", stdin=json.dumps(encode_plan(make_plan(compiled.ruleset, None))))
    return compiled.counters


def judge(lab: Lab, packets: Sequence[Packet]) -> list[bool]:
    """Send packets, each the first of a new session, and tell of each whether it got past the edge."""
    places: dict[tuple[str, Direction], list[int]] = defaultdict(list)
    for place, packet in enumerate(packets):
        places[packet.interface, packet.direction].append(place)
    verdicts = [False] * len(packets)
    for (interface, direction), chosen in places.items():
        send = lab.send_ingress if direction is Direction.INGRESS else lab.send_egress
        seen = send([encode_packet(packets[place]) for place in chosen], interface)
        for place, verdict in zip(chosen, seen, strict=True):
            verdicts[place] = verdict
    return verdicts
