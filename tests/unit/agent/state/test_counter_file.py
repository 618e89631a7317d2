"""Counters in a file, over restarts and boots."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from sgagent.agent.state.counter_file import CounterFile, KeptCounters, read_boot_id
from sgagent.core.counter_keys import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    HitTimes,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
)
from sgagent.core.model import Direction, Policy
from sgagent.ports import CounterValue
from tests.words import rule_counter

KEYS: tuple[CounterKey, ...] = (
    rule_counter("sgr-web", group_id="sg-web"),
    DefaultCounter(interface="eth0", direction=Direction.EGRESS, verdict=Policy.DROP),
    InnerCounter(interface="eth0"),
    InvalidCounter(interface="eth0", direction=Direction.INGRESS),
    ExemptionCounter(interface="eth0", direction=Direction.EGRESS, kind=ExemptionKind.PLATFORM),
    ObservedDropCounter(interface="eth0", direction=Direction.INGRESS),
)
KEPT = KeptCounters(
    totals=tuple((key, CounterValue(packets=n, bytes=n * 2**40)) for n, key in enumerate(KEYS)),
    seen=(("rule/eth0/sgr-web", CounterValue(packets=3, bytes=180)),),
    times=(
        (KEYS[0], HitTimes(counted_since=1000.0, last_hit_at=2000.5)),
        (KEYS[1], HitTimes(counted_since=1000.0)),
    ),
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """Every kind of counter comes back as it was, in the same order."""
    directory = tmp_path / "not" / "made" / "yet"
    CounterFile(directory, "boot-1").save(KEPT)
    assert CounterFile(directory, "boot-1").load() == (KEPT, None)


def test_rows_begin_with_names_that_stay(tmp_path: Path) -> None:
    """They follow from the names of classes, which may not change without the format."""
    file = CounterFile(tmp_path, "boot-1")
    file.save(KEPT)
    rows = json.loads(json.loads(file.path.read_bytes())["body"])["totals"]
    assert [row[0] for row in rows] == ["rule", "default", "inner", "invalid", "exemption", "observed"]


def test_without_a_file_nothing_is_kept(tmp_path: Path) -> None:
    """The first start is no fault."""
    assert CounterFile(tmp_path, "boot-1").load() == (KeptCounters(), None)


def test_another_boot_starts_at_zero(tmp_path: Path) -> None:
    """The kernel's counters are gone with the boot; when there were hits is known still."""
    CounterFile(tmp_path, "boot-1").save(KEPT)
    assert CounterFile(tmp_path, "boot-2").load() == (KeptCounters(times=KEPT.times), None)


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    """Which rules are hit is nobody else's business."""
    file = CounterFile(tmp_path, "boot-1")
    file.save(KEPT)
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_saving_leaves_nothing_else_behind(tmp_path: Path) -> None:
    """The draft becomes the file."""
    file = CounterFile(tmp_path, "boot-1")
    file.save(KEPT)
    file.save(KeptCounters())
    assert [entry.name for entry in tmp_path.iterdir()] == ["counters.json"]


@pytest.mark.parametrize(
    "content",
    (
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b'{"format": 1}',
        b'{"format": 2, "boot_id": "boot-1", "sha256": "", "body": ""}',
        b'{"format": 1, "boot_id": "boot-1", "sha256": "", "body": 3}',
        b"[" * 100_000,
    ),
)
def test_a_file_that_is_damaged_is_put_aside(tmp_path: Path, content: bytes) -> None:
    """Counting starts at zero, the fault names the file, and it can still be looked at."""
    file = CounterFile(tmp_path, "boot-1")
    file.path.write_bytes(content)
    kept, fault = file.load()
    assert kept == KeptCounters()
    assert fault is not None
    assert str(file.path) in fault
    assert (tmp_path / "counters.json.damaged").read_bytes() == content
    assert file.load() == (KeptCounters(), None)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    """A count that was changed by a bad disk or a hand is not believed."""
    file = CounterFile(tmp_path, "boot-1")
    file.save(KEPT)
    file.path.write_bytes(file.path.read_bytes().replace(b"180", b"181"))
    kept, fault = file.load()
    assert kept == KeptCounters()
    assert fault is not None


@pytest.mark.parametrize(
    "body",
    (
        {"totals": [["rule", "eth0", 1, 2]], "seen": []},
        {"totals": [["default", "eth0", "sideways", "drop", 1, 2]], "seen": []},
        {"totals": [["inner", "eth0", -1, 2]], "seen": []},
        {"totals": [["inner", "eth0", 1.5, 2]], "seen": []},
        {"totals": [], "seen": [["name"]]},
        {"totals": [7], "seen": []},
        {"totals": []},
    ),
)
def test_a_row_that_makes_no_sense_is_a_fault(tmp_path: Path, body: object) -> None:
    """A file of another version of the agent is put aside, not half understood."""
    file = CounterFile(tmp_path, "boot-1")
    file.save(KeptCounters())
    outer = json.loads(file.path.read_bytes())
    outer["body"] = json.dumps(body)
    file.path.write_text(json.dumps(_resealed(outer)))
    _, fault = file.load()
    assert fault is not None


def test_a_file_that_can_not_be_read_is_a_fault(tmp_path: Path) -> None:
    """What stands in the file's place is left alone if it is not ours."""
    file = CounterFile(tmp_path, "boot-1")
    file.path.mkdir()
    _, fault = file.load()
    assert fault == f"{file.path}: Is a directory"


def test_a_file_that_can_not_be_put_aside_says_so(tmp_path: Path) -> None:
    """Two faults are told as one."""
    file = CounterFile(tmp_path, "boot-1")
    file.path.write_text("{")
    (tmp_path / "counters.json.damaged").mkdir()
    _, fault = file.load()
    assert fault is not None
    assert "could not be put aside" in fault


def test_the_boot_has_an_id() -> None:
    """It is the same as long as the host is up."""
    assert read_boot_id() == read_boot_id()
    assert len(read_boot_id()) == 36


def _resealed(outer: dict[str, str]) -> dict[str, str]:
    """Return the file with a checksum that agrees with its body."""
    return outer | {"sha256": sha256(outer["body"].encode()).hexdigest()}


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has totals, and says nothing of when there were hits."""
    CounterFile(tmp_path, "boot-1").save(KEPT)
    path = tmp_path / "counters.json"
    outer = json.loads(path.read_text())
    body = json.loads(outer["body"])
    del body["times"]
    text = json.dumps(body)
    path.write_text(json.dumps(outer | {"body": text, "sha256": sha256(text.encode()).hexdigest()}))
    assert CounterFile(tmp_path, "boot-1").load() == (replace(KEPT, times=()), None)
