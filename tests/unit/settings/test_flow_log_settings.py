"""The table of the flow log."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.core.errors import UsageError
from sgagent.core.model import Policy
from sgagent.core.policy import FlowLogging
from sgagent.settings import parse_settings
from sgagent.settings.tables import FlowLogSettings, FlowOutput


def read(text: str) -> FlowLogSettings:
    """Return what a table says."""
    return parse_settings(text, "sgagent.toml").flow_log


def test_drops_are_told_of_without_being_asked_for() -> None:
    """Without the table the agent remembers who was dropped, and writes nothing."""
    found = read("")
    assert found == FlowLogSettings()
    assert found.output is FlowOutput.NONE
    assert not found.is_asked_for
    assert found.logging == FlowLogging(verdicts=frozenset({Policy.DROP}), rate_per_second=10, group=9469)


def test_every_key_is_taken() -> None:
    """As it is written."""
    found = read(
        '[flow_log]\ndropped = false\naccepted = true\nrate_per_second = 100\noutput = "/var/log/flows"\n'
        "rotate_bytes = 65536\nkeep_files = 0\ngroup = 7"
    )
    assert found == FlowLogSettings(
        dropped=False,
        accepted=True,
        rate_per_second=100,
        output=Path("/var/log/flows"),
        rotate_bytes=65536,
        keep_files=0,
        group=7,
    )
    assert found.is_asked_for
    assert found.logging.verdicts == {Policy.ACCEPT}


@pytest.mark.parametrize("word", FlowOutput)
def test_places_that_are_no_file_have_words(word: FlowOutput) -> None:
    """The journal, standard output, and nowhere."""
    assert read(f'[flow_log]\noutput = "{word.value}"').output is word


@pytest.mark.parametrize(
    ("text", "told"),
    (
        ("evil = 1", "flow_log.evil: unknown field"),
        ("dropped = 1", "flow_log.dropped: expected true or false, found a whole number"),
        ("rate_per_second = 0", "flow_log.rate_per_second: the number is out of range: '0' (from 1 to 1000)"),
        ("rate_per_second = 1001", "flow_log.rate_per_second: the number is out of range"),
        ("group = 65536", "flow_log.group: the number is out of range: '65536' (from 0 to 65535)"),
        ("rotate_bytes = 1", "flow_log.rotate_bytes: the number is out of range: '1' (from 65536"),
        ("keep_files = -1", "flow_log.keep_files: the number is out of range"),
        ('output = "flows.log"', "flow_log.output: not an output for flows: 'flows.log'"),
        ('output = "/var/log/"', "flow_log.output: not an output for flows"),
        ("accepted = true", "flow_log.accepted: accepted flows need an output"),
    ),
)
def test_what_can_not_be_is_an_error_with_its_key(text: str, told: str) -> None:
    """One fault, that says what would be right."""
    with pytest.raises(UsageError) as caught:
        read(f"[flow_log]\n{text}")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
