"""Each new session is counted once, also by a rule that a change removes, renames or turns round meanwhile.

Thousands of new sessions a second come while policies change. Every one is dropped behind the agent, so each
packet is the first of a session, and the totals of all rules and defaults must add up to the packets that
came. A series that a removed rule had is read when the rule is back.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest

from integration.bulk import Batch, Sender, socket_address
from integration.lab import HOST_MAC, TEST_MAC, Lab, lab, wait_for
from integration.service import Service, service_on
from integration.stormdaemon import RulesetEvents
from integration.streams import on_processors, shared_processors
from integration.watch import FIRST_MARK, Mark, Watch, watching
from sgagent.core.model import Direction, Family
from sgagent.policy_test.packet_bytes import udp

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
ROUNDS = 20 if IS_FULL else 3
"""How often all changes are made."""

KILLS = 30 if IS_FULL else 2
TRIALS = 10 if IS_FULL else 1
CHANGE_SECONDS = 10.0
LEAST_SESSIONS = 500
_TRANSACTIONS = 3
"""Of a change."""

_ANY_MOMENT_SECONDS = 0.15

_LINKS = ("eth0", "eth1")
_HOST = {Family.IPV4: "10.0.0.11", Family.IPV6: "2001:db8:d::11"}
_FAR = {Family.IPV4: "198.51.100.7", Family.IPV6: "2001:db8:c::7"}
_RULED, _OTHER, _CLOSED, _BY_DEFAULT = 80, 81, 82, 99
_SOURCE_PORTS = range(20_000, 20_024)
_PAUSE = 0.01
_ETHER_TYPES = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}

_QUIET = """
table inet testquiet {
    chain out { type filter hook output priority -500; policy accept; meta l4proto icmpv6 drop; }
}
"""
"""What stacks say by themselves would be judged too."""

_SUMMED = ("sgagent_rule_packets_total", "sgagent_default_packets_total")

Series = tuple[str, frozenset[tuple[str, str]]]
"""The name of a metric and its labels."""


@dataclass(frozen=True, slots=True)
class Definitions:
    """The definitions in force: the rules of two groups, and the groups of two links."""

    rules: Mapping[str, Mapping[str, tuple[str, int]]]
    """By group and rule: policy and port."""

    bound: Mapping[str, Sequence[str]]
    """By link: groups. A link that is left out is not judged."""

    def document(self) -> str:
        """Return the definitions as a native document."""
        return json.dumps(
            {
                "version": 1,
                "security_groups": [
                    {"security_group_id": group, "type": "advanced", "rules": list(_rules(rules))}
                    for group, rules in self.rules.items()
                ],
                "network_interfaces": [
                    {
                        "network_interface_id": f"eni-{link}",
                        "mac_address": HOST_MAC % _LINKS.index(link),
                        "addresses": list(_HOST.values()) if link == "eth0" else ["10.0.1.11"],
                        "security_group_ids": list(groups),
                    }
                    for link, groups in self.bound.items()
                ],
            }
        )

    def without(self, group: str, rule: str) -> Definitions:
        """Return the definitions without a rule."""
        return self._with(group, {name: one for name, one in self.rules[group].items() if name != rule})

    def with_rule(self, group: str, rule: str, policy: str, port: int) -> Definitions:
        """Return the definitions with a rule more, or another one."""
        return self._with(group, {**self.rules[group], rule: (policy, port)})

    def bind(self, link: str, *groups: str) -> Definitions:
        """Return the definitions with other groups of a link; without any the link is not judged."""
        bound = {name: ids for name, ids in self.bound.items() if name != link}
        return Definitions(self.rules, {**bound, link: groups} if groups else bound)

    def dropping(self) -> Definitions:
        """Return the definitions with rules that all drop."""
        rules = {
            group: {name: ("drop", port) for name, (_, port) in some.items()}
            for group, some in self.rules.items()
        }
        return Definitions(rules, self.bound)

    def _with(self, group: str, rules: Mapping[str, tuple[str, int]]) -> Definitions:
        return Definitions({**self.rules, group: rules}, self.bound)


def _rules(rules: Mapping[str, tuple[str, int]]) -> Iterator[Mapping[str, object]]:
    for name, (policy, port) in rules.items():
        for direction, family in itertools.product(Direction, Family):
            yield {
                "rule_id": f"{name}-{direction.value}-{family.value}",
                "direction": direction.value,
                "policy": policy,
                "priority": 1,
                "protocol": "udp",
                "port_range": port,
                "authorization_object": "0.0.0.0/0" if family is Family.IPV4 else "::/0",
            }


WHOLE = Definitions(
    rules={
        "sg-1": {"sgr-web": ("accept", _RULED), "sgr-closed": ("drop", _CLOSED)},
        "sg-2": {"sgr-other": ("accept", _OTHER)},
        "sg-3": {"sgr-shut": ("drop", _RULED)},
    },
    bound={"eth0": ("sg-1", "sg-2"), "eth1": ("sg-3",)},
)

CHANGES: Mapping[str, Definitions] = {
    "a rule goes": WHOLE.without("sg-1", "sgr-web"),
    "a rule gets another id": WHOLE.without("sg-1", "sgr-web").with_rule("sg-1", "sgr-new", "accept", _RULED),
    "a rule drops": WHOLE.with_rule("sg-1", "sgr-web", "drop", _RULED),
    "a rule has another port": WHOLE.with_rule("sg-1", "sgr-web", "accept", _BY_DEFAULT),
    "a group is detached": WHOLE.bind("eth0", "sg-1"),
    "a link has no groups": WHOLE.bind("eth0", "sg-3"),
    "a link leaves": WHOLE.bind("eth1"),
}
"""Each is made of the whole definitions, which come back behind it."""


@dataclass(slots=True)
class Stream:
    """Sends new sessions to and from the host, a few thousand a second, until it is stopped."""

    built: Lab
    watch: Watch
    marks: dict[tuple[str, Direction, Family, int], Mark] = field(default_factory=dict)
    """By link, direction, family and port."""

    _sockets: list[socket.socket] = field(default_factory=list)
    _sender: Sender | None = None

    def __post_init__(self) -> None:
        """Make the packets, and count them from now on."""
        numbers = itertools.count(FIRST_MARK)
        ways = [("eth0", direction) for direction in Direction] + [("eth1", Direction.INGRESS)]
        for (link, direction), family in itertools.product(ways, Family):
            for port in (_RULED, _OTHER, _CLOSED, _BY_DEFAULT):
                mark = Mark(next(numbers), direction, family, is_let_through=False)
                self.marks[link, direction, family, port] = mark
        self.watch.begin(self.marks.values())
        self._sender = Sender("new sessions", shared_processors()[1])

    def begin(self) -> None:
        """Send from now on, and return when each packet was sent once."""
        assert self._sender is not None
        batches = [self._batch(*key) for key in {key[:3]: None for key in self.marks}]
        self._sender.begin(batches, _PAUSE)
        self._sender.wait_for_round()

    def end(self) -> None:
        """Stop sending."""
        assert self._sender is not None
        self._sender.end()

    def close(self) -> None:
        """End the thread and close the sockets."""
        assert self._sender is not None
        self._sender.close()
        for opened in self._sockets:
            opened.close()

    def judged(self) -> int:
        """Return how many sessions were judged by now; nobody may be sending.

        No policy lets anything in by the second link, so what gets past it was not judged.
        """
        counts = self.watch.settled()
        return sum(
            counts[mark].came if link == "eth0" else counts[mark].dropped
            for (link, *_), mark in self.marks.items()
        )

    def dropped(self) -> int:
        """Return how many sessions were dropped by now; nobody may be sending."""
        return sum(count.dropped for count in self.watch.settled().values())

    def came(self) -> int:
        """Return how many packets came to the hooks of the agent by now."""
        return sum(count.came for count in self.watch.counts().values())

    def _batch(self, link: str, direction: Direction, family: Family) -> Batch:
        """Return the packets of one way, the ports mixed."""
        marks = [
            (key[3], mark.number) for key, mark in self.marks.items() if key[:3] == (link, direction, family)
        ]
        far, near = ip_address(_FAR[family]), ip_address(_HOST[family])
        is_sent_by_host = direction is Direction.EGRESS
        ends = (near, far) if is_sent_by_host else (far, near)
        packets = [
            datagram
            for source_port, (port, number) in itertools.product(_SOURCE_PORTS, marks)
            for datagram in udp(*ends, source_port, port).datagrams(number)
        ]
        if is_sent_by_host:
            kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
            opened = self.built.host.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW)
            opened.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
            addresses = [socket_address(str(far))] * len(packets)
        else:
            opened = self.built.peer.socket(socket.AF_PACKET, socket.SOCK_RAW)
            opened.bind((link, 0))
            macs = (HOST_MAC % _LINKS.index(link) + TEST_MAC).replace(":", "")
            ether = bytes.fromhex(macs) + struct.pack("!H", _ETHER_TYPES[family])
            packets = [ether + packet for packet in packets]
            addresses = [b""] * len(packets)
        self._sockets.append(opened)
        return Batch(opened, packets, addresses)


@dataclass(slots=True)
class Ledger:
    """An agent's counts, over all series that there ever were."""

    agent: Service
    values: dict[Series, float] = field(default_factory=dict)
    """What each series said last."""

    def poll(self) -> None:
        """Read all series that there are now; none of them may have gone back."""
        for family in self.agent.families().values():
            for sample in family.samples:
                if sample.name in _SUMMED:
                    series = (sample.name, frozenset(sample.labels.items()))
                    assert sample.value >= self.values.get(series, 0), f"{series} went back"
                    self.values[series] = sample.value

    @property
    def total(self) -> int:
        """Return the sum of all series."""
        return int(sum(self.values.values()))


