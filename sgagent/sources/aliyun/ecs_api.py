"""The ECS API as the source sees it: credentials, calls, pagination, and backoff when the API throttles."""

from __future__ import annotations

import configparser
import enum
import http.client
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import SourceUnavailableError, printable
from sgagent.sources.servers import read_secret

Json = object
"""A JSON value."""

ApiAnswer = Mapping[str, Json]
"""The body of an answer."""


class Action(enum.Enum):
    """The API calls in use; all are read-only."""

    GROUPS = "DescribeSecurityGroups"
    RULES = "DescribeSecurityGroupAttribute"
    INTERFACES = "DescribeNetworkInterfaces"
    PREFIX_LIST = "DescribePrefixListAttributes"
    PORT_LIST = "DescribePortRangeListEntries"


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One API call."""

    action: Action
    parameters: Mapping[str, Json] = field(default_factory=dict)
    """Without the region, which the client adds."""

    def also(self, **parameters: Json) -> ApiCall:
        """Return the call with more parameters."""
        return ApiCall(self.action, {**self.parameters, **parameters})

    def __str__(self) -> str:
        """Return the action and the ids in its parameters."""
        about = ", ".join(str(value) for name, value in self.parameters.items() if name.endswith(_ABOUT))
        return f"{self.action.value} {about}".rstrip()


_ABOUT = ("Id", "Ids")


class Api(Protocol):
    """An API client, or its fake."""

    def ask(self, call: ApiCall) -> ApiAnswer:
        """Return the body of the answer.

        Raises:
            ApiError: the API sent no usable answer.
        """

    def break_off(self) -> None:
        """Cancel the request in progress, from another thread."""


class ApiError(SourceUnavailableError):
    """An API call without a usable answer."""

    def __init__(self, message: str) -> None:
        """Store the message, with unprintable characters escaped."""
        super().__init__(printable(message))


class ThrottledError(ApiError):
    """A call that the API throttled, with the time to wait."""

    def __init__(self, message: str, *, wait_seconds: float = 0.0) -> None:
        """Store the message, and the seconds that the API asks to wait."""
        super().__init__(message)
        self.wait_seconds = wait_seconds


class NotThereError(ApiError):
    """A call about an object that does not exist."""


class NotAllowedError(ApiError):
    """A call with invalid or expired credentials, or without permission."""


MOST_TRIES = 6
"""Of one throttled call."""

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0
"""Exponential backoff with full jitter for throttled calls: the initial and the maximum wait."""

MOST_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class Paginator:
    """Sends API calls page by page, and retries throttled ones."""

    api: Api
    random: Callable[[], float]
    """Returns jitter from 0 (inclusive) to 1 (exclusive)."""

    _is_over: threading.Event = field(default_factory=threading.Event)

    def break_off(self) -> None:
        """Cancel the call in progress and later ones until :meth:`resume`, from another thread."""
        self._is_over.set()
        self.api.break_off()

    def resume(self) -> None:
        """Allow calls again."""
        self._is_over.clear()

    def ask(self, call: ApiCall) -> ApiAnswer:
        """Send a call, and retry it with backoff while the API throttles it.

        Raises:
            ApiError: the API sent no usable answer, or throttled every try.
        """
        for number in range(MOST_TRIES):
            if self._is_over.is_set():
                break
            try:
                return self.api.ask(call)
            except ThrottledError as error:
                if number == MOST_TRIES - 1:
                    raise
                limit = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0**number)
                self._is_over.wait(max(limit * self.random(), min(error.wait_seconds, LONGEST_WAIT_SECONDS)))
        raise ApiError(f"{call}: cancelled")

    def ask_all(
        self, call: ApiCall, path: Sequence[str], constant: Sequence[str] = ()
    ) -> tuple[ApiAnswer, list[Json]]:
        """Return the last page of an answer, and the items of all pages.

        The API paginates by token, and the last page has none; ``TotalCount`` is invalid then, as its
        reference says. Without any token, an incomplete answer is paginated by page number.

        Args:
            call: the call, whose ``MaxResults`` is the page size.
            path: the path of the items, like ``SecurityGroups.SecurityGroup``.
            constant: fields with the same value on every page.

        Raises:
            ApiError: a page is missing, or a constant field differs between pages.
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
                raise _missing_page(call, answer, len(items))
            items += page
        raise ApiError(f"{call}: more than {MOST_PAGES} pages")


