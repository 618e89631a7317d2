"""The packages' configuration is valid whatever is uncommented in it, observes, and says the defaults."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace

import pytest

from release.example import example_configuration
from release.manual import DOCS
from sgagent.core.model import Mode
from sgagent.settings import Settings, parse_settings

EXAMPLE = example_configuration()
_COMMENTED = re.compile(r"#(?=[^#\s])")
LINES = EXAMPLE.splitlines()
COMMENTED = [number for number, line in enumerate(LINES) if _COMMENTED.match(line)]
OBSERVING = replace(Settings(), enforcement=replace(Settings().enforcement, mode=Mode.OBSERVE))


def with_lines(*numbers: int) -> str:
    """Return the example with these lines in force."""
    return "\n".join(line[1:] if number in numbers else line for number, line in enumerate(LINES))


def test_it_observes_as_it_comes() -> None:
    """Nothing else in it is in force: who installs a package is locked out by nothing (§9.2)."""
    assert parse_settings(EXAMPLE, "example") == OBSERVING


@pytest.mark.parametrize("number", COMMENTED, ids=lambda number: LINES[number])
def test_each_line_can_be_uncommented_alone(number: int) -> None:
    """Its table is there already, once."""
    settings = parse_settings(with_lines(number), "example")
    if not LINES[number].startswith(("#interface", "#failsafe")):
        assert settings == OBSERVING  # the defaults


def test_all_of_it_can_be_uncommented() -> None:
    """With tables that may be repeated, whose entries could be meant."""
    settings = parse_settings(with_lines(*COMMENTED), "example")
    assert len(settings.interfaces) == len(settings.failsafe) == 1
    assert replace(settings, interfaces=(), failsafe=()) == OBSERVING


def test_a_table_that_may_be_repeated_can_be_appended() -> None:
    """As the documents write it."""
    added = '[[interface]]\nname = "eth0"\nsecurity_group_ids = []\n'
    assert len(parse_settings(EXAMPLE + added, "example").interfaces) == 1


def test_it_says_what_is_open_by_default_and_how_to_close_it() -> None:
    """The metadata service of one cloud is somebody's address elsewhere (§7.3)."""
    above, _, _ = EXAMPLE.partition("\n[source]")
    assert '#platform = ["100.100.100.200"]' in above.splitlines()
    assert "whatever its groups say" in above
    assert "switch it off: platform = []" in " ".join(line.lstrip("# ") for line in above.splitlines())
    switched_off = EXAMPLE.replace('#platform = ["100.100.100.200"]', "platform = []")
    assert parse_settings(switched_off, "example").platform == ()


def test_every_plain_key_is_there() -> None:
    """Each table that is not repeated shows all of its keys that have a value."""
    shown = tomllib.loads(with_lines(*COMMENTED))
    assert {"source", "state", "enforcement", "metrics", "limits"} <= set(shown)
    assert {"mode", "strict", "fail_closed", "sessions", "mark_mask"} <= set(shown["enforcement"])


def test_its_comments_are_plain_text() -> None:
    """Asterisks of patterns stay, links and marks do not."""
    running = " ".join(line.lstrip("# ") for line in LINES)
    assert "with a * at its end a pattern: br-*" in running
    assert "[[platform]] can name ports as well" in running
    assert "](" not in EXAMPLE
    assert "`" not in EXAMPLE


def test_code_of_the_document_is_in_it_letter_by_letter() -> None:
    """No sign within code is taken for a mark."""
    text = re.sub(r"\n#   (?=\S)", " ", EXAMPLE)
    for paragraph in ("`hits` and `mode` call such links `*?`", "`ct mark != 0 meta mark set ct mark`"):
        document = " ".join((DOCS / "configuration.md").read_text(encoding="utf-8").split())
        assert paragraph in document
        assert paragraph.replace("`", "") in text
