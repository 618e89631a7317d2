"""The example configuration is valid, empty as it comes, and says the defaults."""

from __future__ import annotations

import re
import tomllib

from release.example import example_configuration
from sgagent.settings import Settings, parse_settings

EXAMPLE = example_configuration()


def uncommented() -> str:
    """Return the example with its keys in force."""
    return re.sub(r"^#(?=[^#\s])", "", EXAMPLE, flags=re.MULTILINE)


def test_it_is_empty_as_it_comes() -> None:
    """Nothing in it is in force."""
    assert tomllib.loads(EXAMPLE) == {}


def test_its_keys_are_the_defaults() -> None:
    """Who takes the signs away changes nothing, but for the tables that may be repeated."""
    plain = re.sub(r"^\[\[.*?(?=\n\n|\Z)", "", uncommented(), flags=re.MULTILINE | re.DOTALL)
    assert "[[" in uncommented()
    assert parse_settings(plain, "example") == Settings()


def test_its_repeated_tables_are_valid() -> None:
    """The interface and the fail-safe entry are ones that could be meant."""
    settings = parse_settings(uncommented(), "example")
    assert len(settings.interfaces) == len(settings.failsafe) == 1


def test_it_says_what_is_open_by_default_and_how_to_close_it() -> None:
    """The metadata service of one cloud is somebody's address elsewhere (§7.3)."""
    above, _, _ = EXAMPLE.partition("\n#[source]")
    assert '#platform = ["100.100.100.200"]' in above.splitlines()
    assert "whatever its groups say" in above
    assert "switch it off: platform = []" in " ".join(line.lstrip("# ") for line in above.splitlines())
    switched_off = EXAMPLE.replace('#platform = ["100.100.100.200"]', "platform = []")
    assert parse_settings(switched_off, "example").platform == ()


def test_every_plain_key_is_there() -> None:
    """Each table that is not repeated shows all of its keys that have a value."""
    shown = tomllib.loads(uncommented())
    assert {"source", "state", "enforcement", "metrics", "limits"} <= set(shown)
    assert {"mode", "strict", "fail_closed", "sessions", "mark_mask"} <= set(shown["enforcement"])
