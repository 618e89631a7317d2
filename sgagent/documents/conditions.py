"""Models of the conditions of native rules on anything except packets, and their parsers (§13)."""

from __future__ import annotations

import re
from datetime import UTC, tzinfo
from functools import cache
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from sgagent.core.conditions import (
    LAST_USER,
    LONGEST_REFILL,
    MOST_AT_ONCE,
    RATE_UNITS,
    Local,
    LocalUnit,
    LocalUser,
    SourceLimit,
)
from sgagent.core.errors import nearest
from sgagent.core.hours import DAYS, EVERY_DAY, MINUTES_OF_DAY, Hours
from sgagent.core.rule_values import decimal
from sgagent.documents import scalars
from sgagent.documents.field import Field
from sgagent.documents.models import (
    DocumentModel,
    FieldType,
    Schema,
    any_case,
    any_of,
    declare,
    read_model,
    ref,
)
from sgagent.documents.tree import Listing, Mapping, Node

_CLOCK_PATTERN = "([01][0-9]|2[0-3]):([0-5][0-9])|(24):(00)"
_CLOCK_FORM = "a time from 00:00 to 24:00, like 08:00"
_DAY = f"({'|'.join(map(any_case, DAYS))})"
_DAYS_PATTERN = f"{_DAY}(-{_DAY})?( *, *{_DAY}(-{_DAY})?)*"
_DAYS_FORM = "mon-fri, or a list like [mon, wed, sat-sun]"
_ZONE_PATTERN = "[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,3}"
_CLOCK, _DAYS, _ZONE = map(re.compile, (_CLOCK_PATTERN, _DAYS_PATTERN, _ZONE_PATTERN))


def parse_clock(node: Node) -> int:
    """Return a time of the day in minutes from midnight."""
    text = scalars.parse_text(node, "a time", f"{_CLOCK_FORM}, in quotes")
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise scalars.invalid("bad_hours", "not a time of the day", _CLOCK_FORM)
    hour, minute = (int(part) for part in match.groups() if part is not None)
    return 60 * hour + minute


def parse_days(node: Node) -> tuple[int, ...]:
    """Return days of the week, sorted; a run may go over the end of the week."""
    if not isinstance(node, Listing):
        return tuple(sorted(_days_of(node)))
    if not node.items:
        raise scalars.invalid("bad_hours", "the list of days is empty", _DAYS_FORM)
    return tuple(sorted(frozenset().union(*scalars.parse_each(enumerate(node.items), _days_of))))


def _days_of(node: Node) -> frozenset[int]:
    text = scalars.parse_text(node, "days", _DAYS_FORM).lower()
    if not _DAYS.fullmatch(text):
        raise scalars.invalid("bad_hours", "not days of the week", _DAYS_FORM)
    runs = (run.strip().split("-") for run in text.split(","))
    ends = ((DAYS.index(run[0]), DAYS.index(run[-1])) for run in runs)
    return frozenset(day % 7 for first, last in ends for day in range(first, last + 1 + 7 * (last < first)))


def parse_zone(node: Node) -> tzinfo:
    """Return a time zone of the IANA database, as this host has it."""
    name = scalars.parse_text(node, "a time zone", "a name like Europe/Berlin, or UTC")
    if name == str(UTC):
        return UTC
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # no such file, no zone in it, a directory
        pass
    known = _known_zones()
    if not known:
        message, remedy = "this host has no time zones but UTC", "install tzdata, or write UTC"
        raise scalars.invalid("unknown_zone", message, remedy)
    near = nearest(name[:_LONGEST_ZONE], known)
    remedy = f"did you mean {near[0]}?" if near else "a name like Europe/Berlin, or UTC"
    raise scalars.invalid("unknown_zone", "this host knows no such time zone", remedy)


_LONGEST_ZONE = 64


@cache
def _known_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^({pattern})$"}


Days = Annotated[
    tuple[int, ...],
    FieldType(
        parse_days,
        any_of(_text(_DAYS_PATTERN), {"type": "array", "items": _text(_DAYS_PATTERN), "minItems": 1}),
    ),
]
TimeOfDay = Annotated[int, FieldType(parse_clock, _text(_CLOCK_PATTERN))]


class HoursModel(DocumentModel):
    """Hours of the week at which a rule exists (§13.2)."""

    days: Days | None = None
    """On which the hours begin, like mon-fri. Missing: every day."""

    begins: TimeOfDay | None = declare(
        None, name="from", description="From when on, like 08:00. Missing: 00:00."
    )
    ends: TimeOfDay | None = declare(
        None, name="to", description="Until when; if not after from, on the next day. Missing: 24:00."
    )
    zone: Annotated[tzinfo, FieldType(parse_zone, _text(_ZONE_PATTERN))] | None = None
    """Whose clocks and days count, like Europe/Berlin. Missing: UTC."""


def parse_hours(place: Field) -> Hours | None:
    """Return the hours of a rule; None, with errors added, if something is wrong with them."""
    model = read_model(HoursModel, place)
    if model is None:
        return None
    if not place.entries.keys() - {"zone"}:
        place.error("bad_hours", "hours that say nothing", "remove the field, or say when the rule exists")
    hours = Hours(
        days=model.days or EVERY_DAY,
        begins=model.begins or 0,
        ends=MINUTES_OF_DAY if model.ends is None else model.ends,
        zone=model.zone or UTC,
    )
    if hours.begins == MINUTES_OF_DAY:
        place.at("from").error("bad_hours", "no day begins so late", "00:00, and the day after")
    if hours.begins == hours.ends:
        place.at("to").error("bad_hours", "from and to are the same", "00:00 and 24:00 for the whole day")
    return hours


