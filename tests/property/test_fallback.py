"""The fallback ruleset closes what the policy enforces something on, and passes what no group can block."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given

from sgagent.compiler.fallback import compile_fallback
from sgagent.core.addresses import NO_ADDRESSES
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.model import Mode, Policy
from sgagent.core.policy import InvalidPackets, ResolvedDirection, ResolvedInterface, ResolvedPolicy
from sgagent.core.resolve import Exemptions, closed_interface
from tests.draws import Draws
from tests.generators import Case, described, random_packets
from tests.strategies import cases, draws
from tests.tracing import walk, walk_reply
from tests.words import ACCEPT

_PACKETS = 40


def _closed(judge: ResolvedInterface) -> ResolvedInterface:
    """Return a judge that only steps 1 to 3 of §3 let anything through, without a source check."""
    ingress, egress = (_closed_side(side) for side in (judge.ingress, judge.egress))
    invalid = InvalidPackets.DROP
    return replace(judge, ingress=ingress, egress=egress, own_addresses=None, invalid=invalid)


def _closed_side(side: ResolvedDirection) -> ResolvedDirection:
    return replace(side, inner=NO_ADDRESSES, rules=(), default=Policy.DROP)


def _is_open(policy: ResolvedPolicy, packet: Packet) -> bool:
    """Return whether nothing is enforced on the link of a packet (§2.3, §9.1)."""
    judge = policy.judge(packet.interface)
    return judge is None or judge.mode is Mode.OBSERVE


@given(cases(), draws())
def test_it_decides_as_a_closed_host(case: Case, draws: Draws) -> None:
    """New packets on every link, known or not, and the answers to those that were let in."""
    policy = case.policy
    if draws.chance(30):
        alike = policy.bound[0] if policy.bound else closed_interface("", Exemptions(), Mode.ENFORCE)
        policy = replace(policy, unbound=replace(_closed(alike), name="*", mode=Mode.ENFORCE))
    if draws.chance(30):
        observed = draws.choice(policy.judges).name if policy.judges else ""
        policy = policy.with_judges(
            lambda judge: replace(judge, mode=Mode.OBSERVE) if judge.name == observed else judge
        )
    table, closed = compile_fallback(policy), policy.with_judges(_closed)
    for found in random_packets(draws, policy, _PACKETS):
        packet = replace(found, interface=draws.choice((found.interface, found.interface, "eth9", "lo")))
        if table is None:
            assert _is_open(policy, packet), described(packet)
            continue
        expected = _is_open(policy, packet) or evaluate(closed, packet).verdict is ACCEPT
        assert walk(table, packet).accepted is expected, described(packet)
        assert walk_reply(table, packet).accepted
