"""The formats of state files."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from sgagent.agent.manual_override import ModeFile, ModeOverrides
from sgagent.agent.state.counter_file import CounterFile
from sgagent.agent.state.directory import (
    DamagedStateError,
    KeptDocuments,
    decode_head,
    decode_kept,
    encode_kept,
)
from sgagent.core.model import Mode
from tests.unit.agent.state.test_counter_file import KEPT as COUNTERS
from tests.unit.agent.state.test_snapshot_file import KEPT

WRITTEN = Path(__file__).parent / "written"
WRITTEN_SNAPSHOT = (WRITTEN / "snapshot.json").read_bytes()
WRITTEN_EMPTY_SNAPSHOT = (WRITTEN / "empty_snapshot.json").read_bytes()
WRITTEN_COUNTERS = (WRITTEN / "counters.json").read_bytes()
WRITTEN_MODES = (WRITTEN / "modes.json").read_bytes()


@pytest.mark.parametrize(
    ("kept", "written"), ((KEPT, WRITTEN_SNAPSHOT), (KeptDocuments("v", ()), WRITTEN_EMPTY_SNAPSHOT))
)
def test_snapshots_keep_their_format(kept: KeptDocuments, written: bytes) -> None:
    """To the byte, with names of files that are no text."""
    assert decode_kept(written, "x") == kept
    assert decode_head(written, "x").record == kept.record
    assert encode_kept(kept) == written


def test_counters_keep_their_format(tmp_path: Path) -> None:
    """To the byte, for each kind of counter."""
    file = CounterFile(tmp_path, "boot-1")
    file.path.write_bytes(WRITTEN_COUNTERS)
    assert file.load() == (COUNTERS, None)
    file.save(COUNTERS)
    assert file.path.read_bytes() == WRITTEN_COUNTERS


def test_modes_keep_their_format(tmp_path: Path) -> None:
    """To the byte."""
    modes = ModeOverrides(everywhere=Mode.OBSERVE, by_interface={"eth1": Mode.ENFORCE, "eth0": Mode.OBSERVE})
    path = tmp_path / "modes.json"
    path.write_bytes(WRITTEN_MODES)
    assert ModeFile(tmp_path).load() == (modes, None)
    ModeFile(tmp_path).save(modes)
    assert path.read_bytes() == WRITTEN_MODES


def resealed(head: object, body: object) -> bytes:
    """Return a snapshot file whose checksum agrees with what is in it."""
    rest = f"{json.dumps(head)}\n{json.dumps(body)}\n".encode()
    return json.dumps({"format": 3, "sha256": sha256(rest).hexdigest()}).encode() + b"\n" + rest


HEAD = json.loads(WRITTEN_SNAPSHOT.splitlines()[1])
BODY = json.loads(WRITTEN_SNAPSHOT.splitlines()[2])


@pytest.mark.parametrize(
    ("head", "body", "reason"),
    (
        (HEAD | {"version": 3}, BODY, "version: "),
        (HEAD | {"record": HEAD["record"] | {"origin": "chance"}}, BODY, "record.origin: "),
        (HEAD | {"record": HEAD["record"] | {"enforced_at": "noon"}}, BODY, "record.enforced_at: "),
        (HEAD | {"record": HEAD["record"] | {"extent": {"rules": 1}}}, BODY, "record.extent.interfaces: "),
        ({}, BODY, "version: "),
        ([], BODY, "expected an object"),
        (HEAD, BODY | {"documents": [{"name": "a"}]}, "documents[0].content: missing"),
        (HEAD, BODY | {"links": [{"interface": "eth0"}]}, "links[0].network_interface_id: missing"),
        (HEAD, {}, "documents: "),
    ),
)
def test_what_makes_no_sense_is_reported_with_its_field(head: object, body: object, reason: str) -> None:
    """In one line, whatever else is wrong; the file is named."""
    with pytest.raises(DamagedStateError) as caught:
        decode_kept(resealed(head, body), "history/7")
    message = str(caught.value)
    assert message.startswith("history/7: damaged: not a file of kept documents: ")
    assert reason in message
    assert "\n" not in message
