"""Long work tells a terminal how far it has come, and nobody else."""

from __future__ import annotations

import io

from sgagent.cli.output import PATIENCE_SECONDS, progress


class Terminal(io.StringIO):
    """A terminal that remembers what was written."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True


def worked(stream: io.StringIO, seconds_of_a_step: float, steps: int = 4) -> str:
    """Return what is written about work that takes so long."""
    now = 0.0
    with progress("judging packets", steps, stream=stream, clock=lambda: now) as advance:
        for _ in range(steps):
            now += seconds_of_a_step
            advance()
    return stream.getvalue()


def test_what_is_soon_done_is_not_spoken_of() -> None:
    """Nothing is written before the patience is at its end."""
    assert worked(Terminal(), PATIENCE_SECONDS / 10) == ""


def test_long_work_counts_on_one_line_and_takes_it_away() -> None:
    """Each time the line is written over; at the end it is empty."""
    written = worked(Terminal(), PATIENCE_SECONDS)
    assert written.startswith("\rjudging packets: 1 of 4\x1b[K\rjudging packets: 2 of 4")
    assert written.endswith("\r\x1b[K")


def test_a_file_gets_nothing() -> None:
    """What is no terminal is read by programs."""
    assert worked(io.StringIO(), PATIENCE_SECONDS) == ""
