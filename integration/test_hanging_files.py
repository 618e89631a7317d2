"""Documents on a file system that hangs: all else goes on, and they are read again when it does."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.hanging import HangingFiles, hanging_files, mounted, why_not
from integration.lab import Lab, wait_for
from integration.service import Service, definitions, is_let_in
from sgagent.sources.files.background import MOST_LEFT, Patience
from tests.patience import PATIENCE

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB, SSH = "ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress accept 1 tcp 22 from 0.0.0.0/0"
HUNG_SECONDS = Patience().reading + 5.0
LIFE_SECONDS = 8.0
"""Of a rule that ends."""

LATE_SECONDS = 2.0
"""After its end, a rule is gone at the latest; an order is carried out."""

pytestmark = pytest.mark.skipif(bool(_reason := why_not()), reason=f"no file system that hangs: {_reason}")


@pytest.fixture
def files(agent: Service) -> Iterator[HangingFiles]:
    """Mount the directory of documents, and start the agent on it."""
    with hanging_files(agent.documents, policy=definitions(WEB, SSH)) as made:
        agent.start()
        yield made
        made.go_on()


def with_end(end: float) -> str:
    """Return definitions of two rules, the second of which ends."""
    text = definitions(WEB, SSH)
    instant = datetime.fromtimestamp(end, UTC).isoformat()
    return re.sub(r"(rule_id: sgr-1\b)", rf"\1, expires: '{instant}'", text)


def is_up(agent: Service) -> bool:
    """Tell whether the agent can read its source."""
    return bool(agent.metric("sgagent_source_up") == 1)


def wait_for_hang(agent: Service, files: HangingFiles) -> None:
    """Have the file system hang, and the agent notice that."""
    files.hang()
    agent.reload()
    wait_for(lambda: not is_up(agent), "the source to be down", HUNG_SECONDS)


def readers(agent: Service) -> set[int]:
    """Return the processes that read on the agent's host, or would if they were not killed."""
    found, host = set(), agent.namespace.path.stat().st_ino
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if (
                comm.read_text() == "sgagent-reader\n"
                and comm.with_name("ns").joinpath("net").stat().st_ino == host
            ):
                found.add(int(comm.parent.name))
    return found


def test_rules_end_and_links_are_followed(agent: Service, files: HangingFiles, one_interface: Lab) -> None:
    """From the moment that it hangs; the source is down then, and all that was enforced stays."""
    end = time.time() + LIFE_SECONDS * PATIENCE
    files.write("policy.yaml", with_end(end))
    agent.reload()
    wait_for(lambda: agent.as_json("status")["expiring"] == 1, "the rule to end")
    files.hang()
    agent.reload()
    assert is_let_in(one_interface, CLIENT, HOST, 22)
    wait_for(lambda: not is_let_in(one_interface, CLIENT, HOST, 22), "the end of the rule", 2 * LIFE_SECONDS)
    assert time.time() < end + LATE_SECONDS * PATIENCE
    assert is_let_in(one_interface, CLIENT, HOST, 80)
    one_interface.host.ip("link add veth7 type veth peer name veth8")
    wait_for(lambda: "veth7" in agent.command("status").output, "the link", LATE_SECONDS)
    began = time.monotonic()
    assert agent.command("mode", "observe").status == 0
    assert time.monotonic() - began < LATE_SECONDS * PATIENCE
    wait_for(lambda: not is_up(agent), "the source to be down", HUNG_SECONDS)
    assert "does a file system hang?" in agent.command("status").output
    assert agent.command("reload").status == 4
    agent.command("mode", "default")
    assert len(readers(agent)) <= 1 + MOST_LEFT
    files.go_on()
    wait_for(lambda: is_up(agent), "the source")
    files.write("policy.yaml", definitions(SSH))
    agent.reload()
    wait_for(lambda: is_let_in(one_interface, CLIENT, HOST, 22), "the newest definitions")
    assert not is_let_in(one_interface, CLIENT, HOST, 80)
    assert agent.stop() == 0


def test_an_agent_ends_and_starts_despite_it(agent: Service, files: HangingFiles, one_interface: Lab) -> None:
    """The end waits for no reading, and a start enforces the last policy, and follows once it can."""
    wait_for_hang(agent, files)
    before = readers(agent)
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 10.0
    assert readers(agent) == before, "it hangs as the kernel has it"
    agent.launch()
    wait_for(lambda: bool(readers(agent) - before), "a start that waits for what hangs")
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 4.0, "it would wait 5 s"
    before = readers(agent)
    agent.start()
    assert is_let_in(one_interface, CLIENT, HOST, 22)
    assert not is_up(agent)
    files.go_on()
    wait_for(lambda: not readers(agent) & before, "the end of what the first agent left")
    wait_for(lambda: is_up(agent), "the source")
    assert agent.stop() == 0
    wait_for(lambda: readers(agent) == set(), "the end of all that read")


def test_another_file_system_there_is_read(agent: Service, files: HangingFiles, one_interface: Lab) -> None:
    """The process that hung with the old one is left behind, and ends with it."""
    wait_for_hang(agent, files)
    with mounted_over(agent, definitions(WEB)):
        wait_for(lambda: is_up(agent), "the source", HUNG_SECONDS)
        wait_for(lambda: not is_let_in(one_interface, CLIENT, HOST, 22), "the documents of the other one")
        assert is_let_in(one_interface, CLIENT, HOST, 80)
        files.go_on()
        wait_for(lambda: len(readers(agent)) == 1, "the end of what hung")


def mounted_over(agent: Service, text: str) -> AbstractContextManager[None]:
    """Mount another file system, which answers, over the one that hangs."""
    other = HangingFiles(agent.documents)
    other.write("policy.yaml", text)
    return mounted(other)


def test_a_link_to_what_hangs_is_no_worse(agent: Service, one_interface: Lab, tmp_path: Path) -> None:
    """A document that is a link hangs its whole directory, whose other documents stay in force."""
    agent.define(definitions(WEB))
    agent.start()
    away = tmp_path / "away"
    away.mkdir()
    with hanging_files(away, more="version: 1\n") as files:
        files.hang()
        (agent.documents / "more.yaml").symlink_to(away / "more.yaml")
        agent.reload()
        wait_for(lambda: not is_up(agent), "the source to be down", HUNG_SECONDS)
        assert is_let_in(one_interface, CLIENT, HOST, 80)
        (agent.documents / "more.yaml").unlink()
        files.go_on()
        wait_for(lambda: is_up(agent), "the source")
        assert agent.stop() == 0
