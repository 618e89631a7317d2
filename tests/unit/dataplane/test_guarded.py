"""What a process of its own does, and how it may end."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from sgagent.dataplane.libnftables import WorkerDiedError, guarded


class No(Exception):  # noqa: N818 - an answer, not an error
    """What the work may say instead."""


def test_what_it_returns_arrives() -> None:
    """However long; nothing is something too."""
    assert guarded(lambda: b"", No) == b""
    assert guarded(lambda: bytes(3_000_000), No) == bytes(3_000_000)


def test_what_it_refuses_is_refused_here() -> None:
    """In its own words."""

    def refuse() -> bytes:
        raise No("not hére")

    with pytest.raises(No, match="not hére"):
        guarded(refuse, No)


@pytest.mark.parametrize("number", (signal.SIGABRT, signal.SIGSEGV))
def test_a_fault_of_its_own_is_told_apart(number: signal.Signals) -> None:
    """Such work must not be done again the same way."""

    def end() -> bytes:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return b""

    with pytest.raises(WorkerDiedError, match=number.name):
        guarded(end, No)


def test_a_process_that_somebody_ends_has_refused() -> None:
    """As has one that can't go on: it says nothing about the work."""

    def end() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    def fail() -> bytes:
        raise MemoryError

    for work in (end, fail):
        with pytest.raises(No, match="has ended with"):
            guarded(work, No)


def test_a_process_that_can_not_be_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As any lack of resources: who asked tries again. Nothing stays open meanwhile."""

    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    opened = Path("/proc/self/fd")
    before = len([*opened.iterdir()])
    with pytest.raises(No, match="Resource temporarily unavailable"):
        guarded(lambda: b"", No)
    assert len([*opened.iterdir()]) == before
