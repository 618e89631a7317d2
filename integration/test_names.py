"""Names of rules on a real host with a real agent, with the usual faults of name servers (§12.3)."""

from __future__ import annotations

import ipaddress
import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.rcode
import pytest

from integration.control_client import query
from integration.lab import Lab, wait_for
from integration.nameservers import DNS, SERVER, on_the_wire
from integration.prepared_agent import agent_with
from integration.service import NOTICED_SECONDS, Service, definitions
from integration.traffic import traffic
from sgagent.agent.clock import SystemClock
from sgagent.policy_test.packet_bytes import tcp, udp
from tests.nameserver import Behaviour, NameServer, addresses, failing
from tests.patience import PATIENCE

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
NAME = "mirror.example.org"
A, B, C = "192.0.2.80", "192.0.2.81", "192.0.2.82"
A6 = "2001:db8:8::80"
RESOLVED_SECONDS = 4.0
"""Within which a first answer is enforced: the loop takes answers in once a second."""

TTL_SECONDS = 5.0
WATCH_SECONDS = 0.6


@pytest.fixture
def server(one_interface: Lab) -> Iterator[NameServer]:
    """Serve names beyond the wire."""
    made = NameServer()
    with on_the_wire(one_interface, made):
        yield made


def policy(*more: str) -> str:
    """Return definitions of rules on egress to the name, and more."""
    rules = (f"egress accept 1 tcp 443 to dns:{NAME}", *more, "egress drop 100 all -1/-1 to 0.0.0.0/0")
    rules = (*rules, "egress drop 100 all -1/-1 to ::/0")
    return definitions(*rules, addresses=f"{HOST}, '{HOST6}'")


agent = agent_with(policy(), DNS, is_started=False)


def leaves(lab: Lab, address: str, port: int = 443) -> bool:
    """Return whether the first packet of a session gets out."""
    to = ipaddress.ip_address(address)
    packet = (udp if port == 53 else tcp)(
        ipaddress.ip_address(HOST if to.version == 4 else HOST6), to, 1024, port
    )
    return lab.send_egress([packet])[0]


def wait_until_it_leaves(lab: Lab, agent: Service, address: str, seconds: float = RESOLVED_SECONDS) -> float:
    """Wait until the table has an address, and return how long that took; then sessions to it get out.

    A look at packets keeps all others from the host, answers of name servers among them. A change has several
    transactions, and the address is in the table with the first.
    """
    listed = f"{address} "
    took = wait_for(lambda: listed in agent.table(), f"{address} to be in the table", seconds)
    wait_for(lambda: leaves(lab, address), f"sessions to {address} to get out", NOTICED_SECONDS)
    return took


def status(agent: Service) -> list[dict[str, object]]:
    """Return the names in the agent's status."""
    names: list[dict[str, object]] = query(agent, question="status")["answer"]["names"]
    return names


def wait_for_status(agent: Service, **wanted: object) -> None:
    """Wait until the agent says this of its name; it does once the step that enforced it has ended."""
    wait_for(lambda: wanted.items() <= status(agent)[0].items(), f"the status {wanted}", NOTICED_SECONDS)


def skeleton(agent: Service) -> str:
    """Return the table without the elements of its maps and the values of its counters."""
    listing = json.loads(agent.namespace.nft("-j", "list", "table", "inet", "sgagent"))
    kept = []
    for item in listing["nftables"]:
        ((kind, value),) = item.items()
        if kind in ("chain", "rule", "map"):
            kept.append((kind, {k: v for k, v in value.items() if k not in ("elem", "handle")}))
    return json.dumps(kept, sort_keys=True)


def test_only_resolved_addresses_are_let_out(agent: Service, one_interface: Lab, server: NameServer) -> None:
    """Of both families; the name servers are let through by themselves."""
    server.zone[NAME] = addresses(A, A6, ttl=60)
    agent.start()
    took = wait_until_it_leaves(one_interface, agent, A)
    assert leaves(one_interface, A6)
    assert not leaves(one_interface, B)
    assert leaves(one_interface, SERVER, 53)
    assert not leaves(one_interface, A, 80)
    wait_for_status(agent, name=NAME, state="resolved", addresses=[A, A6])
    assert len(status(agent)) == 1
    assert agent.metric("sgagent_dns_names", state="resolved") == 1
    assert agent.metric("sgagent_dns_failures_total") == 0
    assert agent.metric("sgagent_unknown_objects") == 0
    print(f"enforced {took:.2f} s after the start")