@dataclass(slots=True)
class Bench:
    """An agent whose definitions change while new sessions come."""

    agent: Service
    stream: Stream
    ledger: Ledger
    defined: Definitions = WHOLE

    def start(self) -> None:
        """Start the agent on any processor; then keep it off the one that sends."""
        for_changes, others = shared_processors()
        with on_processors(for_changes | others):
            self.agent.start()
        for pid in (self.agent.pid, self.agent.applier_pid):
            os.sched_setaffinity(pid, for_changes)

    def define(self, definitions: Definitions) -> None:
        """Have definitions enforced, and return when that is done."""
        if definitions == self.defined:
            return
        count = len(self.agent.events("ruleset_applied"))
        self.write(definitions)
        self.agent.reload()
        self.agent.wait_for_event("ruleset_applied", count + 1, CHANGE_SECONDS)

    def write(self, definitions: Definitions) -> None:
        """Write definitions."""
        self.agent.define(definitions.document())
        self.defined = definitions

    def kill_in_change(self, definitions: Definitions, transactions: int) -> None:
        """Kill the agent when it has carried out so many transactions of a change."""
        with contextlib.closing(RulesetEvents(self.agent)) as events:
            self.write(definitions)
            self.agent.reload()
            events.wait_for(transactions, _ANY_MOMENT_SECONDS)
            self.agent.kill()

    def settle(self, *names: str) -> None:
        """Stop sending, and have each rule of some changes back once, so that all series are seen."""
        self.stream.end()
        for definitions in (*(CHANGES[name] for name in names), WHOLE):
            self.define(definitions)
            self.ledger.poll()


