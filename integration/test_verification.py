"""Proofs of the table in the kernel: by the agent after each change, and by ``sgagent verify``."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
from functools import partial
from pathlib import Path

import pytest

from integration.control_client import status
from integration.lab import Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import Service, definitions, is_alive, process_name, service_on
from sgagent.netlink import ACK, NESTED, NETLINK_NETFILTER, REQUEST, attribute, messages_in

HOST = "10.0.0.11"
WEB = definitions("ingress accept 1 tcp 80 from 0.0.0.0/0")
WEB_AND_SSH = definitions(
    "ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress accept 1 tcp 22 from 198.51.100.0/24"
)
CLOSED = """
[enforcement]
fail_closed = true

[[interface]]
name = "eth0"
security_group_ids = ["sg-1"]
"""
PROOF_SECONDS = 60.0


agent = agent_with(WEB, verifies=True)


def proofs(agent: Service) -> float:
    """Return how many proofs the agent has made."""
    return agent.metric("sgagent_verify_duration_seconds_count") or 0.0


def wait_for_proofs(agent: Service, count: int) -> None:
    """Wait until so many proofs were made, and the newest one found the table right."""
    wait_for(lambda: proofs(agent) >= count, f"proof {count}", PROOF_SECONDS)
    assert agent.metric("sgagent_verified", outcome="proved") == 1


def prover_pid(agent: Service) -> int:
    """Return the process that proves."""
    (pid,) = (pid for pid in agent.process_ids if process_name(pid) == "sgagent-prover")
    return pid


def test_each_change_is_proved(agent: Service) -> None:
    """Once after a quiet moment; the status says so, and of which generation it is."""
    wait_for_proofs(agent, 1)
    agent.define(WEB_AND_SSH)
    agent.wait_for_event("ruleset_applied", 2)
    wait_for_proofs(agent, 2)
    before = agent.metric("sgagent_verified_generation")
    agent.define(WEB)  # takes a right away, so that sessions are judged again
    agent.wait_for_event("ruleset_applied", 3)
    wait_for_proofs(agent, 3)
    after = agent.metric("sgagent_verified_generation")
    assert before is not None
    assert after is not None
    assert after != before
    answer = agent.as_json("status")
    proof = answer["verified"]
    assert (proof["outcome"], proof["version"]) == ("proved", answer["snapshot_version"])
    assert proof["generation"] == after
    assert f"the table does what {proof['version']} says" in agent.command("status").output
    assert agent.events("table_refuted") == []
    assert agent.events("table_not_verified") == []


def test_a_proof_is_of_the_table_in_force_and_no_other(agent: Service) -> None:
    """Through changes, modes and a restart: whoever reads a proof finds the snapshot in force in it."""
    wait_for_proofs(agent, 1)
    found: list[tuple[str | None, str | None]] = []
    for turn in range(3):
        before = status(agent)["snapshot_version"]
        agent.define(WEB_AND_SSH if turn % 2 == 0 else WEB)
        wait_for(partial(_is_seen_in_force, agent, before, found), "another snapshot", PROOF_SECONDS)
        wait_for(lambda: status(agent)["verified"] is not None, "its proof", PROOF_SECONDS)
    assert all(of in (None, version) for version, of in found)
    generation = status(agent)["verified"]["generation"]
    assert agent.command("mode", "observe").status == 0
    assert status(agent)["verified"] is None, "nobody has proved that table"
    wait_for(lambda: status(agent)["verified"] is not None, "the proof of the mode", PROOF_SECONDS)
    assert agent.command("mode", "default").status == 0
    wait_for(lambda: status(agent)["verified"] is not None, "the proof of the mode", PROOF_SECONDS)
    assert status(agent)["verified"]["generation"] != generation
    assert agent.stop() == 0
    agent.start()
    wait_for(lambda: status(agent)["verified"] is not None, "a proof of what was taken over", PROOF_SECONDS)
    assert status(agent)["verified"]["version"] == status(agent)["snapshot_version"]


def _is_seen_in_force(agent: Service, before: str | None, found: list[tuple[str | None, str | None]]) -> bool:
    """Note which snapshot is in force and which one is proved, and tell whether it is another than before."""
    answer = status(agent)
    proof = answer["verified"]
    found.append((answer["snapshot_version"], proof and proof["version"]))
    return bool(answer["snapshot_version"] != before)


def test_a_command_waits_for_the_proof(agent: Service) -> None:
    """For good and on trial; its output is of the snapshot that it put in force."""
    wait_for_proofs(agent, 1)
    path = agent.directory / "by-hand.yaml"
    path.write_text(WEB_AND_SSH)
    ended = agent.command("apply", str(path), "--verified", "--json")
    assert ended.status == 0, ended.errors
    answer = json.loads(ended.output)
    assert (answer["verified"]["outcome"], answer["verified"]["version"]) == ("proved", answer["version"])
    assert status(agent)["verified"]["version"] == answer["version"]
    path.write_text(definitions("ingress accept 1 tcp 25 from 0.0.0.0/0"))
    trial = agent.command("apply", str(path), "--verified", "--confirm-within", "60s")
    assert trial.status == 0, trial.errors
    assert "proved: the table in the kernel does what the policy says" in trial.output
    assert agent.command("apply", str(path), "--verified").status == 2, "one trial at a time"


@pytest.mark.long
def test_where_nothing_is_proved_no_command_waits(agent: Service) -> None:
    """It says why, before it changes anything; the status has no proof."""
    agent.verifies = False
    agent.configure()
    assert agent.stop() == 0
    agent.start()
    ended = agent.command("apply", str(agent.documents), "--verified")
    assert ended.status == 2
    assert "verify.after_apply = false" in ended.errors
    assert status(agent)["verified"] is None
    assert "verified   no: the configuration says" in agent.command("status").output
    assert agent.metric("sgagent_verified", outcome="proved") is None


@pytest.mark.long
def test_the_proving_process_holds_nothing_up(agent: Service) -> None:
    """While it stands still changes are enforced; once killed it is started again, and proves the newest."""
    wait_for_proofs(agent, 1)
    pid = prover_pid(agent)
    os.kill(pid, signal.SIGSTOP)
    agent.define(WEB_AND_SSH)
    agent.wait_for_event("ruleset_applied", 2)
    agent.define(WEB)
    agent.wait_for_event("ruleset_applied", 3)
    os.kill(pid, signal.SIGKILL)
    agent.wait_for_event("verification_ended", seconds=PROOF_SECONDS)
    agent.define(WEB_AND_SSH)
    agent.wait_for_event("ruleset_applied", 4)
    agent.wait_for_proof()
    assert prover_pid(agent) != pid
    assert agent.as_json("status")["verified_outcome"] == "proved"
    assert agent.stop() == 0


def test_the_proving_process_has_no_privilege_and_ends_with_the_agent(agent: Service) -> None:
    """It holds no capability and no way to the applier, and a killed agent leaves none behind."""
    wait_for_proofs(agent, 1)
    pid, applier = prover_pid(agent), agent.applier_pid
    shown = Path(f"/proc/{pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in shown
    assert "NoNewPrivs:\t1" in shown
    agent.kill()
    wait_for(lambda: not is_alive(pid), "the process that proves to end")
    wait_for(lambda: not is_alive(applier), "the applier to end")


@pytest.mark.long
def test_what_somebody_changes_is_shown_by_a_packet(agent: Service) -> None:
    """In the table that a stopped agent left: one element, one rule."""
    assert agent.stop() == 0
    proved = agent.command("verify")
    assert (proved.status, proved.output.partition(":")[0]) == (0, "proved")
    agent.namespace.nft("insert", "rule", "inet", "sgagent", "prerouting", "tcp", "dport", "23", "accept")
    refuted = agent.command("verify", "--json")
    assert refuted.status == 1
    found = json.loads(refuted.output)["counterexample"]
    assert found["protocol"] == "tcp"
    assert found["destination_port"] == 23
    assert found["expected"]["verdict"] == "drop"
    assert found["found"]["verdict"] == "accept"
    assert "table    accept, not counted" in agent.command("verify").output


@pytest.mark.long
def test_definitions_are_compared_in_the_modes_of_the_host(agent: Service) -> None:
    """Those of ``sgagent mode``, which last after a stop and are those of a one-shot, too (§9.1)."""
    files = str(agent.directory / "groups.d")
    assert agent.command("mode", "observe").status == 0
    agent.wait_for_event("ruleset_applied", 2)
    assert agent.command("verify", files).status == 0
    assert agent.stop() == 0
    assert agent.command("verify", files).status == 0
    agent.namespace.nft("delete", "table", "inet", "sgagent")
    applied = agent.as_json("compile", "--verify", files)
    assert (applied["outcome"], applied["verified"]["outcome"]) == ("applied", "proved")
    assert agent.command("verify").status == 0
    (agent.directory / "state" / "modes.json").unlink()
    assert agent.command("verify").status == 1, "it only observes"


def test_a_condition_that_nft_can_not_show_is_no_proof(agent: Service) -> None:
    """A rule may compare half of a field, which nft lists as if it did not; an agent removes it."""
    assert agent.stop() == 0
    chain = "default/eth0/ingress"
    listed = agent.namespace.nft("-a", "list", "chain", "inet", "sgagent", chain)
    (handle,) = re.findall(r"drop # handle (\d+)", listed)
    agent.namespace.nft("delete", "rule", "inet", "sgagent", chain, "handle", handle)
    with agent.namespace.entered():
        add_rule_with_hidden_condition(chain, counter=chain)
    bare = re.compile(r" # handle \d+")
    shown = agent.namespace.nft("-a", "list", "chain", "inet", "sgagent", chain)
    assert bare.sub("", shown) == bare.sub("", listed), "as before"
    unknown = agent.command("verify", "--json")
    assert unknown.status == 3, unknown
    assert json.loads(unknown.output)["unsupported"] == [f"a part of what was read in chain {chain}"]
    agent.start()
    agent.wait_for_event("ruleset_applied", 2)
    assert agent.command("verify").status == 0


def add_rule_with_hidden_condition(chain: str, counter: str) -> None:
    """Add a rule that counts and drops packets for one address, of which nft shows no address."""

    def message(kind: int, flags: int, family: int, resource: int, body: bytes = b"") -> bytes:
        content = struct.pack(">BBH", family, 0, resource) + body
        return struct.pack("=IHHII", 16 + len(content), kind, flags, 0, 0) + content

    def expression(name: str, *values: tuple[int, bytes]) -> bytes:
        data = b"".join(attribute(kind, value) for kind, value in values)
        return attribute(1 | NESTED, attribute(1, name.encode() + b"\0") + attribute(2 | NESTED, data))

    def number(value: int) -> bytes:
        return struct.pack(">I", value)

    both_addresses = ((1, number(8)), (2, number(1)), (3, number(12)), (4, number(8)))
    is_address = ((1, number(9)), (2, number(0)), (3 | NESTED, attribute(1, bytes((10, 0, 0, 99)))))
    drop = ((1, number(0)), (2 | NESTED, attribute(2 | NESTED, attribute(1, number(0)))))
    expressions = (
        expression("payload", *both_addresses)  # into two registers
        + expression("cmp", *is_address)  # the second of them
        + expression("objref", (1, number(1)), (2, counter.encode() + b"\0"))
        + expression("immediate", *drop)
    )
    names = attribute(1, b"sgagent\0") + attribute(2, chain.encode() + b"\0")
    nftables = 10
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        begin, end = message(16, REQUEST, 0, nftables), message(17, REQUEST, 0, nftables)
        body = names + attribute(4 | NESTED, expressions)
        netlink.send(begin + message(nftables << 8 | 6, REQUEST | ACK | 0xC00, 1, 0, body) + end)
        (answer,) = messages_in(netlink.recv(4096))
    assert answer.payload[:4] == bytes(4), answer


@pytest.mark.long
def test_a_link_that_is_expected_again_is_part_of_the_policy(agent: Service) -> None:
    """An agent that starts judges the name of a link that is not back yet (§9.3), and the proof knows it.

    It does so without an agent, too. A link that went while the agent ran is no part of the table.
    """
    mac_address = "02:00:00:00:99:98"

    def add_late0() -> None:
        agent.namespace.ip(f"link add late0 address {mac_address} type bridge")
        wait_for(
            lambda: agent.metric("sgagent_interface_info", interface="late0", state="bound") == 1,
            "late0 to be bound",
        )

    def assert_proved() -> None:
        for arguments in ((), (str(agent.directory / "groups.d"),)):
            proved = agent.command("verify", *arguments)
            assert (proved.status, proved.output.partition(":")[0]) == (0, "proved"), proved

    agent.define(definitions("ingress accept 1 tcp 80 from 0.0.0.0/0", mac_address=mac_address))
    add_late0()
    agent.kill()
    agent.namespace.ip("link delete late0")
    assert_proved()
    agent.start()
    assert "late0" in agent.table()
    assert_proved()
    add_late0()
    agent.namespace.ip("link delete late0")
    wait_for(lambda: "late0" not in agent.table(), "the table to leave late0 out")
    assert_proved()
    assert agent.stop() == 0
    assert_proved()


def test_what_a_one_shot_applied_is_compared_with_the_source(one_interface: Lab, tmp_path: Path) -> None:
    """Where no agent ever enforced anything, only the source says what the table has to do."""
    one_interface.add_host_addresses([HOST])
    with service_on(one_interface.host, tmp_path) as host:
        host.define(WEB)
        assert host.command("compile").status == 0
        assert host.command("verify").status == 0
        host.define(WEB.replace("80", "81"))
        refuted = host.command("verify")
        assert refuted.status == 1
        assert "compared with the configured source; if 'compile'" in refuted.errors
        assert host.command("flush").status == 0
        expect_no_definitions(host)


def test_a_refutation_names_the_policy_that_an_agent_enforced_last(agent: Service) -> None:
    """A one-shot that came later applied another one, which has to be named."""
    kept = agent.as_json("status")["snapshot_version"]
    assert agent.stop() == 0
    agent.define(WEB_AND_SSH)
    assert agent.command("compile").status == 0
    refuted = agent.command("verify", "--json")
    assert json.loads(refuted.output)["outcome"] == "refuted"
    assert f"compared with the last enforced policy (snapshot {kept})" in refuted.errors
    assert "enforced first 20" in refuted.errors
    assert refuted.errors.endswith("name them: sgagent verify PATH\n")
    named = agent.command("verify", str(agent.directory / "groups.d"))
    assert (named.status, named.errors) == (0, "")


@pytest.mark.long
def test_the_table_of_a_closed_host_is_not_called_wrong(agent: Service) -> None:
    """Without definitions there is no policy to compare it with; the agent proves it by its own knowledge."""
    assert agent.stop() == 0
    for path in (*agent.documents.iterdir(), *(agent.state / "history").iterdir()):
        path.unlink()
    agent.namespace.remove_table("sgagent")
    expect_no_definitions(agent)  # nor a table: nothing says what it would have to do
    agent.configure(CLOSED)
    agent.start()
    agent.wait_for_event("host_closed")
    expect_no_definitions(agent)


def expect_no_definitions(agent: Service) -> None:
    """Assert that there is nothing to compare the table with."""
    unknown = agent.command("verify", "--json")
    assert unknown.status == 3, unknown
    assert json.loads(unknown.output)["unsupported"][0].startswith("no definitions are in force")


@pytest.mark.long
def test_without_privilege_it_is_not_permitted(agent: Service) -> None:
    """The refusal names the missing privilege."""
    through = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    refused = agent.command("verify", through=through)
    assert refused.status == 5, refused


ALMOST = """
table inet f {
    chain i {
        type filter hook input priority 0; policy accept;
        tcp dport 23 drop
    }
}
"""


@pytest.mark.long
def test_a_text_is_proved_and_one_that_was_altered_is_refuted(agent: Service) -> None:
    """The output of compile, as text and as JSON; anything but a ruleset is wrong use."""
    files = agent.directory / "groups.d"
    chosen = (str(files), "--interface", "eth0=sg-1")
    for kind in ("nft", "json"):
        text = agent.command("compile", "--dry-run", "--output", kind, *chosen).output
        file = agent.directory / f"table.{kind}"
        file.write_text(text)
        assert agent.command("verify", "--ruleset", str(file), *chosen).status == 0
        file.write_text(re.sub("flags (owner,)?persist", "flags owner", text))
        assert agent.command("verify", "--ruleset", str(file), *chosen).status == 0, "as older kernels do"
        file.write_text(text.replace("80", "81"))
        assert agent.command("verify", "--ruleset", str(file), *chosen).status == 1
        file.write_text(text[: len(text) // 2])
        refused = agent.command("verify", "--ruleset", str(file), *chosen)
        assert refused.status == 2
        assert str(file) in refused.errors
    foreign = agent.directory / "foreign.nft"
    foreign.write_text(ALMOST)
    foreign.write_text(ALMOST.replace("tcp dport", "iif no-such-link tcp dport"))
    refused = agent.command("verify", "--compare", "--ruleset", str(foreign), *chosen)
    assert refused.status == 2
    assert "Interface does not exist" in refused.errors
    assert "write iifname and oifname" in refused.errors
    foreign.write_text(ALMOST)
    compared = agent.command("verify", "--compare", "--ruleset", str(foreign), "--json", *chosen)
    assert compared.status == 1
    shown = json.loads(compared.output)["counterexample"]
    assert shown["expected"]["verdict"] != shown["found"]["verdict"]
    assert shown["found"]["path"] == ["inet f i"]
    changes = json.loads(compared.output)["changes"]
    closed = [one for one in changes if one["effect"] == "closes" and one["protocol"] == "tcp"]
    assert {one["ports"] for one in closed if one["family"] == "ipv4"} == {"0/22,24/79,81/65535"}
    words = agent.command("verify", "--compare", "--ruleset", str(foreign), *chosen).output
    assert "the policy closes" in words
    ports = "0-22, 24-79, 81-65535"
    line = rf"  eth0 ingress: tcp {ports} from 0\.0\.0\.0/0.*: dropped by default \(was accepted\)"
    assert re.search(f"^{line}$", words, re.MULTILINE), words
    assert words.endswith("\nforwarded packets are not compared, as no base chain is at forward\n")
    assert json.loads(compared.output)["not_compared"] == ["forwarded packets"]
    foreign.write_text(ALMOST.replace("inet", "ip") + ALMOST.replace("inet", "ip6"))
    compared = agent.command("verify", "--compare", "--ruleset", str(foreign), "--json", *chosen)
    shown = json.loads(compared.output)["counterexample"]
    assert shown["found"]["path"] == ["ip f i" if shown["family"] == "ipv4" else "ip6 f i"]
    foreign.write_text(ALMOST.replace("tcp dport", "meta mark 1 tcp dport"))
    compared = agent.command("verify", "--compare", "--ruleset", str(foreign), "--json", *chosen)
    assert compared.status == 3
    assert json.loads(compared.output)["changes_are_whole"] is False
