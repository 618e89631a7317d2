"""The daemon follows its documents: a change within two seconds, a fault never."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from integration.lab import Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import NOTICED_SECONDS, Service, definitions, is_let_in
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.sources.files.reader import DEBOUNCE_SECONDS, MISSING_SECONDS

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
OPEN, OTHER = 80, 81
BROKEN = "version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n    colour: red\n"
DROP_UNKNOWN = "ingress drop 1 all -1/-1 from sg-nowhere"
ACCEPT_UNKNOWN = "ingress accept 1 all -1/-1 from sg-nowhere"


def opening(*ports: int) -> str:
    """Return a document that opens ports."""
    return definitions(*(f"ingress accept 1 tcp {port} from 0.0.0.0/0" for port in ports))


agent = agent_with(opening(OPEN))


def wait_until_open(lab: Lab, port: int, seconds: float = NOTICED_SECONDS) -> None:
    """Wait until sessions to a port get in."""
    wait_for(lambda: is_let_in(lab, CLIENT, HOST, port), f"port {port} to open", seconds)


def test_a_file_that_an_editor_replaces(agent: Service, one_interface: Lab) -> None:
    """An editor moves the document away and writes a new one: that is no loss of the document."""
    document = agent.documents / "policy.yaml"
    began = time.perf_counter()
    document.rename(agent.documents / "policy.yaml~")
    document.write_text(opening(OTHER))
    is_in_time = time.perf_counter() - began < MISSING_SECONDS
    wait_until_open(one_interface, OTHER)
    assert not is_let_in(one_interface, CLIENT, HOST, OPEN)
    assert not is_in_time or not agent.events("source_failed")


def test_a_reload_is_at_once(agent: Service, one_interface: Lab) -> None:
    """SIGHUP has the documents read without waiting for them to settle, and is told about."""
    document = agent.documents / "policy.yaml"
    with document.open("w") as still_open:
        still_open.write(opening(OTHER))
        still_open.flush()
        agent.reload()
        wait_until_open(one_interface, OTHER)
    assert agent.events("reload_requested")
    assert any(notice.startswith("RELOADING=1\nMONOTONIC_USEC=") for notice in agent.notices())
    wait_for(lambda: agent.notices().count("READY=1") == 2, "the end of the reload", NOTICED_SECONDS)


def test_documents_that_vanish_and_come_back(agent: Service, one_interface: Lab) -> None:
    """Without its documents the host stays as it is, loudly; it follows them when they are there again."""
    agent.documents.rename(agent.documents.with_name("gone"))  # emptied, it would be another reason
    agent.wait_for_event("source_failed")
    assert agent.metric("sgagent_source_up") == 0
    assert (agent.metric("sgagent_source_errors_total") or 0) >= 1
    assert is_let_in(one_interface, CLIENT, HOST, OPEN)
    assert not is_let_in(one_interface, CLIENT, HOST, OTHER)
    whole = agent.documents.with_name("whole")  # as above
    whole.mkdir()
    (whole / "policy.yaml").write_text(opening(OTHER))
    whole.rename(agent.documents)
    wait_until_open(one_interface, OTHER)
    agent.wait_for_event("source_recovered")
    assert agent.metric("sgagent_source_up") == 1
    assert len(agent.events("source_failed")) == 1


def version(agent: Service) -> str:
    """Return the version that is in force."""
    (sample,) = agent.families()["sgagent_snapshot_info"].samples
    return sample.labels["version"]


def test_half_of_a_document_is_not_enforced(agent: Service, one_interface: Lab) -> None:
    """Half of it could be read, and binds no link; another document is followed all the time."""
    whole, before = opening(OTHER), version(agent)
    half, rest, end = whole.partition("network_interfaces:")
    with (agent.documents / "policy.yaml").open("w") as slow:
        slow.write(half)
        slow.flush()
        agent.define("version: 1\nsecurity_groups:\n  - security_group_id: sg-2\n", "other.yaml")
        deadline = time.monotonic() + NOTICED_SECONDS
        while time.monotonic() < deadline:
            assert not is_let_in(one_interface, CLIENT, HOST, OTHER)
        assert version(agent) != before
        assert is_let_in(one_interface, CLIENT, HOST, OPEN)
        slow.write(rest + end)
    wait_until_open(one_interface, OTHER)
    assert not is_let_in(one_interface, CLIENT, HOST, OPEN)
    assert not agent.events("source_failed")


def test_files_that_are_moved_together_are_enforced_together(agent: Service) -> None:
    """Two files that are moved into place in one go exchange their contents: half of it is never enforced.

    By turns it would be a policy without the interface, and two objects with the same id.
    """
    agent.wait_for_event("agent_started")  # which is told behind READY, and is none of the files' doing
    rounds, at_once = 20, 0
    for turn in range(rounds):
        texts = [opening(OPEN, OTHER + turn), "version: 1\n"]
        moves = list(zip(("policy.yaml", "other.yaml"), texts if turn % 2 else reversed(texts), strict=True))
        for name, text in moves:
            (agent.documents / f".{name}").write_text(text)
        before = len(agent.all_events())
        began = time.perf_counter()
        for name, _ in moves:
            (agent.documents / f".{name}").rename(agent.documents / name)
        is_at_once = time.perf_counter() - began < DEBOUNCE_SECONDS
        version = version_of(texts)
        wait_for(partial(is_applied, agent, version), f"the files of turn {turn}", NOTICED_SECONDS)
        if is_at_once:
            at_once += 1
            assert applied(agent.all_events()[before:]) == [version]
    assert at_once, "no two files were moved quickly enough to tell"


def version_of(texts: list[str]) -> str:
    """Return the version of documents together."""
    files = tuple(DocumentFile(f"{place}.yaml", text.encode()) for place, text in enumerate(texts))
    return parse_documents(files, Limits())[0].version


def is_applied(agent: Service, version: str) -> bool:
    """Tell whether a version was enforced."""
    return version in applied(agent.all_events())


def applied(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the versions that were enforced, and the other events."""
    return [event.get("version", event["event"]) for event in events]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("broken", (BROKEN, "version: [", definitions(DROP_UNKNOWN), "\0"))
