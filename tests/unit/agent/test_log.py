"""How the log looks on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from sgagent.agent.log import configure_log


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Broken(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, _text: str, /) -> int:
        """Fail as a pipe does."""
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave structlog as it was."""
    yield
    structlog.reset_defaults()


def test_elsewhere_each_event_is_a_json_object() -> None:
    """A file or the journal gets one object per line, with time and level."""
    stream = io.StringIO()
    configure_log(stream)
    structlog.get_logger().info("ruleset_applied", rules=3, interface="eth0")
    entry = json.loads(stream.getvalue())
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "ruleset_applied", "level": "info", "rules": 3, "interface": "eth0"}


def test_an_exception_is_one_line_of_json() -> None:
    """A traceback stands in the object, not below it."""
    stream = io.StringIO()
    configure_log(stream)
    try:
        int("three")
    except ValueError:
        structlog.get_logger().exception("step_failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


def test_values_that_json_does_not_know_are_written_as_text() -> None:
    """A log call never fails for the type of a value."""
    stream = io.StringIO()
    configure_log(stream)
    structlog.get_logger().info("ruleset_applied", reason=OSError(2, "gone"))
    assert json.loads(stream.getvalue())["reason"] == "[Errno 2] gone"


def test_a_terminal_gets_lines_for_people() -> None:
    """A person sees the event and its keys, in colour."""
    stream = Terminal()
    configure_log(stream, environment={})
    structlog.get_logger().info("ruleset_applied", rules=3)
    assert "ruleset_applied" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


@pytest.mark.parametrize("environment", ({"NO_COLOR": "1"}, {"TERM": "dumb"}))
def test_colours_can_be_switched_off(environment: dict[str, str]) -> None:
    """NO_COLOR and a terminal without colours are honoured."""
    stream = Terminal()
    configure_log(stream, environment=environment)
    structlog.get_logger().warning("snapshot_refused", problems=3)
    assert "\x1b" not in stream.getvalue()
    assert "problems=3" in stream.getvalue()


@pytest.mark.parametrize("stream", (Terminal(), io.StringIO()), ids=("terminal", "file"))
@pytest.mark.parametrize("hostile", ("\x1b]0;pwned\x07", "a\nb", "\u202eevil", "\x9b31m", "\udc80"))
def test_no_document_drives_the_reader_s_terminal(stream: io.StringIO, hostile: str) -> None:
    """Control characters, line breaks and bidirectional overrides are escaped, in lists too."""
    stream.truncate(0)
    configure_log(stream, environment={"NO_COLOR": "1"})
    structlog.get_logger().info("snapshot_refused", value=hostile, several=[hostile], key=(hostile,))
    assert stream.getvalue().count("\n") == 1
    assert not set(hostile) & set(stream.getvalue()) - set("0;pwned31mabevil]\n")


def test_what_is_below_the_level_is_not_written() -> None:
    """Details are silent."""
    stream = io.StringIO()
    configure_log(stream)
    structlog.get_logger().debug("ruleset_applied")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("break_it", (Broken, io.StringIO))
def test_a_log_that_can_not_be_written_stops_nobody(break_it: type[io.StringIO]) -> None:
    """A reader that went away, or a closed stream, is no reason to stop enforcing."""
    stream = break_it()
    configure_log(stream)
    stream.close()
    structlog.get_logger().info("ruleset_applied")
