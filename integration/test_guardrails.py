"""Versions that break a guardrail, published to a running daemon under traffic: no packet passes (§13.4)."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest

from integration.flood import ALLOWED, BY_DEFAULT, CLIENT, HOST, flooding, watch, watched
from integration.lab import Lab, wait_for
from integration.service import NOTICED_SECONDS, PROOF_SECONDS, Service, definitions
from sgagent.policy_test.packet_bytes import tcp
from tests.patience import PATIENCE

PACKETS = 1_000_000 if os.environ.get("SGAGENT_FULL") else 20_000
"""That the broken candidates would have let through, in all."""

GOOD = definitions(f"ingress accept 1 tcp {ALLOWED} from 0.0.0.0/0")
GUARDRAILS = f"""
guardrails:
  - id: never-eighty-one
    reason: nobody reaches it
    never: {{from: any, protocol: tcp, ports: {BY_DEFAULT}, except: sg-1}}
  - id: always-eighty
    reason: the shop is open
    always: {{from: 198.51.100.0/24, to: every bound interface, protocol: tcp, ports: {ALLOWED}}}
  - id: only-the-office
    reason: the console is for the office
    only: {{from: [192.0.2.0/24, sg-1], protocol: tcp, ports: 9000}}
"""
BROKEN = {
    "never-eighty-one": definitions("ingress accept 1 tcp 80-90 from 0.0.0.0/0"),
    "always-eighty": definitions(
        "ingress accept 2 tcp 80 from 0.0.0.0/0", "ingress drop 1 tcp 80 from 198.51.100.7/32"
    ),
    "only-the-office": definitions(
        f"ingress accept 1 tcp {ALLOWED} from 0.0.0.0/0", "ingress accept 1 tcp 9000 from 192.0.0.0/16"
    ),
}


@pytest.fixture
def agent(agent: Service, tmp_path: Path) -> Service:
    """Give the agent guardrails; it is not started yet."""
    (tmp_path / "guardrails.yaml").write_text(GUARDRAILS)
    configure(agent, tmp_path)
    agent.define(GOOD)
    return agent


def configure(agent: Service, directory: Path) -> None:
    """Have an agent read guardrails."""
    agent.configure(f'[guardrails]\npath = "{directory / "guardrails.yaml"}"\n')


def passes(lab: Lab, port: int) -> bool:
    """Return whether the first packet of a session gets in."""
    return lab.send_ingress([tcp(CLIENT, HOST, 1024, port)])[0]


def has_passed(lab: Lab, packets: int) -> bool:
    """Return whether so many allowed packets have got in."""
    return watched(lab)["allowed"] > packets


def broken(agent: Service) -> list[str]:
    """Return the statements that ``sgagent status`` calls broken."""
    found = agent.as_json("status")["guardrails"]
    assert found["statements"] == 3
    return [one["id"] for one in found["broken"]]


def test_no_packet_passes_by_a_version_that_is_refused(agent: Service, one_interface: Lab) -> None:
    """Each kind of statement, broken one after the other; the policy in force loses no packet."""
    agent.start()
    generation = agent.generation()
    watch(one_interface)
    with flooding(one_interface):
        for number, (name, text) in enumerate(BROKEN.items(), 1):
            agent.define(text)
            agent.wait_for_event("snapshot_refused", number)
            goal = number * PACKETS // len(BROKEN)
            wait_for(partial(has_passed, one_interface, goal), "packets", 600 * PATIENCE)
            assert broken(agent) == [name]
            assert agent.metric("sgagent_guardrail_refused_total", id=name) == 1
    counted = watched(one_interface)
    assert counted["leaked"] == 0
    assert counted["sent"] > PACKETS
    assert agent.generation() == generation
    assert [event["id"] for event in agent.events("guardrail_broken")] == list(BROKEN)
    assert "sgr-0" in agent.events("guardrail_broken")[0]["rule_id"]


def test_it_is_told_on_the_page_and_in_words(agent: Service, one_interface: Lab) -> None:
    """Statement, rule and packet."""
    agent.start()
    agent.define(BROKEN["never-eighty-one"])
    agent.wait_for_event("guardrail_broken")
    told = agent.command("status").output
    assert "never-eighty-one on eth0: tcp from" in told
    assert "accept by rule sgr-0 of sg-1" in told
    assert "never-eighty-one on eth0" in agent.get("/")[1]
    assert passes(one_interface, ALLOWED)
    assert not passes(one_interface, BY_DEFAULT)


@pytest.mark.long
def test_a_guardrail_that_changes_counts_at_once(agent: Service, one_interface: Lab, tmp_path: Path) -> None:
    """An exception that its owner grants lets the refused version in; a new statement locks nobody out.

    The proof in the background says that the table breaks it.
    """
    agent.verifies = True
    configure(agent, tmp_path)
    agent.start()
    agent.define(BROKEN["never-eighty-one"])
    agent.wait_for_event("snapshot_refused")
    draft = tmp_path / ".guardrails.new"
    draft.write_text(GUARDRAILS.replace("except: sg-1", "except: 0.0.0.0/0"))
    draft.rename(tmp_path / "guardrails.yaml")
    wait_for(lambda: passes(one_interface, BY_DEFAULT), "the exception", NOTICED_SECONDS * PATIENCE)
    draft.write_text(GUARDRAILS)
    draft.rename(tmp_path / "guardrails.yaml")
    agent.wait_for_event("snapshot_refused", 2)
    assert passes(one_interface, BY_DEFAULT)
    assert broken(agent) == ["never-eighty-one"]
    wait_for(
        lambda: agent.metric("sgagent_verified", outcome="refuted") == 1,
        "the proof of a table that breaks it",
        PROOF_SECONDS * PATIENCE,
    )
    assert "guardrail never-eighty-one is broken by the table" in agent.command("status").output


def test_the_kernels_table_is_held_to_them(agent: Service, one_interface: Lab) -> None:
    """Another program's rule in the table breaks a statement too, and its packet passes."""
    agent.start()
    agent.stop()
    assert agent.command("verify").status == 0
    altered = ("prerouting", f"tcp dport {BY_DEFAULT} accept")
    one_interface.host.nft("insert", "rule", "inet", "sgagent", *altered)
    done = agent.command("verify", "--json")
    assert done.status == 1
    (found,) = json.loads(done.output)["guardrails"]
    assert (found["id"], found["verdict"]) == ("never-eighty-one", "accept")
    assert found["packet"]["destination_port"] == BY_DEFAULT
    assert passes(one_interface, BY_DEFAULT)
