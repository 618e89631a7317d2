"""Hours at which rules exist (§13.2): edges, changes of the clocks, and what they do to a policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from sgagent.compiler.enforce import narrows
from sgagent.core.conditions import Conditions
from sgagent.core.hours import Hours
from sgagent.core.model import TCP, Policy, SecurityGroupRule
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, Resolution, resolve
from tests.words import ACCEPT, DROP, IN, by_hand, group, packet, rule, snapshot, verdict

BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = Hours(days=(0, 1, 2, 3, 4), begins=8 * 60, ends=18 * 60, zone=BERLIN)
NIGHT = Hours(days=(4,), begins=22 * 60, ends=6 * 60, zone=BERLIN)
MONDAY = datetime(2026, 11, 30, 7, tzinfo=UTC)
"""When the office's hours begin, in UTC."""

INSTANT = timedelta(microseconds=1)


def at(hours: Hours, text: str) -> bool:
    """Return whether hours hold at a time in UTC."""
    return hours.include(datetime.fromisoformat(text).replace(tzinfo=UTC))


def test_the_first_instant_is_within_and_the_last_is_not() -> None:
    """As with every span of time here."""
    assert OFFICE.include(MONDAY)
    assert not OFFICE.include(MONDAY - INSTANT)
    assert OFFICE.include(MONDAY + timedelta(hours=10) - INSTANT)
    assert not OFFICE.include(MONDAY + timedelta(hours=10))


def test_other_days_are_without() -> None:
    """Days are those of the zone: in Berlin it is Saturday while UTC has Friday."""
    early = replace(OFFICE, begins=0)
    assert at(early, "2026-12-03T23:30")
    assert not at(early, "2026-12-04T23:30")


def test_a_span_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    """Friday's night ends on Saturday."""
    assert at(NIGHT, "2026-12-04T21:00")
    assert at(NIGHT, "2026-12-05T04:59")
    assert not at(NIGHT, "2026-12-05T05:00")
    assert not at(NIGHT, "2026-12-04T04:00")
    assert not at(NIGHT, "2026-12-05T21:00")


def test_a_whole_day_ends_with_it() -> None:
    """24:00 is the next day's first instant."""
    sunday = Hours(days=(6,), zone=BERLIN)
    assert at(sunday, "2026-11-29T22:59:59.9")
    assert not at(sunday, "2026-11-29T23:00")


@pytest.mark.parametrize(
    ("zone", "minutes", "day", "edge"),
    (
        (BERLIN, 150, "2026-03-29", "2026-03-29T01:00"),  # 02:30 is skipped: at the end of the gap
        (BERLIN, 120, "2026-03-29", "2026-03-29T01:00"),
        (BERLIN, 180, "2026-03-29", "2026-03-29T01:00"),
        (BERLIN, 150, "2026-10-25", "2026-10-25T00:30"),  # 02:30 comes twice: the first
        (BERLIN, 180, "2026-10-25", "2026-10-25T02:00"),
        (ZoneInfo("America/New_York"), 150, "2026-03-08", "2026-03-08T07:00"),
        (ZoneInfo("Australia/Lord_Howe"), 135, "2026-10-04", "2026-10-03T15:30"),  # half an hour is skipped
        (ZoneInfo("America/Sao_Paulo"), 0, "2018-11-04", "2018-11-04T03:00"),  # midnight is skipped
        (UTC, 150, "2026-03-29", "2026-03-29T02:30"),
    ),
)
def test_edges_where_clocks_are_changed(zone: tzinfo, minutes: int, day: str, edge: str) -> None:
    """A skipped edge is at the end of the gap, a repeated one at its first time."""
    wanted = datetime.fromisoformat(edge).replace(tzinfo=UTC)
    weekday = datetime.fromisoformat(day).weekday()
    hours = Hours(days=(weekday,), begins=minutes, ends=minutes + 60, zone=zone)
    assert hours.next_edge(wanted - timedelta(hours=12)) == wanted


def test_a_day_that_a_zone_skipped_is_in_no_hours() -> None:
    """Samoa had no 30 December 2011; the next edge after it is a week later."""
    friday = Hours(days=(4,), begins=480, ends=1080, zone=ZoneInfo("Pacific/Apia"))
    gap = datetime(2011, 12, 30, 10, tzinfo=UTC)
    assert not any(friday.include(gap + timedelta(hours=hour)) for hour in range(-24, 24))
    assert friday.next_edge(gap) == datetime(2012, 1, 5, 18, tzinfo=UTC)


