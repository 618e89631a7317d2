"""The metadata service of an instance, hardened: whoever shows no token gets nothing."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.ecsserver import KEY_ID, SECRET, TOKEN, reply, serving

METADATA_TOKEN = "metadata-token"  # noqa: S105 - the tests' own
ROLE = "sgagent-reader"
_LIFE = dt.timedelta(hours=6)
_ROLES = "/latest/meta-data/ram/security-credentials/"


@dataclass(slots=True)
class MetadataServer:
    """A running service."""

    server: ThreadingHTTPServer
    instance_id: str
    asked: list[str] = field(default_factory=list)
    """What was asked for with a token."""

    @property
    def port(self) -> int:
        """Return where it listens."""
        return self.server.server_port


@contextlib.contextmanager
def metadata_server(
    instance_id: str, *, address: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[MetadataServer]:
    """Serve an instance that has a RAM role, until the context is left."""
    server = ThreadingHTTPServer(address, _Handler)
    server.daemon_threads = True
    running = MetadataServer(server, instance_id)
    server.running = running  # type: ignore[attr-defined]  # the library's way to hand something to its handlers
    with serving(server):
        yield running


class _Handler(BaseHTTPRequestHandler):
    """Answers one question."""

    def do_PUT(self) -> None:
        """Give a token to who says for how long."""
        is_token = (
            self.path == "/latest/api/token" and self.headers["X-aliyun-ecs-metadata-token-ttl-seconds"]
        )
        reply(self, 200 if is_token else 400, METADATA_TOKEN.encode() if is_token else b"")

    def do_GET(self) -> None:
        """Answer who shows the token."""
        running: MetadataServer = self.server.running  # type: ignore[attr-defined]  # see above
        if self.headers["X-aliyun-ecs-metadata-token"] != METADATA_TOKEN:
            reply(self, 403, b"")
            return
        running.asked.append(self.path)
        answers = {
            "/latest/meta-data/instance-id": running.instance_id,
            _ROLES: ROLE,
            _ROLES + ROLE: json.dumps(_credentials()),
        }
        found = answers.get(self.path)
        reply(self, 404 if found is None else 200, (found or "").encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def _credentials() -> dict[str, str]:
    now = dt.datetime.now(dt.UTC)
    return {
        "Code": "Success",
        "AccessKeyId": KEY_ID,
        "AccessKeySecret": SECRET,
        "SecurityToken": TOKEN,
        "LastUpdated": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "Expiration": f"{now + _LIFE:%Y-%m-%dT%H:%M:%SZ}",
    }