@contextlib.contextmanager
def _stream_on(built: Lab) -> Iterator[Stream]:
    with watching(built) as watch, contextlib.closing(Stream(built, watch)) as made:
        yield made


@pytest.fixture
def fresh_bench(tmp_path: Path) -> Iterator[Bench]:
    """Build a host with two links and an agent that is not started and has no definitions."""
    with lab(*_LINKS) as built:
        for namespace in (built.host, built.peer):
            namespace.nft("-f", "-", stdin=_QUIET)
        built.add_host_addresses(_HOST.values())
        with service_on(built.host, tmp_path) as agent, _stream_on(built) as stream:
            yield Bench(agent, stream, Ledger(agent))


@pytest.fixture
def bench(fresh_bench: Bench) -> Bench:
    """Have an agent enforce the whole definitions."""
    fresh_bench.write(WHOLE)
    fresh_bench.start()
    return fresh_bench


@pytest.mark.long
def test_each_session_is_counted_over_all_changes(bench: Bench) -> None:
    """Rules go, come back, are renamed, change policy and port; a group is detached, a link leaves."""
    bench.stream.begin()
    for _, definitions in itertools.product(range(ROUNDS), CHANGES.values()):
        bench.define(definitions)
        bench.define(WHOLE)
    bench.settle(*CHANGES)
    assert bench.ledger.total == bench.stream.judged()