def test_a_broken_document_changes_nothing(agent: Service, one_interface: Lab, broken: str) -> None:
    """The last good policy stays in force; that is logged once, and metrics show it until it is mended."""
    generation = agent.generation()
    agent.define(broken)
    agent.wait_for_event("snapshot_refused")
    assert agent.metric("sgagent_snapshot_refused") == 1
    assert agent.metric("sgagent_source_errors_total") == 1
    (one_problem,) = agent.events("problem_found")
    assert str(agent.documents / "policy.yaml") in one_problem["problem"]
    agent.reload()
    wait_for(lambda: agent.metric("sgagent_source_errors_total") == 2, "the reload", NOTICED_SECONDS)
    assert is_let_in(one_interface, CLIENT, HOST, OPEN)
    assert not is_let_in(one_interface, CLIENT, HOST, OTHER)
    assert agent.generation() == generation
    assert len(agent.events("snapshot_refused")) == 1
    assert len(agent.events("problem_found")) == 1
    agent.define(opening(OTHER))
    wait_until_open(one_interface, OTHER)
    assert agent.metric("sgagent_snapshot_refused") == 0


def test_a_warning_shows(agent: Service, one_interface: Lab) -> None:
    """An odd but enforceable rule is enforced, logged once and counted in metrics."""
    agent.define(definitions(ACCEPT_UNKNOWN, f"ingress accept 1 tcp {OTHER} from 0.0.0.0/0"))
    wait_until_open(one_interface, OTHER)
    assert agent.metric("sgagent_unknown_objects") == 1
    assert agent.metric("sgagent_warnings") == 1
    assert [event["level"] for event in agent.events("problem_found")] == ["warning"]


def test_the_last_good_policy_outlives_a_restart(agent: Service, one_interface: Lab) -> None:
    """An agent that finds its documents gone or broken takes the last ones in force, on a fresh table too."""
    version = agent.metric("sgagent_snapshot_info")
    assert version == 1
    agent.stop()
    agent.namespace.nft("flush", "ruleset")
    agent.define(BROKEN)
    agent.start()
    assert is_let_in(one_interface, CLIENT, HOST, OPEN)
    assert not is_let_in(one_interface, CLIENT, HOST, OTHER)
    assert agent.metric("sgagent_snapshot_refused") == 1
    agent.stop()
    agent.namespace.nft("flush", "ruleset")
    (agent.documents / "policy.yaml").unlink()
    agent.start()
    assert is_let_in(one_interface, CLIENT, HOST, OPEN)
    assert not is_let_in(one_interface, CLIENT, HOST, OTHER)
    assert agent.metric("sgagent_source_up") == 0
