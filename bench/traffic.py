"""Choose the packets: where they hit decides the cost of a list of rules, so it is varied and stated."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from bench.policies import INTERFACE, BenchPolicy
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.model import UDP, Direction, Family, Policy
from sgagent.core.policy import ResolvedRule
from sgagent.policy_test.packet_bytes import WirePacket, tcp, udp

HOST_ADDRESS = IPv4Address("192.0.2.10")
_STRANGER = IPv4Address("198.51.100.77")
"""Is in no group and no network of any policy."""

_UNUSED_PORTS = (61_000, 65_535)
"""Above those of every rule."""


class Aim(enum.Enum):
    """The aim that the packets of a measurement have in common."""

    SPREAD = "spread"
    """Each is aimed at a rule, and within it at a member and a port, by chance."""

    FIRST = "first rule"
    MIDDLE = "middle rule"
    LAST = "last rule"
    NONE = "no rule"
    """From members, chosen by chance, to ports that no rule speaks of: all of a list is walked."""


def choose(policy: BenchPolicy, aim: Aim, count: int, seed: int = 5) -> list[WirePacket]:
    """Return packets that open new sessions."""
    dice = random.Random(seed)
    if aim is Aim.NONE:
        return [_aimed_at_none(policy, dice) for _ in range(count)]
    rules = policy.resolved.interfaces[0].ingress.rules
    candidates = {
        Aim.SPREAD: rules,
        Aim.FIRST: rules[:1],
        Aim.MIDDLE: rules[len(rules) // 2 :][:1],
        Aim.LAST: rules[-1:],
    }[aim]
    return [_aimed_at(dice.choice(candidates), dice) for _ in range(count)]


def _aimed_at(rule: ResolvedRule, dice: random.Random) -> WirePacket:
    first, last = dice.choice(rule.peer.addresses.ipv4)
    source = _STRANGER if rule.peer.name == "0.0.0.0/0" else IPv4Address(dice.randint(first, last))
    ((first_port, last_port),) = rule.ports.ranges
    make = udp if rule.protocols == (UDP,) else tcp
    return make(source, HOST_ADDRESS, dice.randrange(1024, 65536), dice.randint(first_port, last_port))


def _aimed_at_none(policy: BenchPolicy, dice: random.Random) -> WirePacket:
    source = IPv4Address(dice.choice(dice.choice(policy.groups).numbers))
    return tcp(source, HOST_ADDRESS, dice.randrange(1024, 65536), dice.randint(*_UNUSED_PORTS))


@dataclass(frozen=True, slots=True)
class Session:
    """A UDP session that the policy allows."""

    source: IPv4Address
    source_port: int
    port: int

    @property
    def request(self) -> WirePacket:
        """Return a packet from the peer to the host."""
        return udp(self.source, HOST_ADDRESS, self.source_port, self.port)

    @property
    def answer(self) -> WirePacket:
        """Return a packet from the host to the peer."""
        return udp(HOST_ADDRESS, self.source, self.port, self.source_port)


def choose_sessions(policy: BenchPolicy, count: int, seed: int = 6) -> list[Session]:
    """Return different sessions of rules that accept UDP."""
    dice = random.Random(seed)
    return list(dict.fromkeys(_allowed_sessions(policy, count, dice)))


def _allowed_sessions(policy: BenchPolicy, count: int, dice: random.Random) -> Iterator[Session]:
    rules = policy.resolved.interfaces[0].ingress.rules
    candidates = [rule for rule in rules if rule.protocols == (UDP,) and rule.policy is Policy.ACCEPT]
    found = 0
    while found < count:
        rule = dice.choice(candidates)
        first, last = dice.choice(rule.peer.addresses.ipv4)
        source = _STRANGER if rule.peer.name == "0.0.0.0/0" else IPv4Address(dice.randint(first, last))
        ((first_port, last_port),) = rule.ports.ranges
        session = Session(source, dice.randrange(1024, 65536), dice.randint(first_port, last_port))
        if evaluate(policy.resolved, _judged(session)).verdict is Policy.ACCEPT:
            found += 1
            yield session


def _judged(session: Session) -> Packet:
    return Packet(
        interface=INTERFACE,
        direction=Direction.INGRESS,
        family=Family.IPV4,
        source=int(session.source),
        destination=int(HOST_ADDRESS),
        protocol=17,
        source_port=session.source_port,
        destination_port=session.port,
    )
