"""Change policies under a storm of new sessions, and count packets that contradict both policies.

Packets that both policies of a pair forbid must never pass, and packets that both allow must never be lost. A
session that is open and allowed by both loses no packet in either direction, and one that the policy after a
change forbids carries nothing once that change is done.

``python -m integration.storm --minutes 60 --seed 1``, as root, goes through all pairs, and random ones, and
prints a table of what came of each. ``--only NAME`` takes the pairs with this in their name.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from integration.enforcer import enforcer
from integration.lab import Lab, lab
from integration.pairs import HOST, Pair, Shot, shots
from integration.parts import where
from integration.stormpairs import LARGE, LARGEST, SMALL
from integration.streams import BACK, Kind, Storm, Tally, kind_of
from integration.watch import watching
from sgagent.core.model import Direction
from sgagent.core.policy import ResolvedPolicy
from tests.draws import Draws, SeededDraws
from tests.edits import edited, packets_to_send
from tests.generators import Case, described, random_case, without_limits

LINKS = ("eth0", "eth1", "eth2", "eth3", "eth4")
_SINK = """
table inet sink {
    chain arrival { type filter hook prerouting priority -400; policy accept; iifname != "lo" drop; }
}
"""
"""Nothing that gets to the peer is answered."""

_FOLLOWED = """
table inet testfollow {
    chain early { type filter hook prerouting priority 0; policy accept; ct state new accept; }
}
"""
"""Somebody else's table: connection tracking follows sessions from the beginning."""

_SESSION_SECONDS = {
    "net/netfilter/nf_conntrack_udp_timeout": 10,
    "net/netfilter/nf_conntrack_udp_timeout_stream": 10,
}

