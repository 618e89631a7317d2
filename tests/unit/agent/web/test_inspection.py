"""The inspection runs on request, once for each policy, and within limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgagent.agent.web.inspection import FRESH_SECONDS, MOST_BYTES, MOST_RULES, Inspected, Inspection
from sgagent.core.binding import HostListener
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile
from sgagent.settings import Settings, parse_settings
from tests.unit.agent.web.reading import PATIENCE_SECONDS, Reader
from tests.waiting import wait_until


class Listening:
    """List no listeners, count the calls, and block while a test wants it."""

    def __init__(self) -> None:
        """Do not block."""
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self) -> tuple[HostListener, ...]:
        """Return nothing once it is not blocked."""
        self.asked += 1
        assert self.may_answer.wait(PATIENCE_SECONDS)
        return ()


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Return a reader of an agent that enforces the three-tier example."""
    made = Reader(tmp_path)
    made.enforce_example("three-tier/web")
    return made


@pytest.fixture
def listening() -> Iterator[Listening]:
    """Return a list of listeners, and release it at the end."""
    made = Listening()
    yield made
    made.may_answer.set()


def inspection_of(
    reader: Reader, listening: Listening, settings: Settings | None = None, patience: float = PATIENCE_SECONDS
) -> Inspection:
    """Return the inspection of the agent."""
    return Inspection(reader.published, settings or Settings(), reader.clock, listening, patience)


def codes(result: Inspected) -> set[str]:
    """Return the codes of the findings."""
    assert not result.reason
    return {finding.code for finding in result.findings}


def test_it_looks_once_for_each_policy(reader: Reader, listening: Listening) -> None:
    """The result is cached until the policy changes."""
    inspection = inspection_of(reader, listening)
    first = inspection.result()
    assert "nothing_listens" in codes(first)
    assert inspection.result() is first
    assert listening.asked == 1
    reader.enforce(reader.published.policy, reader.published.definitions[1], version="v2")
    assert inspection.result() is not first
    assert listening.asked == 2


def test_it_looks_again_after_a_while(reader: Reader, listening: Listening) -> None:
    """The cache expires, as listeners and use may have changed."""
    inspection = inspection_of(reader, listening)
    first = inspection.result()
    reader.clock.pass_seconds(FRESH_SECONDS + 1)
    listening.may_answer.clear()
    assert inspection.result() is first, "nobody waits for what is known"
    listening.may_answer.set()
    until = time.monotonic() + PATIENCE_SECONDS
    while inspection.result() is first:
        assert time.monotonic() < until
    assert listening.asked == 2


def test_nobody_waits_for_long(reader: Reader, listening: Listening) -> None:
    """A request during an inspection is told to refresh; only one inspection runs at a time."""
    listening.may_answer.clear()
    hasty = inspection_of(reader, listening, patience=0.01)
    told = hasty.result()
    assert "refresh in a moment" in told.reason
    wait_until(lambda: listening.asked > 0, "the look to come to who listens")
    hasty.result()
    assert listening.asked == 1


@pytest.mark.one_python
def test_what_is_too_large_is_not_begun(reader: Reader, listening: Listening) -> None:
    """Too many rules are refused, to leave the processor to the main loop."""
    rules = "\n".join(
        f"      - {{rule_id: r{number}, direction: ingress, policy: accept, priority: 1, protocol: tcp, "
        f"port_range: {number % 60000 + 1}, authorization_object: 0.0.0.0/0}}"
        for number in range(MOST_RULES + 1)
    )
    text = f"version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n    rules:\n{rules}\n"
    reader.enforce(ResolvedPolicy(), (DocumentFile("a.yaml", text.encode()),), version="v2")
    told = inspection_of(reader, listening).result()
    assert f"({MOST_RULES + 1})" in told.reason
    assert listening.asked == 0


def test_what_takes_long_to_read_is_not_read(reader: Reader, listening: Listening) -> None:
    """Large documents are refused without parsing them."""
    long = b"version: 1\n#" + b" " * MOST_BYTES
    reader.enforce(ResolvedPolicy(), (DocumentFile("a.yaml", long),), version="v2")
    told = inspection_of(reader, listening).result()
    assert f"({len(long)} bytes)" in told.reason


def test_checks_are_left_out_as_the_configuration_says(reader: Reader, listening: Listening) -> None:
    """The setting works as for the command."""
    settings = parse_settings('[lint]\ndisable = ["nothing_listens"]\n', "sgagent.toml")
    assert "nothing_listens" not in codes(inspection_of(reader, listening, settings).result())


def test_without_definitions_there_is_nothing_to_look_at(tmp_path: Path, listening: Listening) -> None:
    """Without definitions, the result says so."""
    assert inspection_of(Reader(tmp_path), listening).result() == Inspected(
        reason="No definitions are in force."
    )


def test_unreadable_definitions_are_no_fault_of_the_page(reader: Reader, listening: Listening) -> None:
    """The log has the reason, and the page still works."""
    reader.enforce(ResolvedPolicy(), (DocumentFile("a.yaml", b"nonsense"),), version="v2")
    told = inspection_of(reader, listening).result()
    assert "inspection of the definitions failed" in told.reason
