"""The doctor names each planted neighbour of a bound link, and nothing on clean hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.lab import Lab, wait_for
from integration.namespaces import CommandError, Namespace, network_namespace
from integration.neighbours import (
    CLEAN,
    CLEAN_WITH_MODULES,
    ODD,
    PLANTED,
    PLANTED_WITH_MODULES,
    CleanHost,
    Neighbour,
    Plant,
    bare_host,
)
from integration.service import Ended, Service, definitions, service_on
from sgagent.agent.examination import Examination
from sgagent.analysis.doctor.findings import DoctorFinding
from sgagent.analysis.doctor.policy_fact import BoundLink, PolicyFact
from sgagent.dataplane.table_dump import read_ruleset
from sgagent.host.links import NetlinkHost
from sgagent.settings import Settings

_OF_MACHINE = {"flusher", "old_nft", "clock", "kernel_feature"}
"""Findings of the machine that the tests run on: the network namespace has no part in them."""


@pytest.fixture
def host() -> Iterator[Namespace]:
    """Make a host with two links."""
    with bare_host() as made:
        yield made


def examine(host: Namespace, bound: tuple[str, ...]) -> tuple[DoctorFinding, ...]:
    """Return the doctor's findings in the host's network namespace."""
    policy = PolicyFact(bound=tuple(BoundLink(name=name) for name in bound))
    examination = Examination(
        settings=Settings(), read_rules=read_ruleset, own_sockets=frozenset, owns_tables=lambda: True
    )
    with host.entered():
        found = examination.diagnose(policy, NetlinkHost().facts())
    assert found.not_seen == ()
    return tuple(one for one in found.findings if one.code.value not in _OF_MACHINE)


def places(findings: tuple[DoctorFinding, ...]) -> set[tuple[str, str | None, str | None, str | None]]:
    """Return codes and places."""
    return {(one.code.value, one.link, one.table, one.chain) for one in findings}


@pytest.mark.sampled(20)
@pytest.mark.parametrize("neighbour", PLANTED, ids=lambda one: one.name)
def test_a_planted_neighbour_is_named(host: Namespace, neighbour: Neighbour) -> None:
    """Code, link, table and chain are those that were planted, and there is nothing else."""
    neighbour.plant(host)
    assert places(examine(host, neighbour.bound)) == neighbour.found


def test_enough_is_planted() -> None:
    """At least 40 neighbours, each of its own name."""
    assert len({one.name for one in PLANTED}) == len(PLANTED) >= 40


@pytest.mark.parametrize("clean", CLEAN, ids=lambda one: one.name)
def test_of_a_clean_host_nothing_is_said(host: Namespace, clean: CleanHost) -> None:
    """Programs that run beside sgagent without touching the policy are no finding."""
    clean.plant(host)
    assert examine(host, clean.bound) == ()


def planted(host: Namespace, plant: Plant) -> None:
    """Plant something, or skip the test where the kernel lacks a module for it."""
    try:
        plant(host)
    except CommandError as error:
        pytest.skip(f"this kernel, or its nft, does not take it: {error.output.splitlines()[0]}")


@pytest.mark.parametrize("neighbour", PLANTED_WITH_MODULES, ids=lambda one: one.name)
def test_a_neighbour_of_a_module_is_named(host: Namespace, neighbour: Neighbour) -> None:
    """As the others; integration/test_stock_kernel.py runs this where the modules are."""
    planted(host, neighbour.plant)
    assert places(examine(host, neighbour.bound)) == neighbour.found


@pytest.mark.parametrize("clean", CLEAN_WITH_MODULES, ids=lambda one: one.name)
def test_of_a_clean_host_with_modules_nothing_is_said(host: Namespace, clean: CleanHost) -> None:
    """Tunnels, VLANs and bonds without a neighbour."""
    planted(host, clean.plant)
    assert examine(host, clean.bound) == ()


def test_a_link_of_a_container_is_named(host: Namespace) -> None:
    """It stands on a bound link, in a namespace that has a name or a process."""
    with network_namespace("guest") as guest:
        host.ip(f"link add mv0 link eth0 netns {guest.name} type macvlan mode bridge")
        host.ip(f"link add mv1 link eth1 netns {guest.name} type macvlan mode bridge")
        (found,) = examine(host, ("eth0",))
        assert (found.code.value, found.link) == ("link_above", "eth0")
        assert f"mv0 (macvlan) of namespace {guest.name} stands on eth0" in found.evidence
    assert examine(host, ("eth0",)) == ()


@pytest.fixture
def agent(one_interface: Lab) -> Iterator[Service]:
    """Run an agent with a bound link, in a directory that everybody may enter."""
    one_interface.add_host_addresses(["10.0.0.11"])
    with tempfile.TemporaryDirectory(prefix="sgagent-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with service_on(one_interface.host, directory) as made:
            made.define(definitions("ingress accept 1 tcp 80 from 0.0.0.0/0"))
            made.start()
            yield made


WRITER = "table inet other { chain here { type filter hook output priority 0; ct mark set 0x00010000; }; }"


def codes(text: str) -> set[str]:
    """Return the codes that an answer in JSON has, those of the machine apart."""
    return {one["code"] for one in json.loads(text)["findings"]} - _OF_MACHINE


def test_the_command_prints_one_object_and_its_exit_code_says_whether_there_is_any(agent: Service) -> None:
    """As root, with the policy of the running agent."""
    agent.namespace.nft(WRITER)
    done = agent.command("doctor", "--json", "--exit-code")
    assert done.status == 1
    (found,) = (one for one in json.loads(done.output)["findings"] if one["code"] == "mark_writer")
    place = (found["severity"], found["link"], found["table"], found["chain"])
    assert place == ("high", "eth0", "inet other", "here")
    assert all(found[key] for key in ("evidence", "effect", "remedy"))
    assert "mark_writer" in agent.command("doctor").output


def test_a_user_without_privilege_gets_what_the_agent_sees(agent: Service) -> None:
    """The agent's group may ask it; to others the command says that it did not see the tables."""
    agent.namespace.nft(WRITER)

    def asked() -> Ended:
        return agent.command("doctor", "--json", user=NOBODY)

    done = asked()
    assert "mark_writer" not in codes(done.output)
    assert "tables of others" in done.errors
    assert "ruleset" in {one["what"] for one in json.loads(done.output)["not_seen"]}
    os.chown(agent.directory / "run" / "control.sock", -1, NOBODY)
    wait_for(lambda: "mark_writer" in codes(asked().output), "what the agent sees")
    assert "tables of others" not in asked().errors


