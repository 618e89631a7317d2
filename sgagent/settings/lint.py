"""Read what ``sgagent lint`` looks for: the table ``[lint]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sgagent.analysis.lint.codes import CODES, MOST_RULES
from sgagent.documents.field import Field, Fields

_DAYS = {"d": 1.0, "w": 7.0, "h": 1 / 24}
_SPAN = re.compile(r"(?P<number>[1-9][0-9]{0,5})(?P<unit>[hdw])")
SPAN_FORM = "a number of hours, days or weeks: 12h, 30d, 8w"


@dataclass(frozen=True, slots=True, kw_only=True)
class LintSettings:
    """What is looked for."""

    disable: tuple[str, ...] = ()
    """Codes of checks that are left out, sorted."""

    unused: float | None = None
    """Seconds without a hit after which a rule is found; None does not ask."""

    most_rules: int = MOST_RULES
    """Of a group."""


def parse_lint(root: Fields) -> LintSettings:
    """Return what lint looks for; the defaults where the table is not there."""
    default = LintSettings()
    field = root.get("lint")
    table = field.fields() if field else None
    if table is None:
        return default
    table.refuse_unknown(("disable", "unused", "most_rules"))
    disable, unused, most = table.get("disable"), table.get("unused"), table.get("most_rules")
    return LintSettings(
        disable=_codes(disable) if disable else (),
        unused=_seconds(unused) if unused else None,
        most_rules=_most(most, default.most_rules) if most else default.most_rules,
    )


def parse_span(text: str) -> float | None:
    """Return the seconds that a text like ``30d`` stands for; None if it stands for none."""
    match = _SPAN.fullmatch(text)
    return None if match is None else int(match["number"]) * _DAYS[match["unit"]] * 86_400


def _codes(field: Field) -> tuple[str, ...]:
    found = set()
    for item in field.items():
        code = item.text()
        if code is not None and code not in CODES:
            item.error("unknown_check", "no check has this code", f"one of {', '.join(CODES)}")
        elif code is not None:
            found.add(code)
    return tuple(sorted(found))


def _seconds(field: Field) -> float | None:
    text = field.text()
    seconds = None if text is None else parse_span(text)
    if text is not None and seconds is None:
        field.error("bad_span", "not a span of time", SPAN_FORM)
    return seconds


def _most(field: Field, default: int) -> int:
    number = field.integer()
    if number is not None and number < 1:
        field.error("bad_limit", "a limit that nothing can keep", "at least 1")
    return default if number is None else number
