"""Conversations: recorded sessions by their ends, so that any number of records fits into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sgagent.core.errors import Origin, Problem, SgagentError, UsageError
from sgagent.core.model import LAST_PORT, Direction, Family


class Conversation(NamedTuple):
    """The common properties of sessions: both ends, who opens them, protocol and port."""

    site: str
    """Where it was recorded: a network interface's id, or else ``log/link``."""

    direction: Direction
    family: Family
    protocol: int
    port: int | None
    """Destination port; None for protocols without ports."""

    near: int
    far: int


@dataclass(slots=True)
class Tally:
    """The counts of a conversation."""

    sessions: int = 0
    packets: int = 0
    bytes: int = 0
    first: int = 1 << 62
    """When it was first seen; whole seconds since the epoch."""

    last: int = 0
    newest_port: int = -1
    """The client's port of the newest session: a record with the same one is of the same session."""

    lowest_port: int = LAST_PORT + 1
    highest_port: int = -1
    is_standing: bool = False
    """Whether a session stood when this host was looked at: one such session is not a chance one."""

    def count(self, second: int, client_port: int | None, size: int, packets: int = 1) -> None:
        """Count a record; a session that is recorded several times in a row is one."""
        if client_port is None:
            self.sessions += 1
        elif client_port != self.newest_port:
            self.sessions += 1
            self.newest_port = client_port
            if client_port < self.lowest_port:  # noqa: PLR1730 - min() takes three times as long
                self.lowest_port = client_port
            if client_port > self.highest_port:  # noqa: PLR1730 - likewise max()
                self.highest_port = client_port
        self.packets += packets
        self.bytes += size
        if second < self.first:  # noqa: PLR1730 - as above
            self.first = second
        if second > self.last:  # noqa: PLR1730 - as above
            self.last = second

    def add(self, other: Tally) -> None:
        """Add other counts."""
        self.sessions += other.sessions
        self.packets += other.packets
        self.bytes += other.bytes
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.lowest_port = min(self.lowest_port, other.lowest_port)
        self.highest_port = max(self.highest_port, other.highest_port)
        self.is_standing |= other.is_standing

    @property
    def client_ports(self) -> tuple[int, int] | None:
        """Return the lowest and the highest port of clients; None where there are none."""
        return None if self.highest_port < 0 else (self.lowest_port, self.highest_port)


MOST_CONVERSATIONS = 300_000
"""That are kept apart: some 400 MB with all that is made of them. Beyond, some are forgotten, and counted."""

MOST_PROBLEMS = 20
"""Of records, that are reported one by one."""


class UnprovedSuggestionError(SgagentError):
    """Say that a suggestion does not hold its statements: a fault of ours, so nothing is suggested."""


@dataclass(slots=True)
class Traffic:
    """All that was read, whatever the records were."""

    passed: dict[Conversation, Tally] = field(default_factory=dict)
    """Traffic that passed; also packets that would be dropped, but are only observed."""

    refused: dict[Conversation, Tally] = field(default_factory=dict)
    """Traffic that the policy in force, or the cloud, dropped."""

    left_out: Counter[str] = field(default_factory=Counter)
    """Records that are none of a session's opening, or could not be used, by the reason."""

    problems: list[Problem] = field(default_factory=list)
    wrong: int = 0
    """Records that could not be understood; the first of them are in ``problems``."""

    sweeps: int = 0
    """How often conversations were forgotten: who keeps tallies has to look them up again."""

    most: int = MOST_CONVERSATIONS

    def tally(self, conversation: Conversation, *, is_refused: bool = False) -> Tally:
        """Return the counts of a conversation.

        Raises:
            UsageError: there are too many to keep apart.
        """
        tallies = self.refused if is_refused else self.passed
        found = tallies.get(conversation)
        if found is None:
            if len(self.passed) + len(self.refused) >= self.most:
                self._forget()
            found = tallies[conversation] = Tally()
        return found

    def report(self, problem: Problem) -> None:
        """Note a record that can't be understood."""
        self.wrong += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)

    def merge(self, other: Traffic) -> None:
        """Add other traffic."""
        for is_refused, tallies in ((False, other.passed), (True, other.refused)):
            for conversation, tally in tallies.items():
                self.tally(conversation, is_refused=is_refused).add(tally)
        self.left_out.update(other.left_out)
        self.problems += other.problems[: MOST_PROBLEMS - len(self.problems)]
        self.wrong += other.wrong

    def _forget(self) -> None:
        """Forget conversations of one session, as a flood leaves them, then some of crowded ports."""
        self.sweeps += 1
        for tallies in (self.passed, self.refused):
            once = [one for one, tally in tallies.items() if tally.sessions < 2 and not tally.is_standing]
            self._drop(tallies, once, FORGOTTEN)
        if self._is_nearly_full:
            for tallies in (self.passed, self.refused):
                self._drop(tallies, list(_beyond(tallies, self.most // _CROWD)), CROWDED)
        if self._is_nearly_full:
            message = f"more than {self.most} pairs of ends have sessions"
            raise UsageError(f"{message}: suggest from fewer or shorter records")

    @property
    def _is_nearly_full(self) -> bool:
        return len(self.passed) + len(self.refused) > self.most - self.most // 10

    def _drop(self, tallies: dict[Conversation, Tally], some: Sequence[Conversation], reason: str) -> None:
        for one in some:
            del tallies[one]
        if some:
            self.left_out[reason] += len(some)


def _beyond(tallies: Iterable[Conversation], most: int) -> Iterator[Conversation]:
    """Yield conversations beyond so many of one port at one place."""
    counts = Counter[tuple[object, ...]]()
    for one in tallies:
        key = one.site, one.direction, one.family, one.protocol, one.port
        counts[key] += 1
        if counts[key] > most:
            yield one


_CROWD = 8
"""A port has at most one in so many of all conversations, once there are too many."""

CROWDED = "conversations at ports with very many others: admitted where everyone is, and nowhere else"
FORGOTTEN = "conversations of one session each, forgotten as there were too many at once"
NOT_LOGGED = "packets that the kernel counted but did not log: raise rate_per_second under [flow_log]"
CUT_OFF = "last lines that were cut off"
NO_OPENING = "packets that open no session"


@dataclass(frozen=True, slots=True)
class FieldFault(Exception):  # noqa: N818 - caught where the line is known, and reported as its problem
    """Say which value a field of a record should have."""

    name: str
    value: object
    expected: str

    def problem(self, file: str, line: int) -> Problem:
        """Return the fault with its place."""
        origin = Origin(file=file, line=line, path=self.name)
        is_missing = self.value is None
        message = "the field is missing" if is_missing else "not a value of this field"
        value = None if is_missing else str(self.value)
        return Problem.error(origin, "wrong_record", value, message, f"expected {self.expected}")