@pytest.fixture
def hosts(one_interface: Lab, tmp_path: Path) -> Iterator[Hosts]:
    """Run Debian's dnsmasq beyond the wire, if it is installed."""
    program = shutil.which("dnsmasq")
    if program is None:
        pytest.skip("dnsmasq is not installed (script/setup --development)")
    one_interface.peer.ip(f"address replace {SERVER}/32 dev eth0")
    file = tmp_path / "hosts"
    file.write_text("")
    options = (
        *("--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"),
        *("--pid-file", f"--listen-address={SERVER}", "--bind-interfaces", "--local-ttl=5"),
        *(f"--addn-hosts={file}", f"--cname={NAME},a.example.org", "--cname=a.example.org,b.example.org"),
    )
    command = ["ip", "netns", "exec", one_interface.peer.name, program, *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield Hosts(file, process)
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Hosts:
    """The names that dnsmasq knows."""

    file: Path
    process: subprocess.Popen[bytes]

    def write(self, *found: str) -> None:
        """Give the end of the chain these addresses."""
        self.file.write_text("".join(f"{address} b.example.org\n" for address in found))
        self.process.send_signal(signal.SIGHUP)


@pytest.mark.long
def test_a_common_server_is_followed_by_cnames(agent: Service, one_interface: Lab, hosts: Hosts) -> None:
    """Its file changes, its names go, it ends."""
    agent.start()
    hosts.write(A, A6)
    wait_until_it_leaves(one_interface, agent, A, TTL_SECONDS + RESOLVED_SECONDS)
    assert leaves(one_interface, A6)
    hosts.write(B)
    wait_until_it_leaves(one_interface, agent, B, TTL_SECONDS + RESOLVED_SECONDS)
    assert leaves(one_interface, A), "for ten minutes"
    hosts.process.terminate()
    wait_for(lambda: status(agent)[0]["state"] == "stale", "the old answer", 30.0)
    assert leaves(one_interface, B)


def test_a_changed_answer_changes_elements(agent: Service, one_interface: Lab, server: NameServer) -> None:
    """Chains, rules and the generation stay; the old address passes on."""
    server.zone[NAME] = addresses(A, ttl=5)
    agent.start()
    wait_until_it_leaves(one_interface, agent, A)
    before, generation = skeleton(agent), agent.generation()
    server.zone[NAME] = addresses(B, ttl=5)
    took = wait_until_it_leaves(one_interface, agent, B, TTL_SECONDS + RESOLVED_SECONDS)
    assert leaves(one_interface, A)
    assert (skeleton(agent), agent.generation()) == (before, generation)
    print(f"enforced {took:.2f} s after the change")


def test_sessions_outlive_a_changed_answer(agent: Service, one_interface: Lab, server: NameServer) -> None:
    """No packet of theirs is lost; a session to the new address opens beside them."""
    server.zone[NAME] = addresses(A, A6, ttl=5)
    agent.start()
    wait_until_it_leaves(one_interface, agent, A)
    with traffic(one_interface) as busy:
        host, peer = one_interface.host, one_interface.peer
        busy.open("old", host, HOST, peer, (A, 443))
        busy.open("old over IPv6", host, HOST6, peer, (A6, 443))
        with busy.running():
            busy.wait_until_all_talk()
            server.zone[NAME] = addresses(B, ttl=5)
            wait_for(lambda: f"{B} " in agent.table(), "the new address", TTL_SECONDS + RESOLVED_SECONDS)
            assert not busy.silent_since(time.perf_counter(), WATCH_SECONDS)
            busy.settle({"old", "old over IPv6"})
    assert leaves(one_interface, B)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "broken",
    (
        pytest.param(failing(dns.rcode.SERVFAIL), id="SERVFAIL"),
        pytest.param(lambda _query, _is_tcp: None, id="silence"),
        pytest.param(lambda _query, _is_tcp: b"\0" * 12, id="garbage"),
        pytest.param(addresses(cnames=["a.example.org", NAME]), id="CNAME loop"),
        pytest.param(addresses(B, cnames=[f"c{n}.example.org" for n in range(9)]), id="nine CNAMEs"),
    ),
)
def test_a_server_that_breaks_changes_nothing(
    agent: Service, one_interface: Lab, server: NameServer, broken: Behaviour
) -> None:
    """The answers of before count on, and the status says that they are old."""
    server.zone[NAME] = addresses(A, ttl=5)
    agent.start()
    wait_until_it_leaves(one_interface, agent, A)
    server.zone[NAME] = broken
    wait_for(lambda: (agent.metric("sgagent_dns_failures_total") or 0) >= 1, "a failure", 30.0)
    assert leaves(one_interface, A)
    assert not leaves(one_interface, B)
    wait_for(lambda: status(agent)[0]["state"] == "stale", "the old answer", 2 * TTL_SECONDS)
    assert status(agent)[0]["fault"]
    server.zone[NAME] = addresses(B, ttl=5)
    wait_until_it_leaves(one_interface, agent, B, 40.0)


