"""Hits go on over whatever becomes of the table, the agent and the rules, and metrics never go back."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, wait_for
from integration.service import Service, definitions, service_on
from sgagent.policy_test.packet_bytes import tcp

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
PORTS = (80, 81, 82)


@dataclass(slots=True)
class History:
    """An agent to which things happen, and what it should have counted."""

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
        """Lose the table while no agent guards it; what was counted was read before."""
        self.look()
        self.agent.stop()
        self.agent.namespace.nft("flush", "ruleset")
        self.agent.start()
        self.send(choice)

    def standing(self) -> frozenset[int]:
        """Return the ports that have a rule in the kernel."""
        table = self.agent.table()
        return frozenset(port for port in PORTS if f"chain rule/eth0/sgr-{port} {{" in table)

    def look(self) -> None:
        """See that a scrape shows what was sent, and less than before for nothing."""
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


@pytest.fixture
def agent(one_interface: Lab, tmp_path: Path) -> Iterator[Service]:
    """Give the host an address, and an agent that is not started yet."""
    one_interface.add_host_addresses([str(HOST)])
    with service_on(one_interface.host, tmp_path) as made:
        yield made


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
        history.look()


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


def test_another_boot_begins_at_zero(agent: Service, one_interface: Lab) -> None:
    """What was kept belongs to the boot in which it was counted."""
    agent.define(policy(frozenset({80})))
    agent.start()
    one_interface.send_ingress([tcp(CLIENT, HOST, 1024, 80)] * 5)
    assert agent.hits("sgr-80") == 5
    agent.stop()
    agent.namespace.nft("flush", "ruleset")
    file = agent.state / "counters.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"boot_id": "11111111-2222-3333-4444-555555555555"}))
    agent.start()
    assert agent.hits("sgr-80") == 0
    assert not agent.events("counters_damaged")
