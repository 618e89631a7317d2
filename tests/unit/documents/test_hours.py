"""The field ``active`` of a rule (§13.2): its forms, errors, and what is derived from it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC
from zoneinfo import ZoneInfo, reset_tzpath

import pytest

from sgagent.core.hours import EVERY_DAY, Hours
from sgagent.documents import conditions
from sgagent.documents.writer import as_json, as_yaml, write_document
from tests.unit.documents.reading import refused, rule_text, snapshot, the_rule


def timed(active: str) -> str:
    """Return a document with a rule that has such a field."""
    return rule_text(f"active: {active}")


def hours(active: str) -> Hours | None:
    """Return the hours of the rule."""
    return the_rule(snapshot(timed(active))).conditions.active


def fault(active: str) -> str:
    """Return the one error of the rule."""
    (problem,) = refused(timed(active))
    return str(problem)


@pytest.mark.parametrize(
    ("written", "days"),
    (
        ("mon-fri", (0, 1, 2, 3, 4)),
        ("MON", (0,)),
        ("mon, wed,fri", (0, 2, 4)),
        ("[sat-mon, wed]", (0, 2, 5, 6)),
        ("sun-sat", EVERY_DAY),
    ),
)
def test_days(written: str, days: tuple[int, ...]) -> None:
    """Alone, in runs that may go over the end of the week, and in lists."""
    text = written if written.startswith("[") else f"'{written}'"
    assert hours(f"{{days: {text}}}") == Hours(days=days)


def test_times_need_no_quotes() -> None:
    """YAML 1.2 has no sexagesimal numbers."""
    found = hours("{from: 08:00, to: 18:30, zone: Europe/Berlin}")
    assert found == Hours(begins=480, ends=1110, zone=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("written", "said"),
    (
        ("{}", "hours that say nothing"),
        ("{zone: UTC}", "hours that say nothing"),
        ("mon-fri", "expected a mapping"),
        ("{days: weekdays}", "not days of the week"),
        ("{days: []}", "the list of days is empty"),
        ("{from: '8:00'}", "not a time of the day"),
        ("{from: '24:00', to: '06:00'}", "no day begins so late"),
        ("{from: '08:00', to: '08:00'}", "from and to are the same"),
        ("{to: '24:01'}", "not a time of the day"),
        ("{to: '12:00', zone: Europe/Berln}", "did you mean Europe/Berlin?"),
        ("{to: '12:00', zone: Europe}", "no such time zone"),
        ("{to: '12:00', zone: ../../etc/passwd}", "no such time zone"),
        ("{to: '12:00', zone: zone.tab}", "no such time zone"),
        ("{to: '12:00', zone: 2}", "expected a time zone"),
        ("{until: '12:00'}", "unknown field"),
    ),
)
def test_what_is_wrong_is_said(written: str, said: str) -> None:
    """With the place of the field."""
    found = fault(written)
    assert said in found
    assert ".active" in found


@pytest.fixture
def _no_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take this host's time zones away, and those of the package that may stand in for them."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tzdata"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tzdata", None)
    reset_tzpath(())
    conditions._known_zones.cache_clear()  # noqa: SLF001 - it holds what this host has
    yield
    reset_tzpath()
    conditions._known_zones.cache_clear()  # noqa: SLF001 - the same


@pytest.mark.usefixtures("_no_zones")
def test_a_host_without_time_zones_says_so() -> None:
    """It refuses the document rather than to guess; UTC needs none."""
    assert "install tzdata" in fault("{to: '12:00', zone: Europe/Paris}")  # no test has read it before
    assert hours("{to: '12:00'}") == Hours(ends=720, zone=UTC)


@pytest.mark.parametrize("form", ("json", "yaml"))
def test_what_is_written_is_read_again(form: str) -> None:
    """By both writers, with everything said outright."""
    found = snapshot(timed("{days: [fri-mon], from: '22:00', to: '06:00', zone: Asia/Kathmandu}"))
    write = as_json if form == "json" else as_yaml
    assert snapshot(write(write_document(found)), name=f"a.{form}") == found
