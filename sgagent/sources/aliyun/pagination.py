"""Ask the API for something whole: all its pages, and again when it was asked too often."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sgagent.core.errors import SourceUnavailableError, printable

Json = object
"""What JSON can hold."""

Answer = Mapping[str, Json]
"""The body of an answer."""


class Action(enum.Enum):
    """The calls that are made; all of them only read."""

    GROUPS = "DescribeSecurityGroups"
    RULES = "DescribeSecurityGroupAttribute"
    INTERFACES = "DescribeNetworkInterfaces"
    PREFIX_LIST = "DescribePrefixListAttributes"
    PORT_LIST = "DescribePortRangeListEntries"


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One question."""

    action: Action
    parameters: Mapping[str, Json] = field(default_factory=dict)
    """Without the region, which every call has."""

    def also(self, **parameters: Json) -> ApiCall:
        """Return the call with more parameters."""
        return ApiCall(self.action, {**self.parameters, **parameters})

    def __str__(self) -> str:
        """Return the action, and what it is about."""
        about = ", ".join(str(value) for name, value in self.parameters.items() if name.endswith(_ABOUT))
        return f"{self.action.value} {about}".rstrip()


_ABOUT = ("Id", "Ids")


class Api(Protocol):
    """Whoever answers calls: the API, or a test."""

    def ask(self, call: ApiCall) -> Answer:
        """Return the body of the answer.

        Raises:
            ApiError: there is none that can be used.
        """
        ...

    def break_off(self) -> None:
        """End a question that is being asked, from another thread."""
        ...


class ApiError(SourceUnavailableError):
    """Say that the API gave no answer that can be used."""

    def __init__(self, message: str) -> None:
        """Keep the message, made fit to be printed."""
        super().__init__(printable(message))


class ThrottledError(ApiError):
    """Say that the API was asked too often, and how long to wait."""

    def __init__(self, message: str, *, wait_seconds: float = 0.0) -> None:
        """Keep the message, and what the API asked for."""
        super().__init__(message)
        self.wait_seconds = wait_seconds


class NotThereError(ApiError):
    """Say that what was asked for does not exist, or not any more."""


class NotAllowedError(ApiError):
    """Say that the credentials are none, have expired, or lack a right."""


MOST_TRIES = 6
"""Of one call that is throttled."""

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0
"""Before a throttled call is made again: doubled from the first to the longest, and a random part of that."""

MOST_PAGES = 10_000


class Asking:
    """Ask, page by page."""

    def __init__(self, api: Api, random: Callable[[], float]) -> None:
        """Take who answers.

        Args:
            api: who answers.
            random: spreads the questions of many hosts; from 0, included, to 1.
        """
        self._api = api
        self._random = random
        self._is_over = threading.Event()

    def break_off(self) -> None:
        """End every wait, from another thread, and ask nothing more."""
        self._is_over.set()
        self._api.break_off()

    def mend(self) -> None:
        """Allow questions again."""
        self._is_over.clear()

    def ask(self, call: ApiCall) -> Answer:
        """Return the answer to a call; one that is throttled is made again, after a while.

        Raises:
            ApiError: there is none that can be used, or it was throttled for too long.
        """
        for number in range(MOST_TRIES):
            if self._is_over.is_set():
                break
            try:
                return self._api.ask(call)
            except ThrottledError as error:
                if number == MOST_TRIES - 1:
                    raise
                limit = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0**number)
                self._is_over.wait(max(limit * self._random(), min(error.wait_seconds, LONGEST_WAIT_SECONDS)))
        raise ApiError(f"{call}: broken off")

    def ask_all(
        self, call: ApiCall, path: Sequence[str], constant: Sequence[str] = ()
    ) -> tuple[Answer, list[Json]]:
        """Return the last page of an answer, and the items of all pages.

        Pages follow one another by a token, or by numbers where an answer without a token is not all.

        Args:
            call: what is asked; it says how large pages are by ``MaxResults``.
            path: where the items stand, like ``SecurityGroups.SecurityGroup``.
            constant: fields beside the items that every page tells alike.

        Raises:
            ApiError: a page is missing, or pages differ, so there is no answer.
        """
        answer = self.ask(call)
        items = items_of(answer, path, call)
        for _ in range(MOST_PAGES):
            following = _next_page(call, answer, len(items))
            if following is None:
                return answer, items
            before, answer = answer, self.ask(following)
            for name in constant:
                if answer.get(name) != before.get(name):
                    raise ApiError(f"{call}: {name} changed while pages were read")
            page = items_of(answer, path, call)
            if not page and not _token(answer):
                raise ApiError(
                    f"{call}: a page is missing: {len(items)} items of {_number(answer, 'TotalCount')}"
                )
            items += page
        raise ApiError(f"{call}: more than {MOST_PAGES} pages")


def _next_page(call: ApiCall, answer: Answer, gathered: int) -> ApiCall | None:
    """Return the question for what follows an answer; None if nothing does."""
    token = _token(answer)
    if token:
        return call.also(NextToken=token)
    size, number = _number(answer, "PageSize"), _number(answer, "PageNumber")
    if size < 1 or number < 1 or number * size > gathered or gathered >= _number(answer, "TotalCount"):
        return None
    by_number = {name: value for name, value in call.parameters.items() if name != "MaxResults"}
    return ApiCall(call.action, {**by_number, "PageNumber": number + 1, "PageSize": size})


def items_of(answer: Answer, path: Sequence[str], call: ApiCall) -> list[Json]:
    """Return the items that stand at a place in an answer; none where it is missing or null.

    Raises:
        ApiError: something else stands there.
    """
    found: Json = answer
    for name in path:
        if not isinstance(found, Mapping):
            raise ApiError(f"{call}: the answer is not understood: {'.'.join(path)} does not hold a list")
        found = found.get(name)
        if found is None:
            return []
    if not isinstance(found, list):
        raise ApiError(f"{call}: the answer is not understood: {'.'.join(path)} does not hold a list")
    return list(found)


def _token(answer: Answer) -> str:
    token = answer.get("NextToken")
    return token if isinstance(token, str) else ""


def _number(answer: Answer, name: str) -> int:
    number = answer.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) else 0
