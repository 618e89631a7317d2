"""Hits go on over whatever becomes of the table, the agent and the rules, and metrics never go back."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from integration.lab import Lab, wait_for
from integration.service import Service, definitions
from sgagent.nft.transactions import RESET_WATCH
from sgagent.policy_test.packet_bytes import tcp

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
PORTS = (80, 81, 82)


@dataclass(slots=True)
class History:
    """An agent to which things happen, and the counts that it should have."""

    agent: Service
    lab: Lab
    rules: frozenset[int] = frozenset(PORTS)
    """The ports that have a rule now."""

    sent: Counter[int | None] = field(default_factory=Counter)
    """Sessions by the port whose rule decides, or None for the default."""

    shown: dict[str, float] = field(default_factory=dict)
    """What the last scrape showed, by rule."""

    def send(self, choice: random.Random) -> None:
        """Send first packets of sessions to some ports."""
        ports = [choice.choice((*PORTS, 99)) for _ in range(choice.randint(1, 20))]
        self.lab.send_ingress([tcp(CLIENT, HOST, 1024, port) for port in ports])
        self.sent.update(port if port in self.rules else None for port in ports)

    def define(self, choice: random.Random) -> None:
        """Have another choice of rules enforced."""
        rules = frozenset(port for port in PORTS if choice.random() < 0.6)
        self.agent.define(policy(rules))
        wait_for(lambda: self.standing() == rules, f"the rules {rules}")
        self.rules = rules

    def define_and_kill(self, choice: random.Random) -> None:
        """Kill the agent while it may be about to apply another choice of rules, and start it again."""
        rules = frozenset(port for port in PORTS if choice.random() < 0.6)
        self.agent.define(policy(rules))
        looks = choice.randint(0, 60)
        for _ in range(looks):
            self.standing()
        self.agent.kill()
        self.agent.start()
        wait_for(lambda: self.standing() == rules, f"the rules {rules}")
        self.rules = rules

    def kill(self, choice: random.Random) -> None:
        """Kill the agent, let traffic pass without it, and start it again."""
        self.agent.kill()
        self.send(choice)
        self.agent.start()

    def restart(self, choice: random.Random) -> None:
        """Stop the agent, let traffic pass without it, and start it again."""
        self.agent.stop()
        self.send(choice)
        self.agent.start()

    def reload(self, _choice: random.Random) -> None:
        """Ask for a reload."""
        self.agent.reload()

    def flush(self, choice: random.Random) -> None:
        """Lose the table while no agent guards it; its counters were read before."""
        self.poll()
        self.agent.stop()
        self.agent.namespace.nft("flush", "ruleset")
        self.agent.start()
        self.send(choice)

    def standing(self) -> frozenset[int]:
        """Return the ports that have a rule in the kernel."""
        table = self.agent.table()
        return frozenset(port for port in PORTS if f"counter rule/eth0/sgr-{port} {{" in table)

    def poll(self) -> None:
        """Check that a scrape shows the sent packets, and no less than before."""
        family = self.agent.families().get("sgagent_rule_packets")  # not there without any rule
        hits = {sample.labels["rule_id"]: sample.value for sample in (family.samples if family else ())}
        for rule, value in hits.items():
            assert value >= self.shown.get(rule, 0), f"{rule} went back"
        self.shown |= hits
        assert hits == {f"sgr-{port}": self.sent[port] for port in self.rules}
        default = self.agent.metric(
            "sgagent_default_packets_total", interface="eth0", direction="ingress", verdict="drop"
        )
        assert default == self.sent[None]


def policy(ports: frozenset[int]) -> str:
    """Return definitions with a rule for each port, and one that stays."""
    text = definitions(*(f"ingress accept 1 tcp {port} from 0.0.0.0/0" for port in sorted(ports)))
    for number, port in enumerate(sorted(ports)):
        text = text.replace(f"sgr-{number}}}", f"sgr-{port}}}").replace(f"sgr-{number},", f"sgr-{port},")
    return text


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "steps"), ((1, 10), pytest.param(2, 150, marks=pytest.mark.long)), ids=("short", "long")
)
def test_hits_survive_whatever_happens(agent: Service, one_interface: Lab, seed: int, steps: int) -> None:
    """Applies, kills in the middle of them, restarts, reloads, and a table that was lost, in any order."""
    choice = random.Random(seed)
    history = History(agent, one_interface)
    agent.define(policy(history.rules))
    agent.start()
    happenings: tuple[Callable[[random.Random], None], ...] = (
        history.send,
        history.define,
        history.define_and_kill,
        history.kill,
        history.restart,
        history.reload,
        history.flush,
    )
    for _ in range(steps):
        choice.choice(happenings)(choice)
        history.send(choice)
        history.poll()


def test_a_table_that_counts_more_than_the_lost_one_did(agent: Service, one_interface: Lab) -> None:
    """Nothing is taken for counted already that a table made anew counted from zero."""
    agent.define(policy(frozenset({80})))
    agent.start()
    lab = one_interface
    lab.send_ingress([tcp(CLIENT, HOST, 1024, 80)] * 5)
    assert agent.hits("sgr-80") == 5
    agent.kill()
    agent.namespace.nft("flush", "ruleset")
    agent.start()
    lab.send_ingress([tcp(CLIENT, HOST, 1024, 80)] * 9)
    assert agent.hits("sgr-80") == 14


@pytest.fixture
def counting(agent: Service) -> Service:
    """Start the agent with a rule for each port, and wait until it watches for resets."""
    agent.define(policy(frozenset(PORTS)))
    agent.start()
    wait_for(lambda: counter(agent, RESET_WATCH) == 1, "the watch on resets")
    return agent


def counter(agent: Service, name: str) -> int | None:
    """Return the packets of a counter in the kernel."""
    listed = json.loads(agent.namespace.nft("-j", "list", "counters", "table", "inet", "sgagent"))["nftables"]
    found = {one["counter"]["name"]: one["counter"]["packets"] for one in listed if "counter" in one}
    return found.get(name)


RESETS = (
    ("reset", "counters"),
    ("reset", "counters", "table", "inet", "sgagent"),
    ("reset", "counter", "inet", "sgagent", "rule/eth0/sgr-80"),
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("command", RESETS, ids=" ".join)
@pytest.mark.parametrize("later", (3, 30))
def test_a_foreign_reset_is_noticed_and_counting_goes_on(
    counting: Service, one_interface: Lab, command: tuple[str, ...], later: int
) -> None:
    """Whether fewer or more sessions come after it than before; of one counter alone, only if fewer do."""
    send(one_interface, 80, 20)
    wait_for(lambda: counting.hits("sgr-80") == 20, "the hits before")
    counting.namespace.nft(*command)
    send(one_interface, 80, later)
    send(one_interface, 81, 4)
    is_noticed = "counter" not in command or later < 20
    wait_for(lambda: counting.hits("sgr-81") == 4, "the other hits")
    assert counting.hits("sgr-80") == (20 + later if is_noticed else later)
    assert counting.metric("sgagent_counters_reset_total") == is_noticed
    told = "another process reset them 1 time since the agent started" in counting.command("status").output
    assert told == is_noticed
    assert len(counting.events("counters_reset")) == is_noticed
    send(one_interface, 80, 5)
    wait_for(lambda: counting.hits("sgr-80") == (25 + later if is_noticed else later + 5), "the hits after")
    assert counting.metric("sgagent_counters_reset_total") == is_noticed
    assert counting.events("drift_repaired") == []


def test_resets_without_end_lose_only_what_they_reset(counting: Service, one_interface: Lab) -> None:
    """Each look finds one; totals never go back, none is more than was sent, and the log is not flooded."""
    sent, shown = 0, 0.0
    for _ in range(20):
        send(one_interface, 80, 7)
        sent += 7
        counting.namespace.nft("reset", "counters")
        send(one_interface, 80, 2)
        sent += 2
        hits = counting.hits("sgr-80") or 0.0
        assert shown <= hits <= sent
        shown = hits
    wait_for(lambda: counter(counting, RESET_WATCH) == 1, "the watch on resets")
    assert shown >= 2 * 20, "what came after each reset counts"
    noticed = counting.metric("sgagent_counters_reset_total") or 0.0
    assert 2 <= noticed <= 20
    assert len(counting.events("counters_reset")) == 1


def test_resets_of_rules_take_nothing(counting: Service, one_interface: Lab) -> None:
    """They are of counters within rules, and ours have names."""
    send(one_interface, 80, 20)
    counting.namespace.nft("reset", "rules")
    send(one_interface, 80, 3)
    wait_for(lambda: counting.hits("sgr-80") == 23, "all hits")
    assert counting.metric("sgagent_counters_reset_total") == 0


def test_a_reset_while_no_agent_runs_is_noticed_at_the_start(counting: Service, one_interface: Lab) -> None:
    """Packets counted before the agent stopped, and after the reset, are in the total."""
    send(one_interface, 80, 20)
    assert counting.stop() == 0
    counting.namespace.nft("reset", "counters")
    send(one_interface, 80, 30)
    counting.start()
    wait_for(lambda: counting.hits("sgr-80") == 50, "all hits")
    assert counting.metric("sgagent_counters_reset_total") == 1


def send(lab: Lab, port: int, count: int) -> None:
    """Send first packets of sessions to a port."""
    lab.send_ingress([tcp(CLIENT, HOST, next(_SOURCE_PORTS), port) for _ in range(count)])


_SOURCE_PORTS = itertools.cycle(range(1025, 60000))