HEAD = (
    "| pair | changes | forbidden packets | passed | allowed packets | lost | packets of live sessions | lost"
    " | packets of ended sessions | passed |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


@contextlib.contextmanager
def bench() -> Iterator[Lab]:
    """Build a host with four links that may be bound, which forwards packets that enter by a fifth."""
    with lab(*LINKS, BACK) as built:
        built.host.sysctl({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
        built.add_host_addresses(HOST.values())
        built.peer.nft("-f", "-", stdin=_SINK)
        built.load(_FOLLOWED)
        built.host.sysctl(_SESSION_SECONDS)
        yield built


@contextlib.contextmanager
def storm_on(built: Lab) -> Iterator[Storm]:
    """Return a storm on a bench, and end it with the context."""
    with watching(built) as watch, contextlib.closing(Storm(built, watch)) as made:
        yield made


def run_pair(built: Lab, storm: Storm, pair: Pair, changes: int) -> Tally:
    """Let the sides of a pair change places so often, and return the result."""
    sides = (pair.before.policy(), pair.after.policy())
    storm.aim(*sides, targets_of(pair))
    return _alternate(built, storm, sides, changes, is_logged=pair.is_logged)


def _alternate(
    built: Lab,
    storm: Storm,
    sides: tuple[ResolvedPolicy, ResolvedPolicy],
    changes: int,
    *,
    is_logged: bool = False,
) -> Tally:
    """Enforce one policy and then each in turn, and return the result."""
    built.host.remove_table("sgagent")
    tally = Tally()
    with enforcer(built) as agent:
        agent.is_logged = is_logged
        agent.enforce(sides[0])
        for number in range(changes):
            policy = sides[1 - number % 2]
            tally += storm.change(policy, partial(agent.enforce, policy))
    return tally


def targets_of(pair: Pair) -> Iterator[tuple[Kind, Shot]]:
    """Yield the packets of a pair, and the expectation of each."""
    for kind, texts in (
        (Kind.FORBIDDEN, pair.forbidden),
        (Kind.ALLOWED, pair.allowed),
        (Kind.DIFFERING, pair.differing),
    ):
        for shot in shots(texts):
            yield kind, shot


@dataclass(frozen=True, slots=True)
class RandomPair:
    """Two policies that are a few random edits apart, and packets about which they agree or differ."""

    seed: int
    edits: tuple[str, ...]
    before: ResolvedPolicy
    after: ResolvedPolicy
    targets: tuple[tuple[Kind, Shot], ...]

    @property
    def name(self) -> str:
        """Return the pair's name; the seed makes it again."""
        return f"seed {self.seed}: {', '.join(self.edits)}"


def _edited_case(draws: Draws) -> tuple[Case, Case, tuple[str, ...]]:
    """Return a case, another a few edits away, and the edits; skip cases that no edit changes."""
    while True:
        links, most_rules = LINKS[: draws.randint(1, 3)], draws.choice((3, 8, 30))
        case = without_limits(random_case(draws, interfaces=links, most_rules=most_rules))
        found = edited(draws, case)
        if found is not None:
            other, edits = found
            return case, without_limits(other), edits


def random_pair(seed: int) -> RandomPair:
    """Return the random pair of a seed."""
    draws = SeededDraws(seed)
    case, other, edits = _edited_case(draws)
    looks_at_source_ports = any(
        rule.source_ports is not None
        for policy in (case.policy, other.policy)
        for interface in policy.interfaces
        for direction in Direction
        for rule in interface.toward(direction).rules
    )
    found: dict[tuple[Kind, Direction], list[Shot]] = {}
    for packet in packets_to_send(draws, case, other, _DRAWN):
        kind = kind_of(case.policy, other.policy, packet)
        may_vary = not looks_at_source_ports and packet.source_port is not None
        if may_vary:  # DHCP looks at them, whatever the rules do
            like_others = replace(packet, source_port=_ORDINARY_PORT)
            may_vary = kind_of(case.policy, other.policy, like_others) is kind
        shot = Shot(described(packet), packet, is_forwarded=False, may_vary=may_vary)
        found.setdefault((kind, packet.direction), []).append(shot)
    targets = [(kind, shot) for (kind, _), some in found.items() for shot in some[:_CHOSEN]]
    return RandomPair(seed, edits, case.policy, other.policy, tuple(targets))


_ORDINARY_PORT = 20_000
_DRAWN = 200
_CHOSEN = 8
"""Packets of a kind and direction."""


def run_random_pair(built: Lab, storm: Storm, pair: RandomPair, changes: int) -> Tally:
    """Let two random policies change places so often, and return the result."""
    storm.aim(pair.before, pair.after, pair.targets)
    return _alternate(built, storm, (pair.before, pair.after), changes)


def main(argv: Sequence[str]) -> int:
    """Go through the pairs until the time is up, print the results, and fail if anything went wrong."""
    options = _options(argv)
    deadline = time.monotonic() + 60 * options.minutes
    found: dict[str, Tally] = {}
    with bench() as built, storm_on(built) as storm:
        for name, tally in _tallies(options, built, storm):
            known = found.setdefault(name, Tally())
            known += tally
            print(tally.row(name), flush=True)
            if time.monotonic() > deadline:
                break
    print(f"\n{HEAD}")
    total = Tally()
    for name, tally in found.items():
        print(tally.row(name))
        total += tally
    print(total.row("all"))
    print(f"\n{where()}, seed {options.seed}.")
    for name, tally in found.items():
        for stream, number in tally.faults.most_common(options.details):
            print(f"- {name}: {number:,} × {stream}")
    return 1 if total.wrong else 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Change policies under a storm of new sessions.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, but for the pair under way")
    parser.add_argument("--seed", type=int, default=1, help="of the random pairs")
    parser.add_argument("--only", default="", help="the pairs with this in their name")
    parser.add_argument("--changes", type=int, default=20, help="of a small pair at a time")
    parser.add_argument("--beside", type=int, default=0, help="rules of another link that come and go")
    parser.add_argument("--details", type=int, default=3, help="streams that are named for each pair")
    return parser.parse_args(argv)


def _tallies(options: argparse.Namespace, built: Lab, storm: Storm) -> Iterator[tuple[str, Tally]]:
    """Yield the results of pairs without end: all of the table, then as many random ones, and so on."""
    pairs = [pair for pair in (*SMALL, *LARGE, *LARGEST) if options.only in pair.name]
    if options.beside:
        pairs = [pair.beside(options.beside) for pair in pairs]
    seeds = itertools.count(options.seed)
    while True:
        for pair in pairs:
            yield pair.name, run_pair(built, storm, pair, changes_of(pair, options.changes))
        if not options.only:
            for _ in pairs:
                pair_of_chance = random_pair(next(seeds))
                tally = run_random_pair(built, storm, pair_of_chance, options.changes)
                yield "random" if tally.wrong == 0 else pair_of_chance.name, tally


def changes_of(pair: Pair, changes: int) -> int:
    """Return how often a pair changes at a time: large ones less often."""
    rules = pair.after.beside or 0
    return max(2, changes * 100 // (100 + rules))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