def test_the_agent_tells_of_neighbours_by_itself(agent: Service) -> None:
    """By a metric, an event and a line of the status, after a look that a change of the ruleset causes."""
    wait_for(lambda: agent.metric(METRIC, code="mark_writer", severity="high") == 0, "the first look")
    agent.stop()
    agent.namespace.nft(WRITER)
    agent.start()
    wait_for(lambda: agent.metric(METRIC, code="mark_writer", severity="high") == 1, "the neighbour")
    agent.wait_for_event("neighbour_found")
    status = agent.as_json("status")
    assert (status["doctor"]["high"], status["doctor"]["codes"][0]) == (1, "mark_writer")
    assert "mark_writer ('sgagent doctor' shows them)" in agent.command("status").output


METRIC = "sgagent_doctor_findings"
NOBODY = 65534


def test_unreadable_definitions_leave_the_links_of_the_configuration(host: Namespace, tmp_path: Path) -> None:
    """And the command says so, as it knows less."""
    with service_on(host, tmp_path) as idle:
        idle.configure('[[interface]]\nname = "eth0"\nsecurity_group_ids = ["sg-1"]\n')
        idle.define("version: [")
        host.nft("table inet other { chain here { type filter hook input priority 0; policy drop; }; }")
        done = idle.command("doctor", "--json")
        assert "other_table_drops" in codes(done.output)
        assert "links that the definitions bind" in done.errors
        given = idle.command("doctor", "--json", "--interface", "eth1=")
        assert {one["link"] for one in json.loads(given.output)["findings"]} <= {"eth1", None}


def test_a_port_that_a_local_user_took_is_named(host: Namespace) -> None:
    """A process of another user at metrics.listen."""
    listening = (
        "import socket; taken = socket.create_server(('127.0.0.1', 9469)); print('up', flush=True); input()"
    )
    with subprocess.Popen(
        [
            *("ip", "netns", "exec", host.name, "setpriv", f"--reuid={NOBODY}", "--clear-groups"),
            *(sys.executable, "-c", listening),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline() == b"up\n"
        assert "metrics_port" in {one.code.value for one in examine(host, ("eth0",))}
        taker.communicate(b"\n")
    assert examine(host, ("eth0",)) == ()


@pytest.mark.parametrize("odd", ODD, ids=lambda one: one[0])
def test_an_odd_ruleset_ends_no_examination(host: Namespace, odd: tuple[str, Plant]) -> None:
    """Whatever nftables takes is read."""
    _, plant = odd
    planted(host, plant)
    examine(host, ("eth0",))
