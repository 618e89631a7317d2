"""Ask the metadata service of an instance who this host is."""

from __future__ import annotations

import http.client
import re
from contextlib import closing
from http import HTTPStatus

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import SourceUnavailableError

METADATA_HOST = "100.100.100.200"
METADATA_ENDPOINT = Endpoint.at(METADATA_HOST, 80)
_TIMEOUT_SECONDS = 2.0
_TOKEN_SECONDS = 60
_MOST_BYTES = 4096
_INSTANCE = re.compile(r"i-[A-Za-z0-9]{1,60}")


def read_instance_id(host: str = METADATA_HOST, port: int = 80) -> str:
    """Return the id of the instance that this host is; a token is asked for first, as hardened ones demand.

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
        content = response.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SourceUnavailableError(
            f"{place}: the metadata service can't be reached: {reason} (see instance_id and credentials_file)"
        ) from error
    if response.status != HTTPStatus.OK:
        raise SourceUnavailableError(f"{place}: answered {response.status}")
    return content.decode("ascii", "replace").strip()