@pytest.mark.long
def test_a_death_in_a_change_loses_no_session(bench: Bench) -> None:
    """The agent is killed between two transactions of a change, and the next one goes on counting."""
    random = Random(11)
    bench.stream.begin()
    for _ in range(KILLS):
        definitions = random.choice([*CHANGES.values()])
        for wanted in (definitions, WHOLE):
            bench.kill_in_change(wanted, random.randint(1, _TRANSACTIONS))
            bench.start()
    bench.settle(*CHANGES)
    assert bench.ledger.total == bench.stream.judged()


@pytest.mark.long
@pytest.mark.parametrize("end", (Service.stop, Service.kill), ids=("stopped", "killed"))
@pytest.mark.parametrize("name", CHANGES if IS_FULL else ("a rule goes", "a link leaves"))
def test_no_count_is_lost_without_an_agent(bench: Bench, name: str, end: Callable[[Service], object]) -> None:
    """Definitions change while no agent runs; the next one reads the counters that it removes."""
    bench.stream.begin()
    end(bench.agent)
    before = bench.stream.came()
    wait_for(lambda: bench.stream.came() > before + LEAST_SESSIONS, "sessions to come")
    bench.write(CHANGES[name])
    bench.start()
    bench.settle(name)
    assert bench.ledger.total == bench.stream.judged()


def test_each_session_is_counted_in_observe_mode(bench: Bench) -> None:
    """Nothing is dropped, everything is judged and counted, when a mode changes too."""
    bench.stream.begin()
    for mode in ("observe", "default"):
        assert bench.agent.command("mode", mode).status == 0
        bench.define(CHANGES["a rule goes"])
        bench.define(WHOLE)
    bench.settle("a rule goes")
    assert bench.ledger.total == bench.stream.came()


def test_a_trial_that_ends_without_a_table_loses_no_session(fresh_bench: Bench) -> None:
    """Nothing was enforced before the trial, so the table goes with it; the next one goes on counting."""
    bench, trial = fresh_bench, WHOLE.dropping()
    document = bench.agent.directory / "trial.json"
    document.write_text(trial.document())
    bench.start()
    bench.stream.begin()
    for _ in range(TRIALS):
        ended = bench.agent.command("apply", str(document), "--confirm-within", "1s")
        assert ended.status == 0, ended.errors
        wait_for(lambda: "sgagent" not in bench.agent.namespace.nft("list", "tables"), "the trial to end")
    bench.stream.end()
    bench.define(trial)
    bench.ledger.poll()
    assert bench.ledger.total == bench.stream.dropped() > TRIALS * LEAST_SESSIONS
