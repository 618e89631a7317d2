"""Access keys from a file, and requests to the instance's metadata service."""

from __future__ import annotations

import configparser
import http.client
import re
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from sgagent.core.errors import SourceUnavailableError
from sgagent.core.policy import Endpoint
from sgagent.sources.secret_file import require_private

_SECTION = "default"
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """Credentials for signing requests."""

    access_key_id: str
    access_key_secret: str
    security_token: str | None = None
    """The token of temporary credentials."""

    def __repr__(self) -> str:
        """Return a text without secrets."""
        return f"AccessKey({self.access_key_id!r})"


def read_access_key(path: Path) -> AccessKey:
    """Return the access key in a file of Alibaba Cloud's own format: ``[default]`` and its keys.

    Raises:
        SourceUnavailableError: it can't be read, everybody can read it, or it holds none. The message never
            says what it holds.
    """
    require_private(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read(_MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SourceUnavailableError(f"{path}: can't be read: {reason}") from error
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text)
    except configparser.Error:
        raise _no_key(path) from None  # the error quotes the line, which may be the secret
    key_id, secret = (
        parser.get(_SECTION, f"access_key_{name}", fallback="").strip() for name in ("id", "secret")
    )
    if not (key_id and secret and (key_id + secret).isascii() and (key_id + secret).isprintable()):
        raise _no_key(path)
    token = parser.get(_SECTION, "security_token", fallback="").strip()
    return AccessKey(access_key_id=key_id, access_key_secret=secret, security_token=token or None)


def _no_key(path: Path) -> SourceUnavailableError:
    return SourceUnavailableError(
        f"{path}: no access key ([default] with access_key_id = … and access_key_secret = …)"
    )


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
