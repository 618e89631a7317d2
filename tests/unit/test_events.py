"""The log's events and their document say the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from sgagent.dataplane.live_sessions import Ending

ROOT = Path(__file__).parents[2]
LAYERS = ("agent", "sources", "host", "dataplane")
"""Where the daemon runs; below them, what looks alike are the codes of problems."""

ASSEMBLY = ROOT / "sgagent" / "cli" / "daemon_assembly.py"
"""Puts the daemon together, and logs as that."""

LOGGING_METHODS = {
    "debug",
    "info",
    "warning",
    "error",
    "critical",
    "exception",
    "log",
    "log_warning",
    "_log_warning",
}
EVENT = re.compile(r"[a-z]+(_[a-z]+)+")


def logged_events() -> Iterator[str]:
    """Return the events that the sources log."""
    of_layers = (path for layer in LAYERS for path in (ROOT / "sgagent" / layer).rglob("*.py"))
    for path in (*of_layers, ASSEMBLY):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr=method) | ast.Name(id=method), args=[ast.Constant(str(event)), *_]
                ):
                    if method in LOGGING_METHODS and EVENT.fullmatch(event):
                        yield event


def documented_events() -> set[str]:
    """Return the events that the document lists."""
    cells = re.findall(r"^\| (`[a-z_`, ]+`) \|", (ROOT / "docs" / "logging.md").read_text(), re.MULTILINE)
    return {event for cell in cells for event in re.findall(r"[a-z_]+", cell)}


def test_every_ending_of_a_session_is_documented() -> None:
    """The row of ``session_cut`` has each, as not all mean that the session ended."""
    text = (ROOT / "docs" / "logging.md").read_text()
    (row,) = re.findall(r"^\| `session_cut` .*$", text, re.MULTILINE)
    assert [ending.value for ending in Ending if f"`{ending.value}`" not in row] == []


def test_every_event_is_documented_and_every_documented_event_exists() -> None:
    """Whoever writes an alert on the log finds each event in the document, and none that never comes."""
    assert set(logged_events()) == documented_events()