_RATE_PATTERN = f"([1-9][0-9]{{0,4}}) */ *({'|'.join(RATE_UNITS)})"
_RATE_FORM = f"10/minute, up to {MOST_AT_ONCE} in a {', '.join(RATE_UNITS)}"
_RATE = re.compile(_RATE_PATTERN)


def parse_rate(node: Node) -> tuple[int, int]:
    """Return a rate: so many, in so many seconds."""
    match = _RATE.fullmatch(scalars.parse_text(node, "a rate", _RATE_FORM))
    if match is None or int(match[1]) > MOST_AT_ONCE:
        raise scalars.invalid("bad_limit", "not a rate", _RATE_FORM)
    return int(match[1]), RATE_UNITS[match[2]]


def parse_burst(node: Node) -> int:
    """Return how many may come at once."""
    burst = scalars.parse_integer(node, "a burst")
    if 1 <= burst <= MOST_AT_ONCE:
        return burst
    raise scalars.invalid("bad_limit", "not a burst", f"a whole number from 1 to {MOST_AT_ONCE}")


class LimitModel(DocumentModel):
    """How many new sessions each source address may open (§13.1)."""

    rate: Annotated[tuple[int, int], FieldType(parse_rate, _text(_RATE_PATTERN))]
    """Like 10/minute; second, minute, hour or day."""

    burst: (
        Annotated[int, FieldType(parse_burst, {"type": "integer", "minimum": 1, "maximum": MOST_AT_ONCE})]
        | None
    ) = None
    """How many at once. Missing: the number of the rate."""


LIMIT_SCHEMA = any_of(_text(_RATE_PATTERN), ref("limit"))


def parse_limit(place: Field) -> SourceLimit | None:
    """Return a limit, of a rate alone or with a burst; None, with errors added, if something is wrong."""
    if isinstance(place.node, Mapping):
        model = read_model(LimitModel, place)
        if model is None or model.rate is None:
            return None
        (rate, seconds), burst = model.rate, model.burst
    else:
        (rate, seconds), burst = parse_rate(place.node), None
    limit = SourceLimit(rate=rate, seconds=seconds, burst=burst or rate)
    if limit.refill > LONGEST_REFILL:
        most = LONGEST_REFILL * rate // seconds
        place.at("burst").error("bad_limit", "takes years to fill again", f"at most {most} at this rate")
    return limit


_USER_PATTERN = r"[A-Za-z_][A-Za-z0-9_.@\\-]{0,63}\$?"
_USER_TEXT = rf"{_USER_PATTERN}|[0-9]{{1,10}}"
"""A name, or an id in quotes."""

_USER_FORM = f"a name like deploy, or an id from 0 to {LAST_USER}"
_USER = re.compile(_USER_PATTERN)
_ID_SCHEMA: Schema = {"type": "integer", "minimum": 0, "maximum": LAST_USER}


def parse_user(node: Node) -> LocalUser:
    """Return a user, by name or by id."""
    text = scalars.parse_digits(node, "a user", _USER_FORM)
    number = decimal(text, LAST_USER)
    if number is not None:
        return LocalUser(name=str(number), number=number)
    if not _USER.fullmatch(text):
        raise scalars.invalid("bad_local", "not a user", _USER_FORM)
    return LocalUser(name=text)


_UNIT_PATTERN = r"[A-Za-z0-9:_.\\@-]{1,240}\.(service|scope|slice|socket|mount|swap)"
_UNIT_FORM = "a unit with its kind, like nginx.service"
_UNIT = re.compile(_UNIT_PATTERN)


def parse_unit(node: Node) -> LocalUnit:
    """Return a unit of systemd that can have a control group."""
    text = scalars.parse_text(node, "a unit", _UNIT_FORM)
    if not _UNIT.fullmatch(text):
        raise scalars.invalid("bad_local", "not a unit", _UNIT_FORM)
    return LocalUnit(name=text)


class LocalModel(DocumentModel):
    """Who on this host an egress rule is for (§13.3): a user or a unit."""

    more_schema: ClassVar[Schema] = {"minProperties": 1, "maxProperties": 1}

    user: Annotated[LocalUser, FieldType(parse_user, any_of(_text(_USER_TEXT), _ID_SCHEMA))] | None = None
    """Who made the socket: a name of this host, or an id."""

    unit: Annotated[LocalUnit, FieldType(parse_unit, _text(_UNIT_PATTERN))] | None = None
    """In which systemd unit, or below it, the socket was made."""


def parse_local(place: Field) -> Local | None:
    """Return who on this host a rule is for; None, with errors added, if something is wrong."""
    model = read_model(LocalModel, place)
    if model is None:
        return None
    if (model.user is None) is (model.unit is None):
        given = place.entries if isinstance(place.node, Mapping) else {}
        if not given:
            place.error("missing_field", "missing", "user: NAME or unit: NAME")
        elif given.keys() == {"user", "unit"}:
            place.error("bad_local", "not one of both", "user: NAME or unit: NAME")
        return None
    return model.user or model.unit
