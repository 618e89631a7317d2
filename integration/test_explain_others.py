"""``explain`` has other tables' verdicts on a packet, and real packets agree (§2)."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from integration.lab import Lab
from integration.namespaces import Namespace
from integration.prepared_agent import agent_with
from integration.service import Service, definitions
from integration.traffic import is_answered

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:7::1"
ENDS = {"IPv4": (CLIENT, HOST), "IPv6": (CLIENT6, HOST6)}
OPEN = definitions(
    *(f"ingress accept 1 tcp 1-65535 from {everyone}" for everyone in ("0.0.0.0/0", "::/0")),
    addresses=f"{HOST}, '{HOST6}'",
)
FIREWALL = """
table inet filter {
    set ports { type inet_service; elements = { 22, 443 } }
    chain services { tcp dport @ports accept; tcp dport 8080 ip saddr 198.51.100.0/24 accept; }
    chain input {
        type filter hook input priority filter; policy drop
        ct state established,related accept
        iifname "lo" accept
        meta l4proto ipv6-icmp accept
        jump services
    }
}
table ip6 early {
    chain raw { type filter hook prerouting priority raw; tcp dport 443 drop; }
}
table ip nat {
    chain prerouting { type nat hook prerouting priority dstnat; tcp dport 7 redirect to :8; }
}
"""

UNREAD = """
table inet f {
    chain input { type filter hook input priority 0; meta cpu 77 drop; }
}
"""


agent = agent_with(OPEN)


def load(host: Namespace, rules: str) -> None:
    """Load a ruleset of others."""
    host.run("nft", "-f", "-", stdin=rules)


def question(family: str, port: int) -> tuple[str, ...]:
    """Return the words that ask about a packet from the client."""
    far, near = ENDS[family]
    ends = ("--source", far, "--destination", near)
    return ("explain", "ingress", *ends, "--protocol", "tcp", "--port", str(port))


def asked(agent: Service, family: str, port: int) -> dict[str, Any]:
    """Return the explanation of a packet from the client."""
    return dict(agent.as_json(*question(family, port)))


def connects(bench: Lab, family: str, port: int) -> bool:
    """Return whether a connection of the client is answered, by a refusal or otherwise."""
    far, near = ENDS[family]
    return is_answered(lambda: bench.connect(bench.peer, (far, 0), (near, port), seconds=0.7))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("family", ENDS)
@pytest.mark.parametrize("port", (22, 80, 443, 8080))
def test_packets_meet_the_tables_it_tells_of(agent: Service, bench: Lab, family: str, port: int) -> None:
    """Verdict by verdict: the policy accepts all of them, the host's own firewall does not."""
    load(bench.host, FIREWALL)
    said = asked(agent, family, port)
    assert (said["verdict"], said["other_tables"]["looked_at"]) == ("accept", True)
    verdict = said["other_tables"]["verdict"]
    assert (verdict == "accept") is connects(bench, family, port)
    assert verdict == ("accept" if connects(bench, family, port) else "drop")


def test_the_chain_that_drops_is_named(agent: Service, bench: Lab) -> None:
    """In words, with the hook; behind a drop nothing is listed, and unread chains are named."""
    assert "then" not in agent.command(*question("IPv4", 80)).output
    load(bench.host, FIREWALL)
    told = agent.command(*question("IPv4", 80)).output
    assert "then inet filter input (hook input, priority 0) drops it, by its policy\n" in told
    assert "not read: chain ip nat prerouting" in told
    told = agent.command(*question("IPv6", 443)).output
    assert "before that, ip6 early raw (hook prerouting, priority -300) drops it\n" in told
    assert "inet filter input" not in told
    told = agent.command(*question("IPv4", 22)).output
    assert "then inet filter input (hook input, priority 0) accepts it, in inet filter services" in told


def test_rules_that_are_not_understood_are_not_guessed(agent: Service, bench: Lab) -> None:
    """The verdict is not known then; the chain's unread condition is named."""
    load(bench.host, UNREAD)
    others = asked(agent, "IPv4", 80)["other_tables"]
    (chain,) = others["chains"]
    assert (others["verdict"], chain["verdict"], "cpu" in chain["unread"]) == (None, None, True)
    assert "its verdict is not known" in agent.command(*question("IPv4", 80)).output


@pytest.mark.parametrize(
    ("rule", "verdict", "passes"),
    (
        ("tcp flags & (fin|syn|rst|ack) == syn drop", "drop", False),
        ("tcp dport 80 limit rate over 10/minute burst 5 packets drop", None, True),
        ("ct mark & 0xffff0000 != 0 drop", None, False),
    ),
)
def test_what_the_question_does_not_say_is_not_guessed(
    agent: Service, bench: Lab, rule: str, verdict: str | None, *, passes: bool
) -> None:
    """The first segment has SYN alone; our own bits of the mark, and limits, leave the verdict open."""
    load(bench.host, UNREAD.replace("meta cpu 77 drop", rule))
    assert asked(agent, "IPv4", 80)["other_tables"]["verdict"] == verdict
    assert connects(bench, "IPv4", 80) is passes


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_without_privilege_it_says_that_it_did_not_look(agent: Service, bench: Lab) -> None:
    """The verdict of the policy is there all the same."""
    load(bench.host, FIREWALL)
    through = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--securebits=+noroot", "--")
    explained = agent.command(*question("IPv4", 80), "--json", through=through)
    said = json.loads(explained.output)
    assert said["verdict"] == "accept"
    assert said["other_tables"]["looked_at"] is False
    assert "root" in said["other_tables"]["reason"]


def test_what_sgagent_drops_comes_to_no_other_table(agent: Service, bench: Lab) -> None:
    """So only the tables before it are listed; and nothing where bindings by hand mean another host."""
    load(bench.host, FIREWALL)
    agent.define(definitions(addresses=HOST))
    agent.wait_for_event("ruleset_applied", 2)
    dropped = asked(agent, "IPv4", 22)
    assert (dropped["verdict"], dropped["other_tables"]["chains"]) == ("drop", [])
    by_hand = agent.command(*question("IPv4", 22), "--interface", "eth0=sg-1", "--json")
    assert "other_tables" not in json.loads(by_hand.output)
