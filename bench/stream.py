"""Measure the effect of applies on traffic at full packet rate.

``python -m bench.stream``, as root; ``--write`` keeps it. Streams are sent to a host whose daemon enforces
one policy after another. Against that stand the same streams while nothing is applied at all, and while the
same is applied on another host of this machine: what there is in the first alone is what an apply does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.frames import PEER_MAC
from bench.hosts import BenchHost, bench_host
from bench.installed import installed_agent
from bench.policy_changes import ACCEPTED, CONFIGURATION, KNOWN, Definitions, PolicyChange
from bench.processor import LostPacketsError
from bench.section import COSTS_PAGE, Section, begin, finish, parser_of
from bench.sending import Sender, Sent, Stream, known_sessions, sender_at
from bench.sizes import SIZES, Size
from bench.stream_losses import Losses, Situation, Streams, Waits, judge, lines
from integration.lab import wait_for
from integration.service import Service

NAME = "stream"
SIZE = SIZES[2]
ROUNDS, APPLIES_OF_A_ROUND = 5, 10
_SECONDS = 60.0
_WATCH = f"""
table inet bench_watch {{
    counter sent {{ }}
    counter accepted {{ }}
    counter known {{ }}
    counter leaked {{ }}
    chain before {{
        type filter hook prerouting priority -450; policy accept;
        ether saddr {PEER_MAC} counter name sent
    }}
    chain behind {{
        type filter hook prerouting priority -149; policy accept;
        ether saddr {PEER_MAC} tcp dport {ACCEPTED} counter name accepted drop
        ether saddr {PEER_MAC} udp dport {KNOWN} counter name known drop
        ether saddr {PEER_MAC} counter name leaked drop
    }}
}}
"""
"""Counts what comes, and behind the agent's hook what gets past it."""


@dataclass(slots=True)
class _Tally:
    """The results, as they are found."""

    losses: list[Losses] = field(default_factory=list)
    nanoseconds: dict[Situation, dict[Stream, array[int]]] = field(
        default_factory=lambda: {s: {stream: array("Q") for stream in Stream} for s in Situation}
    )

    def take(self, situation: Situation, sent: Sent) -> None:
        for stream, taken in sent.nanoseconds.items():
            self.nanoseconds[situation][stream].extend(taken)


def measure_streams(size: Size, rounds: int, applies: int) -> Streams:
    """Send streams through so many rounds of so many applies of each kind."""
    tally, allowed = _Tally(), os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        os.sched_setaffinity(0, allowed - {max(allowed)})
        stack.callback(os.sched_setaffinity, 0, allowed)
        here, elsewhere = (stack.enter_context(_enforced_host(size)) for _ in range(2))
        here.open_streams()
        hosts = {Situation.HERE: here, Situation.ELSEWHERE: elsewhere}
        sender = stack.enter_context(sender_at(here.bench.peer, max(allowed)))
        for change in PolicyChange:
            tally.losses.append(_measure_losses(change, hosts, sender, (rounds, applies), tally))
    waits = {
        situation.value: {stream.value: Waits.of(taken) for stream, taken in found.items()}
        for situation, found in tally.nanoseconds.items()
    }
    return Streams(size=size, losses=tuple(tally.losses), waits=waits)


@dataclass(frozen=True, slots=True)
class _EnforcedHost:
    """A host whose daemon enforces definitions."""

    bench: BenchHost
    service: Service
    definitions: Definitions

    def open_streams(self) -> None:
        """Open the known sessions, and count from now on."""
        self.bench.open_sessions(known_sessions())
        self.bench.host.nft("-f", "-", stdin=_WATCH)

    def apply(self, change: PolicyChange) -> None:
        """Change the definitions, and wait until that is enforced."""
        write = self.definitions.prepare(change)
        told = self._applied()
        write()
        self.service.reload()
        wait_for(lambda: self._applied() > told, "the change to be enforced", _SECONDS)

    def _applied(self) -> int:
        return self.service.log.count('"ruleset_applied"')


@contextlib.contextmanager
def _enforced_host(size: Size) -> Iterator[_EnforcedHost]:
    with (
        bench_host("") as bench,
        tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory,
        installed_agent(bench.host, Path(directory)) as service,
    ):
        service.configure(CONFIGURATION)
        definitions = Definitions(service, size)
        definitions.write_all()
        service.start()
        yield _EnforcedHost(bench, service, definitions)


def _measure_losses(
    change: PolicyChange,
    hosts: Mapping[Situation, _EnforcedHost],
    sender: Sender,
    effort: tuple[int, int],
    tally: _Tally,
) -> Losses:
    """Send through all rounds of one kind of change, and return the packets' fates."""
    rounds, applies = effort
    sent, passed = Counter[Stream](), Counter[str]()
    for _ in range(rounds):
        before, began = _counters(hosts[Situation.HERE]), time.monotonic()
        for situation, host in hosts.items():
            with sender.sending() as found:
                for _ in range(applies):
                    host.apply(change)
            tally.take(situation, found[0])
            if situation is Situation.HERE:
                sent.update({stream: found[0].packets(stream) for stream in Stream})
                passed.update(_counters(host))
                passed.subtract(before)
        seconds = (time.monotonic() - began) / len(hosts)
        with sender.sending() as found:
            threading.Event().wait(seconds)
        tally.take(Situation.QUIET, found[0])
    if passed["sent"] != sent.total():
        raise LostPacketsError(f"{sent.total()} packets were sent, {passed['sent']} came to the host")
    return Losses(
        change=change.value,
        applies=rounds * applies,
        accepted=sent[Stream.ACCEPTED],
        accepted_lost=sent[Stream.ACCEPTED] - passed["accepted"],
        known=sent[Stream.KNOWN],
        known_lost=sent[Stream.KNOWN] - passed["known"],
        denied=sent[Stream.UNSPOKEN] + sent[Stream.REFUSED],
        leaked=passed["leaked"],
    )


def _counters(host: _EnforcedHost) -> Mapping[str, int]:
    """Return the watch's counts."""
    listing = json.loads(host.bench.host.nft("-j", "list", "counters", "table", "inet", "bench_watch"))
    found = (item["counter"] for item in listing["nftables"] if "counter" in item)
    return {counter["name"]: counter["packets"] for counter in found}


def main(argv: Sequence[str]) -> int:
    """Measure, and print tables."""
    options = parser_of(NAME, "Measure what applies do to traffic at full packet rate.").parse_args(argv)
    begin()
    if len(os.sched_getaffinity(0)) == 1:
        print("the streams need a processor of their own: there is only one", file=sys.stderr)
        return 2
    rounds, applies = (1, 2) if options.quick else (ROUNDS, APPLIES_OF_A_ROUND)
    found = measure_streams(SIZES[1] if options.quick else SIZE, rounds, applies)
    return finish(
        Section(NAME, list(lines(found)), found, COSTS_PAGE), list(judge(found)), writes=options.write
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
