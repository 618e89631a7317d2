"""The end of a rule in native documents (§12.4)."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from sgagent.documents.writer import as_yaml, write_document
from tests.unit.documents.reading import codes, parse, refused, rule_document, rule_text, snapshot, the_rule

END = dt.datetime(2026, 12, 31, 17, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("written", "meant"),
    (
        ("2026-12-31T18:00:00+01:00", END),
        ("2026-12-31T17:00:00Z", END),
        ("2026-12-31t17:00:00z", END),
        ("2026-12-31 12:30:00-04:30", END),
        ("2026-12-31T17:00:00-00:00", END),
        ("2026-12-31T17:00:00.5Z", END.replace(microsecond=500_000)),
        ("2026-12-31T17:00:00.1234567899Z", END.replace(microsecond=123_456)),
        ("2016-12-31T23:59:60Z", dt.datetime(2016, 12, 31, 23, 59, 59, tzinfo=dt.UTC)),
    ),
)
def test_forms_of_an_instant(written: str, meant: dt.datetime) -> None:
    """RFC 3339, with any offset; it comes out in UTC."""
    rule = the_rule(snapshot(rule_document(expires=written)))
    assert rule.expires == meant
    assert rule.expires.tzinfo is dt.UTC


def test_yaml_needs_no_quotes() -> None:
    """There is no type of times in YAML 1.2."""
    assert the_rule(snapshot(rule_text("expires: 2026-12-31T18:00:00+01:00"))).expires == END


@pytest.mark.parametrize(
    ("written", "code", "message"),
    (
        ("2026-12-31T18:00:00", "bad_instant", "without an offset"),
        ("2026-12-31", "bad_instant", "not an instant"),
        ("2026-12-31T18:00+01:00", "bad_instant", "not an instant"),
        ("2026-12-31T18:00:00+0100", "bad_instant", "not an instant"),
        ("2026-12-31T24:00:00Z", "bad_instant", "not an instant"),
        ("2026-12-31T18:00:61Z", "bad_instant", "not an instant"),
        ("2026-12-31T18:00:00+24:00", "bad_instant", "not an instant"),
        ("2026-02-29T18:00:00Z", "bad_instant", "a day that no calendar has"),
        ("0000-01-01T00:00:00Z", "bad_instant", "a day that no calendar has"),
        ("0001-01-01T00:00:00+23:59", "bad_instant", "outside the years 1 to 9999 in UTC"),
        ("9999-12-31T23:59:59-14:00", "bad_instant", "outside the years 1 to 9999 in UTC"),
        ("٢٠٢٦-12-31T18:00:00Z", "bad_instant", "not an instant"),
        ("tomorrow", "bad_instant", "not an instant"),
        ("", "bad_instant", "not an instant"),
        (1798736400, "wrong_type", "expected an instant, found a whole number"),
        (["2026-12-31T18:00:00Z"], "wrong_type", "expected one instant, found a list"),
    ),
)
def test_what_is_no_instant(written: object, code: str, message: str) -> None:
    """One error, with the field, the value, and how to write it."""
    (problem,) = refused(rule_document(expires=written))
    assert problem.code == code
    assert problem.origin.path == "security_groups[0].rules[0].expires"
    assert message in problem.message
    assert problem.remedy == "2026-12-31T18:00:00+01:00, or 2026-12-31T17:00:00Z"


def test_what_is_written_is_read_again() -> None:
    """As JSON and as YAML, to the microsecond."""
    found = snapshot(rule_document(expires="2026-12-31T17:00:00.123456Z"))
    for text in (json.dumps(write_document(found)), as_yaml(write_document(found))):
        assert parse(text)[0] == found


def test_errors_of_form_count_in_a_rule_that_has_ended() -> None:
    """As in any (§8.3)."""
    assert codes(refused(rule_document(expires="1970-01-01T00:00:00Z", port_range="80/79"))) == [
        "reversed_ports"
    ]
