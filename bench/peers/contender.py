"""The tasks of every contender: to enforce a policy, and to follow its changes."""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from bench.peers.place import Place, Ran
from bench.policies import BenchPolicy, MemberGroup
from sgagent.core.policy import Peer, ResolvedPolicy, ResolvedRule

EVERYONE = "0.0.0.0/0"
_KIBIBYTES_PER_MEBIBYTE = 1024


class Hook(enum.Enum):
    """Where in the kernel a contender judges incoming packets."""

    EDGE = "prerouting"
    INPUT = "input"


@dataclass(frozen=True, slots=True)
class Took:
    """The duration and memory of an operation."""

    seconds: float
    mebibytes: float = 0.0
    """That its largest process had in memory; 0 where only processes that stay took part."""

    @classmethod
    def of(cls, *runs: Ran) -> Took:
        """Return the costs of commands, one after the other."""
        most = max(run.kibibytes for run in runs) / _KIBIBYTES_PER_MEBIBYTE
        return cls(sum(run.seconds for run in runs), most)


@dataclass(frozen=True, slots=True)
class Newcomer:
    """An address that joins a group."""

    group: MemberGroup
    address: IPv4Address


class Contender(abc.ABC):
    """One way to enforce a policy on a host, in a place of its own."""

    hook = Hook.INPUT
    has_packages = True
    """Whether it comes in the peers' packages."""

    def __init__(self, place: Place) -> None:
        """Take the place."""
        self.place = place

    @abc.abstractmethod
    def start(self, policy: BenchPolicy) -> Took:
        """Enforce a policy where nothing is yet; to write the files is not counted."""

    @abc.abstractmethod
    def add_member(self, newcomer: Newcomer) -> Took:
        """Have an address join, by the quickest way there is."""

    @abc.abstractmethod
    def add_rule(self, rule: ResolvedRule) -> Took:
        """Have one more rule, by the quickest way there is."""

    @abc.abstractmethod
    def reload(self, policy: BenchPolicy) -> Took:
        """Enforce a changed policy in the usual way, by its files."""

    def processes(self) -> tuple[int, ...]:
        """Return the processes that stay."""
        return ()

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """End the processes that the place does not end."""


def rules_of(policy: ResolvedPolicy) -> tuple[ResolvedRule, ...]:
    """Return the rules in the order in which they are to be asked."""
    return policy.interfaces[0].ingress.rules


def is_group(peer: Peer) -> bool:
    """Tell whether a rule speaks of a group of addresses rather than of one network."""
    return len(peer.addresses.ipv4) > 1


def members_of(group: MemberGroup) -> Iterator[str]:
    """Yield the addresses of a group."""
    return (str(IPv4Address(number)) for number in group.numbers)


def ports_of(rule: ResolvedRule, between: str) -> str:
    """Return the rule's port, or the first and the last with something between them."""
    ((first, last),) = rule.ports.ranges
    return str(first) if first == last else f"{first}{between}{last}"
