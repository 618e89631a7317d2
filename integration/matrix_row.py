"""One row of the matrix, as tests: sgagent as it is installed in another root, on the kernel that runs.

``integration.matrix`` boots a kernel and runs this there. The bench is this machine's: its Python, its
networks, its packets. The program is the other root's, with that one's libraries and nft, or its bundle's.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from integration import demo
from integration.flood import flooding, watch, watched
from integration.kernel_verdicts import judge
from integration.lab import Lab, lab, wait_for
from integration.service import Service, definitions, lets_in, service_on
from integration.traffic import traffic
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.evaluate import evaluate
from sgagent.core.model import Policy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents.writer import as_yaml, write_document
from sgagent.settings import Settings
from tests.draws import SeededDraws
from tests.generators import described, random_case, random_packets, without_limits

ROOT, PROGRAM = os.environ.get("SGAGENT_MATRIX_ROOT", ""), os.environ.get("SGAGENT_MATRIX_PROGRAM", "")
CHANGES = int(os.environ.get("SGAGENT_MATRIX_CHANGES", "100"))
POLICIES = int(os.environ.get("SGAGENT_MATRIX_POLICIES", "40"))
PACKETS = 60

CASES = ("1-web", "2-remote", "3-databases", "4-protocols", "5-internal", "6-egress")
HOST, CLIENT = "10.0.0.11", "198.51.100.7"
WEB, REFUSED = "ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress drop 1 tcp 82 from 0.0.0.0/0"
SSH = "ingress accept 1 tcp 22 from 0.0.0.0/0"
ONLY_WEB = (True, False)

pytestmark = pytest.mark.skipif(not ROOT, reason="integration.matrix says which root and program to try")

_WRAPPER = """#!/bin/sh
shift 2 # of python's: -m sgagent
exec chroot {root} {program} "$@"
"""


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the stand-in for Python that runs the other root's program, which sees our files."""
    for shared in ("proc", "sys", "dev", "run", "tmp"):
        subprocess.run(("mount", "--rbind", f"/{shared}", f"{ROOT}/{shared}"), check=True)
    wrapper = tmp_path_factory.mktemp("matrix") / "python"
    wrapper.write_text(_WRAPPER.format(root=ROOT, program=PROGRAM))
    wrapper.chmod(0o755)
    return str(wrapper)


@pytest.fixture
def agent(wire: Lab, interpreter: str, tmp_path: Path) -> Iterator[Service]:
    """Give the host an agent of the other root that is not started yet, and has a policy."""
    with service_on(wire.host, tmp_path, interpreter) as made:
        made.verifies = True
        made.configure()
        made.define(definitions(WEB, REFUSED))
        yield made


def test_the_platform(interpreter: str, record_property: Callable[[str, object], None]) -> None:
    """The platform can run sgagent, and the report names missing features."""
    command = (interpreter, "-m", "sgagent", "doctor", "--platform", "--json")
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    record_property("platform", json.dumps(found))
    assert found["can_run"] is True, found["missing"]


def test_the_demo(interpreter: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every flow of the guide's six cases is as expected, and every table is proved."""
    with capsys.disabled():
        assert demo.main(["--interpreter", interpreter, *CASES]) == 0


def test_changes_in_storm(agent: Service, wire: Lab, record_property: Callable[[str, object], None]) -> None:
    """Over all changes no denied packet passes, and no allowed one is lost, new sessions by the thousand."""
    agent.start()
    with traffic(wire) as sessions:
        sessions.open("kept", wire.peer, CLIENT, wire.host, (HOST, 80))
        with sessions.running():
            sessions.wait_until_all_talk()
            watch(wire)
            applied = len(agent.events("ruleset_applied"))
            with flooding(wire) as flood:
                wait_for(lambda: flood.sent > 0, "the storm")
                for number in range(1, CHANGES + 1):
                    member = f"ingress accept 1 tcp 8080 from 192.0.2.{number}"
                    agent.define(definitions(WEB, REFUSED, *((SSH, member) if number % 2 else (member,))))
                    agent.wait_for_event("ruleset_applied", applied + number, 30.0)
            seen = watched(wire)
            wire.host.remove_table("testwatch")
            sessions.wait_until_all_talk()
            sessions.settle({"kept"})
        assert sessions.sessions["kept"].lost() == 0
    lost = seen["sent"] // 3 - seen["allowed"]
    record_property("storm", f"{CHANGES} changes, {seen['sent']} sent, {seen['leaked']} leaked, {lost} lost")
    assert (seen["leaked"], lost) == (0, 0)
    assert seen["sent"] > 0


def test_a_kill_a_boot_a_proof_and_a_flush(agent: Service, wire: Lab) -> None:
    """Rules outlive a kill; a boot without documents enforces them; they are proved, and taken out."""
    agent.start()
    assert lets_in(wire) == ONLY_WEB
    agent.kill()
    assert lets_in(wire) == ONLY_WEB
    wire.host.remove_table("sgagent")  # as a reboot does
    assert lets_in(wire) == (True, True)
    document = agent.documents / "policy.yaml"
    document.rename(agent.directory / "aside.yaml")
    booted = agent.command("boot")
    assert booted.status == 0, booted.errors
    assert lets_in(wire) == ONLY_WEB
    (agent.directory / "aside.yaml").rename(document)
    agent.start()
    proved = agent.command("verify")
    assert (proved.status, proved.output[:6]) == (0, "proved"), proved
    wait_for(lambda: bool(agent.events("ruleset_verified")) or agent.command("status").status == 0, "a proof")
    assert agent.stop() == 0
    assert lets_in(wire) == ONLY_WEB
    flushed = agent.command("flush")
    assert flushed.status == 0, flushed.errors
    assert lets_in(wire) == (True, True)


def test_random_policies(
    interpreter: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The compiler's table in this kernel decides each packet as the specification does."""
    found: list[str] = []
    enforcing = tmp_path / "sgagent.toml"  # the package's own configuration observes
    enforcing.write_text('[enforcement]\nmode = "enforce"\n')
    for seed in range(1, POLICIES + 1):
        draws = SeededDraws(seed)
        case = without_limits(random_case(draws))
        hands = tuple(
            HandBinding(interface=one.interface, security_group_ids=one.security_group_ids)
            for one in case.bindings
        )
        bound = bind(case.snapshot, hands, HostFacts(), automatically=False)
        exemptions, now = Exemptions(platform=Settings().platform), datetime.now(tz=UTC)
        policy = resolve(case.snapshot, bound, exemptions, at=now).policy
        document = tmp_path / f"{seed}.yaml"
        document.write_text(as_yaml(write_document(case.snapshot)))
        links = [f"--interface={hand.interface}={','.join(hand.security_group_ids)}" for hand in hands]
        packets = random_packets(draws, policy, PACKETS)
        with lab("eth0", "eth1") as built:
            entering = ("ip", "netns", "exec", built.host.name)
            options = ("--config", str(enforcing), "--definitions", str(document), *links)
            command = (interpreter, "-m", "sgagent", "compile", *options)
            done = subprocess.run((*entering, *command), capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"seed {seed}: {done.stderr}"
            passed = judge(built, packets)
        found += [
            f"seed {seed}: {described(packet)} {'passes' if passes else 'is dropped'}"
            for packet, passes in zip(packets, passed, strict=True)
            if passes is not (evaluate(policy, packet).verdict is Policy.ACCEPT)
        ]
    record_property("policies", f"{POLICIES} policies, {PACKETS * POLICIES} packets, {len(found)} wrong")
    assert found == []