def test_between_two_edges_nothing_changes() -> None:
    """Each edge is found, over a year, in zones with and without changes of the clocks."""
    for zone in (BERLIN, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kathmandu")):
        for hours in (replace(OFFICE, zone=zone), replace(NIGHT, zone=zone)):
            time, edges = datetime(2026, 1, 1, tzinfo=UTC), 0
            while time < datetime(2027, 1, 1, tzinfo=UTC):
                edge = hours.next_edge(time)
                assert edge is not None
                middle = time + (edge - time) / 2
                assert hours.include(time) is hours.include(middle) is hours.include(edge - INSTANT)
                assert hours.include(edge) is not hours.include(time)
                time, edges = edge, edges + 1
            assert edges >= 104


def test_the_calendar_has_an_end() -> None:
    """Nothing begins after it, and nothing fails before the first day."""
    assert OFFICE.next_edge(datetime.max.replace(tzinfo=UTC)) is None
    assert not OFFICE.include(datetime.min.replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("days", "text"),
    (
        ((0, 1, 2, 3, 4), "mon-fri"),
        ((0, 2), "mon,wed"),
        ((5, 6), "sat-sun"),
        ((1,), "tue"),
        ((0, 4, 5), "mon,fri-sat"),
    ),
)
def test_days_in_words(days: tuple[int, ...], text: str) -> None:
    """Runs are written as such."""
    assert Hours(days=days).days_text == text


def open_at_hours(policy: Policy, other_end: str = "any") -> SecurityGroupRule:
    """Return a rule that exists while the office is open."""
    found = rule(f"r-{policy.value}", policy, TCP, "22", other_end)
    return replace(found, conditions=Conditions(active=OFFICE))


def resolved(time: datetime | None, *rules: SecurityGroupRule) -> Resolution:
    """Return what rules come to at a time."""
    definitions = snapshot(group("sg-1", *rules))
    return resolve(definitions, by_hand(definitions, {"eth0": "sg-1"}), Exemptions(), at=time)


def admits(policy: ResolvedPolicy) -> bool:
    """Return whether an inward session to port 22 is let in."""
    return verdict(policy, packet(IN, "10.0.0.9", TCP, 22)) is ACCEPT


def test_outside_of_its_hours_a_rule_does_not_exist() -> None:
    """An accept opens nothing, a drop closes nothing; without a time the hours hold."""
    behind = rule("r-behind", ACCEPT, TCP, "22", "any")
    assert admits(resolved(MONDAY, open_at_hours(ACCEPT)).policy)
    assert not admits(resolved(MONDAY - INSTANT, open_at_hours(ACCEPT)).policy)
    assert not admits(resolved(MONDAY, open_at_hours(DROP), behind).policy)
    assert admits(resolved(MONDAY - INSTANT, open_at_hours(DROP), behind).policy)
    assert admits(resolved(None, open_at_hours(ACCEPT)).policy)


def test_the_end_of_hours_takes_something_away() -> None:
    """So that live sessions are judged again (§6.3); their beginning takes nothing away."""
    on, off = (resolved(time, open_at_hours(ACCEPT)).policy for time in (MONDAY, MONDAY - INSTANT))
    assert narrows(on, off)
    assert not narrows(off, on)


def test_a_policy_can_be_asked_for_another_time() -> None:
    """It knows the rules that sleep; rules that end after all never come back."""
    ends = replace(open_at_hours(ACCEPT), expires=MONDAY + timedelta(days=7))
    on, off = (resolved(time, ends).policy for time in (MONDAY, MONDAY - INSTANT))
    assert on.at(MONDAY - INSTANT) == off
    assert off.at(MONDAY) == on
    assert not on.at(MONDAY + timedelta(days=7)).recurring
    assert [is_active for _, is_active in on.recurring + off.recurring] == [True, False]


def test_what_is_only_taken_away_does_not_begin() -> None:
    """As where a statement forbids what would begin (§13.4)."""
    on, off = (resolved(time, open_at_hours(ACCEPT)).policy for time in (MONDAY, MONDAY - INSTANT))
    assert off.without_ended(MONDAY) is off
    assert not admits(on.without_ended(MONDAY - INSTANT))


@pytest.mark.parametrize("time", (MONDAY, MONDAY - INSTANT))
def test_an_unknown_object_counts_at_all_hours(time: datetime) -> None:
    """A version is not refused at eight in the morning."""
    assert [one.code for one in resolved(time, open_at_hours(DROP, "sg-no")).errors] == [
        "unknown_object_in_drop"
    ]
    assert resolved(time, open_at_hours(ACCEPT)).depends_on_time
