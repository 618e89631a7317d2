"""Show how the agent is doing: all that ``sgagent status`` says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from sgagent.agent.control.queries import StatusAnswer
from sgagent.agent.control.status_text import facts, headline
from sgagent.agent.status import Posture
from sgagent.agent.time_text import clock_time
from sgagent.agent.web.markup import Element, tag
from sgagent.agent.web.shell import Section


def lead(answer: StatusAnswer, now: float) -> Element:
    """Return in one line what becomes of traffic, and whether anything needs a person."""
    is_well = answer.is_ready and answer.posture in (Posture.ENFORCING, Posture.OBSERVING)
    return tag(
        "p",
        tag("span", "well" if is_well else "look here", class_="badge accept" if is_well else "badge drop"),
        " ",
        tag("strong", headline(answer, now)),
        class_="lead",
    )


def state_section(answer: StatusAnswer, now: float) -> Section:
    """Return the facts about the agent."""
    again = tag("p", f"As of {clock_time(now)}. ", tag("a", "Look again", href="./"), class_="quiet")
    return Section("state", "State", (tag("dl", *_facts(facts(answer, now))), again))


def _facts(told: Iterable[tuple[str, str]]) -> Iterator[Element]:
    """Yield each label with its lines; a line without a label belongs to the one before."""
    numbered = _numbered(told)
    for (_, label), lines in groupby(numbered, key=lambda line: line[0]):
        yield tag("dt", label)
        yield from (tag("dd", text) for _, text in lines)


def _numbered(told: Iterable[tuple[str, str]]) -> Iterator[tuple[tuple[int, str], str]]:
    current, number = "", 0
    for label, text in told:
        if label:
            current, number = label, number + 1
        yield (number, current), text