def _next_page(call: ApiCall, answer: ApiAnswer, gathered: int) -> ApiCall | None:
    """Return the call for the next page; None after the last one.

    Raises:
        ApiError: by page number, a page before the last one was not full.
    """
    token = _token(answer)
    if token:
        return call.also(NextToken=token)
    size, number = _number(answer, "PageSize"), _number(answer, "PageNumber")
    if size < 1 or number < 1 or gathered >= _number(answer, "TotalCount"):
        return None
    if number * size > gathered:
        raise _missing_page(call, answer, gathered)
    by_number = {name: value for name, value in call.parameters.items() if name != "MaxResults"}
    return ApiCall(call.action, {**by_number, "PageNumber": number + 1, "PageSize": size})


def _missing_page(call: ApiCall, answer: ApiAnswer, gathered: int) -> ApiError:
    return ApiError(f"{call}: a page is missing: {gathered} items of {_number(answer, 'TotalCount')}")


def items_of(answer: ApiAnswer, path: Sequence[str], call: ApiCall) -> list[Json]:
    """Return the items at a path of an answer; none if the path is missing or null.

    Raises:
        ApiError: the value at the path is not a list.
    """
    found: Json = answer
    for name in path:
        if not isinstance(found, Mapping):
            break
        found = found.get(name)
        if found is None:
            return []
    else:
        if isinstance(found, list):
            return list(found)
    raise ApiError(f"{call}: unexpected answer: {'.'.join(path)} is not a list")


def _token(answer: ApiAnswer) -> str:
    token = answer.get("NextToken")
    return token if isinstance(token, str) else ""


def _number(answer: ApiAnswer, name: str) -> int:
    number = answer.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) else 0


_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """Credentials for signing requests."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    """The token of temporary credentials."""


def read_access_key(path: Path) -> AccessKey:
    """Return the access key in a file of Alibaba Cloud's own format: ``[default]`` and its keys.

    Raises:
        SourceUnavailableError: it can't be read, everybody can read it, or it holds none. The message never
            says what it holds.
    """
    content = read_secret(path, _MOST_BYTES)
    names = ("access_key_id", "access_key_secret", "security_token")
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    key_id = secret = token = ""
    with suppress(configparser.Error):  # which quotes the line, and so maybe the secret
        parser.read_string(content)
        key_id, secret, token = (parser.get("default", name, fallback="").strip() for name in names)
    if not (key_id and secret and (key_id + secret).isascii() and (key_id + secret).isprintable()):
        expected = "[default] with access_key_id = … and access_key_secret = …"
        raise SourceUnavailableError(f"{path}: no access key ({expected})")
    return AccessKey(access_key_id=key_id, access_key_secret=secret, security_token=token or None)


METADATA_HOST = "100.100.100.200"
METADATA_ENDPOINT = Endpoint.at(METADATA_HOST, 80)
_TIMEOUT_SECONDS = 2.0
_TOKEN_SECONDS = 60
_MOST_METADATA_BYTES = 4096
_INSTANCE = re.compile(r"i-[A-Za-z0-9]{1,60}")


def read_instance_id(host: str = METADATA_HOST, port: int = 80) -> str:
    """Return this host's instance id; request a token first, which hardened metadata services require.

    Raises:
        SourceUnavailableError: there is no such service, or it says something else.
    """
    with closing(http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)) as connection:
        ttl = {"X-aliyun-ecs-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
        token = _ask(connection, "PUT", "/latest/api/token", ttl)
        shown = {"X-aliyun-ecs-metadata-token": token}
        found = _ask(connection, "GET", "/latest/meta-data/instance-id", shown)
    if not _INSTANCE.fullmatch(found):
        raise SourceUnavailableError(f"http://{host}: what it says is no instance id: {found[:80]!r}")
    return found


def _ask(connection: http.client.HTTPConnection, method: str, target: str, headers: dict[str, str]) -> str:
    place = f"http://{connection.host}{target}"
    try:
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        content = response.read(_MOST_METADATA_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SourceUnavailableError(
            f"{place}: the metadata service can't be reached: {reason} (see instance_id and credentials_file)"
        ) from error
    if response.status != HTTPStatus.OK:
        raise SourceUnavailableError(f"{place}: answered {response.status}")
    return content.decode("ascii", "replace").strip()