def test_a_slow_server_delays_no_other_change(agent: Service, one_interface: Lab, server: NameServer) -> None:
    """Its answers take 1.5 s each; meanwhile documents are enforced as ever."""

    def behave(query: dns.message.QueryMessage, is_tcp: bool) -> bytes | None:  # noqa: FBT001 - the type's
        threading.Event().wait(1.5)
        return addresses(A, ttl=5)(query, is_tcp)

    server.zone[NAME] = behave
    agent.start()
    agent.define(policy(f"egress accept 1 tcp 443 to {C}"))
    took = wait_until_it_leaves(one_interface, agent, C, NOTICED_SECONDS)
    assert took < NOTICED_SECONDS * PATIENCE
    wait_until_it_leaves(one_interface, agent, A, 3.0 + RESOLVED_SECONDS)


def test_the_ad_bit_shows_in_the_status(agent: Service, one_interface: Lab, server: NameServer) -> None:
    """As the name server says it."""
    server.zone[NAME] = addresses(A, A6, is_authenticated=True)
    agent.start()
    wait_until_it_leaves(one_interface, agent, A)
    wait_for_status(agent, is_authenticated=True)
    assert "DNSSEC" in agent.command("status").output


def test_without_a_server_the_agent_starts_and_waits(
    agent: Service, one_interface: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rules are enforced at once, the name matches nothing; a server that comes up is found."""
    began = time.monotonic()
    agent.start()
    started = time.monotonic() - began
    assert not leaves(one_interface, A)
    assert agent.metric("sgagent_dns_names", state="unresolved") == 1
    server = NameServer({NAME: addresses(A)})
    with on_the_wire(one_interface, server):
        took = wait_until_it_leaves(one_interface, agent, A, 60.0)
    with capsys.disabled():
        print(f"\n  started in {started:.2f} s without a name server; enforced {took:.2f} s after it came up")


@pytest.mark.long
def test_what_is_known_survives_boots_without_a_server(agent: Service, one_interface: Lab) -> None:
    """``sgagent boot`` has it in force before the network is up; a wrong clock changes nothing."""
    with on_the_wire(one_interface, NameServer({NAME: addresses(A, ttl=5)})):
        agent.start()
        wait_until_it_leaves(one_interface, agent, A)
    agent.stop()
    agent.start()
    assert leaves(one_interface, A)
    agent.kill()
    agent.namespace.nft("delete", "table", "inet", "sgagent")
    assert agent.command("boot").status == 0
    assert leaves(one_interface, A)
    assert not leaves(one_interface, B)


@pytest.mark.long
def test_proofs_and_explain_use_what_is_known(agent: Service, one_interface: Lab, server: NameServer) -> None:
    """``verify`` and ``explain`` ask nobody: they take the agent's addresses."""
    server.zone[NAME] = addresses(A, A6, ttl=3600)
    agent.start()
    wait_until_it_leaves(one_interface, agent, A)
    asked = len(server.asked)
    assert agent.command("verify").status == 0
    for address, verdict in ((A, "accept"), (B, "drop")):
        words = ("egress", "--source", HOST, "--destination", address, "--protocol", "tcp", "--port", "443")
        for documents in ((), ("--definitions", str(agent.documents))):
            answer = agent.as_json("explain", *words, *documents)
            assert answer["verdict"] == verdict
    dns_question = ("egress", "--source", HOST, "--destination", SERVER, "--protocol", "udp", "--port", "53")
    answer = agent.as_json("explain", *dns_question)
    assert (answer["verdict"], answer["decided_by"]) == ("accept", "failsafe")
    assert len(server.asked) == asked


@pytest.mark.long
def test_commands_ask_where_no_agent_knows(agent: Service, one_interface: Lab, server: NameServer) -> None:
    """Within five seconds in all, also to prove a compiled table; ``--no-dns`` asks nobody."""
    server.zone[NAME] = addresses(A)
    arguments = ("compile", "--dry-run", "--interface", "eth0=sg-1")
    asked = agent.command(*arguments)
    assert asked.status == 0
    assert A in asked.output
    ruleset = agent.directory / "ruleset.nft"
    ruleset.write_text(asked.output)
    proof = ("verify", "--ruleset", str(ruleset), "--interface", "eth0=sg-1")
    assert agent.command(*proof).status == 0
    count = len(server.asked)
    assert agent.command(*proof, "--no-dns").status == 1
    silent = agent.command(*arguments, "--no-dns")
    assert silent.status == 0
    assert A not in silent.output
    assert "matches nothing" in silent.errors
    assert len(server.asked) == count
    server.is_silent = True
    began = SystemClock().monotonic()
    late = agent.command(*arguments)
    took = SystemClock().monotonic() - began
    assert "matches nothing" in late.errors
    assert 5.0 <= took < 5.0 + 3.0 * PATIENCE
    assert agent.table() == "", "nothing is enforced"
    assert leaves(one_interface, B)
