"""What commands print as JSON."""

from __future__ import annotations

import json
from datetime import datetime

from hypothesis import given, strategies as st

from sgagent.cli.output import format_json


def test_instants_are_rfc_3339_in_utc() -> None:
    """By the names of their fields, at any depth; other numbers, texts and booleans stay."""
    value = {
        "seen_at": 1_700_000_000.25,
        "posture_since": 0,
        "enforced_at": None,
        "at": 1,
        "since": "a text",
        "repeated_at": True,
        "packets": 7,
        "chat": 3,
        "entries": [{"last_hit_at": 1.0005, "rates": [1.5]}],
    }
    assert json.loads(format_json(value)) == {
        "seen_at": "2023-11-14T22:13:20.250Z",
        "posture_since": "1970-01-01T00:00:00.000Z",
        "enforced_at": None,
        "at": "1970-01-01T00:00:01.000Z",
        "since": "a text",
        "repeated_at": True,
        "packets": 7,
        "chat": 3,
        "entries": [{"last_hit_at": "1970-01-01T00:00:01.000Z", "rates": [1.5]}],
    }


@given(st.floats(0, 4_000_000_000))
def test_an_instant_can_be_read_back(seconds: float) -> None:
    """To a millisecond."""
    text = json.loads(format_json({"at": seconds}))["at"]
    assert abs(datetime.fromisoformat(text).timestamp() - seconds) <= 0.001
