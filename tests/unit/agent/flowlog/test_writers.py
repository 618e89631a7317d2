"""How flows are written down."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.agent.flowlog.flow import (
    FileWriter,
    FlowWriter,
    JournalWriter,
    PartlyWrittenError,
    StreamWriter,
    as_line,
    make_writer,
    written_time,
)
from sgagent.core.model import Mode
from sgagent.settings.tables import FlowLogSettings, FlowOutput
from tests.unit.agent.flowlog.flows import dropped, left_out

pytestmark = pytest.mark.one_python


def test_a_flow_is_an_object_on_a_line() -> None:
    """Its time is UTC; whatever is no plain ASCII is escaped."""
    line = as_line(replace(dropped(1), rule_id="ä\n"))
    assert line.endswith("\n")
    assert line.isascii()
    assert line.count("\n") == 1
    found = json.loads(line)
    assert found["time"] == "2023-11-14T22:13:21.000000Z"
    assert (found["verdict"], found["decided_by"], found["rule_id"]) == ("drop", "default", "ä\n")
    assert found["source"] == {
        "address": "203.0.113.9",
        "port": 40_000,
        "network_interface_id": None,
        "security_group_ids": [],
    }
    assert "seen_at" not in found


def test_what_was_left_out_is_a_line_too() -> None:
    """With how many they were."""
    found = json.loads(as_line(left_out(7)))
    assert (found["left_out"], found["interface"], found["direction"]) == (7, "eth0", "ingress")


def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    """By the next agent, too; nobody but its owner and group may read it."""
    path = tmp_path / "flows.log"
    for number in (1, 2):
        FileWriter(path, rotate_bytes=1 << 20, keep_files=2).write([dropped(number)])
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [1, 2]
    assert path.stat().st_mode & 0o137 == 0


def numbers_in(path: Path) -> list[int]:
    """Return the numbers of the flows in a file."""
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


def test_a_full_file_makes_room_for_the_next(tmp_path: Path) -> None:
    """The newest of the earlier ones is number 1, and the oldest goes."""
    path = tmp_path / "flows.log"
    writer = FileWriter(path, rotate_bytes=2 * len(as_line(dropped(1))), keep_files=2)
    for number in range(1, 8):
        writer.write([dropped(number)])
    assert numbers_in(path) == [7]
    assert numbers_in(tmp_path / "flows.log.1") == [5, 6]
    assert numbers_in(tmp_path / "flows.log.2") == [3, 4]
    assert not (tmp_path / "flows.log.3").exists()


def test_earlier_files_need_not_be_kept(tmp_path: Path) -> None:
    """Then a full one just goes."""
    path = tmp_path / "flows.log"
    writer = FileWriter(path, rotate_bytes=1, keep_files=0)
    for number in (1, 2):
        writer.write([dropped(number)])
        assert numbers_in(path) == [number]
    assert [entry.name for entry in tmp_path.iterdir()] == ["flows.log"]


def test_what_has_no_room_leaves_no_half_line(tmp_path: Path) -> None:
    """The next one that has begins a line of its own."""
    path = tmp_path / "flows.log"
    writer = FileWriter(path, rotate_bytes=1 << 20, keep_files=1)
    writer.write([dropped(1)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.write([dropped(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    writer.write([dropped(3)])
    assert numbers_in(path) == [1, 3]


def test_a_full_file_that_can_not_be_moved_does_not_grow(tmp_path: Path) -> None:
    """What would be written then is not."""
    path = tmp_path / "flows.log"
    (tmp_path / "flows.log.1").mkdir()
    writer = FileWriter(path, rotate_bytes=1, keep_files=1)
    writer.write([dropped(1)])
    with pytest.raises(IsADirectoryError):
        writer.write([dropped(2)])
    assert numbers_in(path) == [1]


def test_a_file_that_somebody_moved_away_is_begun_anew(tmp_path: Path) -> None:
    """As other programs that turn logs over do."""
    path = tmp_path / "flows.log"
    writer = FileWriter(path, rotate_bytes=1 << 20, keep_files=2)
    writer.write([dropped(1)])
    path.rename(tmp_path / "elsewhere")
    writer.write([dropped(2)])
    assert numbers_in(path) == [2]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write to the directory can't have another file written."""
    (tmp_path / "flows.log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        FileWriter(tmp_path / "flows.log", rotate_bytes=1, keep_files=1).write([dropped(1)])
    assert not (tmp_path / "precious").exists()


def test_the_journal_has_a_sentence_and_fields(tmp_path: Path) -> None:
    """No id of a document can end a field."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        entry = replace(dropped(1), rule_id="a\nPRIORITY=0", security_group_id="sg-1", mode=Mode.OBSERVE)
        JournalWriter(tmp_path / "journal").write([entry])
        lines = journal.recv(1 << 16).decode().splitlines()
    assert lines[0] == (
        r"MESSAGE=would be dropped on eth0 ingress by rule a\nPRIORITY=0 of sg-1: tcp 22 from 203.0.113.9"
        " port 40000 to eni-web-1 (sg-web) 10.0.0.11"
    )
    fields = dict(line.split("=", 1) for line in lines)
    assert fields["PRIORITY"] == "6"
    assert fields["SYSLOG_IDENTIFIER"] == "sgagent-flows"
    assert fields["SGAGENT_RULE_ID"] == r"a\nPRIORITY=0"
    assert json.loads(fields["SGAGENT_FLOW"])["number"] == 1


def test_a_journal_that_was_started_anew_is_found_again(tmp_path: Path) -> None:
    """What is written meanwhile is lost."""
    writer = JournalWriter(tmp_path / "journal")
    with pytest.raises(FileNotFoundError):
        writer.write([dropped(1)])
    for number in (1, 2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.bind(str(tmp_path / "journal"))
            writer.write([dropped(number)])
            assert f'"number": {number}' in journal.recv(1 << 16).decode()
        with pytest.raises(ConnectionRefusedError):
            writer.write([left_out(1)])
        (tmp_path / "journal").unlink()


def test_an_entry_too_large_for_the_journal_takes_no_other_along(tmp_path: Path) -> None:
    """It alone is lost."""
    large = replace(dropped(2), rule_id="x" * 300_000)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        with pytest.raises(PartlyWrittenError, match="Message too long") as raised:
            JournalWriter(tmp_path / "journal").write([dropped(1), large, dropped(3)])
        for number in (1, 3):
            assert f'"number": {number}' in journal.recv(1 << 16).decode()
    assert raised.value.lost == 1


def test_a_journal_that_stalls_loses_only_what_it_has_no_room_for(tmp_path: Path) -> None:
    """What it took before is not counted as lost."""
    entries = [dropped(number) for number in range(1000)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        with pytest.raises(PartlyWrittenError, match="timed out") as raised:
            JournalWriter(tmp_path / "journal").write(entries)
        journal.settimeout(0)
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while journal.recv(1 << 16):
                taken += 1
    assert 0 < taken < len(entries)
    assert raised.value.lost == len(entries) - taken


@pytest.fixture(params=("stream", "fifo"))
def pipe(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, FlowWriter]]:
    """Give the reading end of a pipe with room for four pages, and what writes to it."""
    path = tmp_path / "flows.fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4 * select.PIPE_BUF)
    with path.open("w") as stream:
        if request.param == "stream":
            yield reading, StreamWriter(stream)
        else:
            yield reading, FileWriter(path, rotate_bytes=1, keep_files=1)
    os.close(reading)


def test_a_pipe_has_lines_at_once(pipe: tuple[int, FlowWriter]) -> None:
    """Standard output, or a FIFO that somebody reads."""
    reading, writer = pipe
    writer.write([dropped(1), left_out(2)])
    received = os.read(reading, 65536).splitlines()
    assert [json.loads(line)["verdict"] for line in received] == ["drop", "drop"]


def test_a_reader_that_stalls_is_given_up(pipe: tuple[int, FlowWriter]) -> None:
    """What it has not room for is lost and counted; no line is cut when it reads again."""
    reading, writer = pipe
    entries = [dropped(number) for number in range(100)]
    with pytest.raises(PartlyWrittenError, match="nobody reads it") as raised:
        writer.write(entries)
    received = os.read(reading, 65536)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)
    writer.write([dropped(1000)])
    numbers = [json.loads(line)["number"] for line in (received + os.read(reading, 65536)).splitlines()]
    assert numbers == [*range(len(entries) - raised.value.lost), 1000]
    assert 0 < raised.value.lost < len(entries)


def test_a_line_that_began_is_gone_on_with(pipe: tuple[int, FlowWriter]) -> None:
    """A line may be longer than the room in the pipe."""
    reading, writer = pipe
    long = replace(dropped(1), rule_id="x" * 5 * select.PIPE_BUF)
    with pytest.raises(PartlyWrittenError) as raised:
        writer.write([long, dropped(2)])
    assert raised.value.lost == 1
    received = os.read(reading, 65536)
    thread = threading.Thread(target=writer.write, args=[[dropped(3)]])
    thread.start()
    while received.count(b"\n") < 2:
        with contextlib.suppress(BlockingIOError):
            received += os.read(reading, 65536)
    thread.join()
    assert [json.loads(line)["number"] for line in received.splitlines()] == [1, 3]


def test_a_reader_that_has_gone_is_an_error(pipe: tuple[int, FlowWriter]) -> None:
    """All entries are lost."""
    reading, writer = pipe
    os.dup2(os.open(os.devnull, os.O_RDONLY), reading)
    with pytest.raises(OSError, match=r"Broken pipe|No such device"):
        writer.write([dropped(1)])


def test_the_configuration_says_where(tmp_path: Path) -> None:
    """Each word, and a path."""
    kinds = {FlowOutput.JOURNAL: JournalWriter, FlowOutput.STDOUT: StreamWriter}
    for output, kind in kinds.items():
        assert isinstance(make_writer(FlowLogSettings(output=output)), kind)
    assert make_writer(FlowLogSettings(output=FlowOutput.NONE)) is None
    assert isinstance(make_writer(FlowLogSettings(output=tmp_path / "flows.log")), FileWriter)


def test_moments_are_written_in_utc() -> None:
    """With as much as the clock knows."""
    assert written_time(0.25) == "1970-01-01T00:00:00.250000Z"
