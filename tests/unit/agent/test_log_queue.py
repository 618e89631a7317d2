"""The queue before standard error: who writes never waits, and who reads knows what is missing."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest

from sgagent.agent.log import LogQueue
from tests.patience import PATIENCE
from tests.waiting import wait_until

ROOM = 20_000
LINE = "x" * 99 + "\n"


def notice(lines: int) -> str:
    """Return the line that stands for lines that are missing."""
    return f"{lines} dropped\n"


@dataclass(slots=True)
class Pipe:
    """A pipe with a page of room, and what was read from it."""

    reading: int
    stream: TextIO
    received: bytes = b""

    def fill(self) -> None:
        """Leave no room."""
        os.set_blocking(self.stream.fileno(), False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.stream.fileno(), b"#" * 64)
        os.set_blocking(self.stream.fileno(), True)

    def read(self) -> str:
        """Read what is there, and return all that was read but for what filled the pipe."""
        while select.select([self.reading], [], [], 0)[0] and (some := os.read(self.reading, 4096)):
            self.received += some
        return self.received.decode().lstrip("#")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Make a pipe."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with open(writing, "w") as stream:  # noqa: PTH123 - a number, not a path
        yield Pipe(reading, stream)
    os.close(reading)


@pytest.fixture
def queue(pipe: Pipe) -> Iterator[LogQueue]:
    """Make a queue before the pipe, and let its thread end."""
    made = LogQueue(pipe.stream, notice, most_waiting_bytes=ROOM, stalled_seconds=0.05)
    yield made
    made.close()
    wait_until(lambda: pipe.read() is not None and not _threads(), "the thread to end")


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "log"]


def test_lines_arrive_in_their_order(pipe: Pipe, queue: LogQueue) -> None:
    """Also those that are printed in pieces."""
    print("one", 1, file=queue)
    queue.write("two\nthr")
    queue.write("ee\n")
    wait_until(lambda: pipe.read() == "one 1\ntwo\nthree\n", "the lines")
    assert (queue.dropped_lines, queue.fault) == (0, None)


def test_lines_of_several_threads_stay_whole(pipe: Pipe, queue: LogQueue) -> None:
    """As the log promises."""
    threads = [
        threading.Thread(target=lambda sign=sign: [queue.write(sign * 99 + "\n") for _ in range(40)])
        for sign in "abcd"
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: pipe.read().count("\n") == 160, "all lines")
    for thread in threads:
        thread.join()
    assert {(len(line), len(set(line))) for line in pipe.read().splitlines()} == {(99, 1)}


def test_a_reader_that_stalls_keeps_nobody_waiting(pipe: Pipe, queue: LogQueue) -> None:
    """What finds no room is counted, and the number stands where the lines would have."""
    pipe.fill()
    began = time.monotonic()
    for _ in range(1000):
        queue.write(LINE)
    assert time.monotonic() - began < 1.0 * PATIENCE
    kept = ROOM // len(LINE)
    assert queue.dropped_lines == 1000 - kept
    assert f"lines dropped so far: {1000 - kept}" in (queue.fault or "")
    wait_until(lambda: pipe.read().endswith(" dropped\n"), "the reader to be told")
    assert pipe.read() == LINE * kept + f"{1000 - kept} dropped\n"
    queue.write("afterwards\n")
    wait_until(lambda: pipe.read().endswith("dropped\nafterwards\n"), "the next line")
    assert (queue.dropped_lines, queue.fault) == (1000 - kept, None)


def test_a_reader_that_is_slow_is_not_told_after_each_line(pipe: Pipe, queue: LogQueue) -> None:
    """Once the room is full, half of it has to be free before a line is taken again."""
    pipe.fill()
    while not queue.dropped_lines:
        queue.write(LINE)
    os.read(pipe.reading, 4096)
    for _ in range(100):
        queue.write(LINE)
    assert queue.dropped_lines == 101
    wait_until(lambda: pipe.read().endswith("101 dropped\n"), "the reader to be told once")


def test_a_line_larger_than_the_room_is_dropped(pipe: Pipe, queue: LogQueue) -> None:
    """Others follow."""
    queue.write("x" * ROOM + "\n")
    wait_until(lambda: pipe.read() == "1 dropped\n", "the reader to be told")
    queue.write(LINE)
    wait_until(lambda: pipe.read() == "1 dropped\n" + LINE, "the next line")


def test_a_reader_that_is_gone_hurts_nobody(queue: LogQueue, pipe: Pipe) -> None:
    """Lines are counted, and the thread waits for the next."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), pipe.reading)
    for _ in range(3):
        queue.write(LINE)
    wait_until(lambda: queue.dropped_lines == 3, "the lines to be counted")
    assert "lines dropped so far: 3" in (queue.fault or "")


def test_a_full_disk_that_has_room_again_is_told_what_is_missing(tmp_path: Path) -> None:
    """Before the next line, which may come after hours."""
    path = tmp_path / "log"
    path.write_text("#" * ROOM)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with path.open("a") as stream:
        queue = LogQueue(stream, notice, retry_seconds=0.01)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))  # a write beyond it fails
            queue.write(LINE)
            wait_until(lambda: queue.fault is not None, "the line to be counted")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        wait_until(lambda: queue.fault is None, "the end of the fault")
        queue.close()
    assert path.read_text().lstrip("#") == "1 dropped\n"


def test_a_file_that_others_made_non_blocking_is_waited_for(pipe: Pipe, queue: LogQueue) -> None:
    """Whoever shares it may do so at any time."""
    pipe.fill()
    os.set_blocking(pipe.stream.fileno(), False)
    queue.write(LINE)
    wait_until(lambda: pipe.read() == LINE, "the line")
    assert queue.dropped_lines == 0


def test_the_end_waits_for_a_reader_who_reads(pipe: Pipe, queue: LogQueue) -> None:
    """A line that was not ended is written too."""
    for _ in range(100):
        queue.write(LINE)
    queue.write("the last")
    reader = threading.Thread(target=wait_until, args=[lambda: pipe.read().endswith("last\n"), "all"])
    reader.start()
    queue.close()
    reader.join()
    assert pipe.read() == LINE * 100 + "the last\n"


def test_the_end_gives_a_reader_up_who_stalls(pipe: Pipe, queue: LogQueue) -> None:
    """What is written after it goes nowhere."""
    pipe.fill()
    queue.write(LINE)
    began = time.monotonic()
    queue.close()
    queue.close()
    queue.write("too late\n")
    assert time.monotonic() - began < 5.0 * PATIENCE


_PROGRAM = """
import sys, threading, warnings
from sgagent.agent.log import log_in_background
import structlog
queue = log_in_background()
structlog.get_logger().info("agent_started")
warnings.warn("a warning")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
structlog.get_logger().info("filler", text="x" * 100_000)
print("the last words", file=sys.stderr)
raise LookupError("at the end")
"""


def test_all_that_goes_to_standard_error_goes_through_it_and_nothing_is_lost_at_the_end() -> None:
    """Log, warnings, traces of threads, and the trace that ends the process."""
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this Python, and a text of this file
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert '"event": "agent_started"' in lines[0]
    assert "UserWarning: a warning" in lines[1]
    assert "ZeroDivisionError: division by zero" in lines
    assert "the last words" in lines
    assert lines[-1] == "LookupError: at the end"


def test_a_process_ends_in_order_though_nobody_reads() -> None:
    """No lock of a stream is held by the thread that waits for the reader."""
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], stderr=subprocess.PIPE) as process:  # noqa: S603 - likewise
        assert process.wait(20.0 * PATIENCE) == 1
