"""A store in a test's hands, which says of itself what the test wants it to."""

from __future__ import annotations

import struct

import h2.events

from sgagent.sources.etcd.key_layout import KeyLayout
from sgagent.sources.etcd.messages import FieldValue, KeyRange, nested, number, read_fields, text
from sgagent.sources.etcd.publication import Completeness, Marker
from tests.grpcserver import OK, Server

LAYOUT = KeyLayout("/sgagent")
MARKER = Marker(state=Completeness.COMPLETE, serial=1, version="v", published_by="x", published_at="y")
REVISION = 7


class Store:
    """A marker and other keys, written at one revision, and what watches tell that are begun."""

    def __init__(self, **groups: bytes) -> None:
        """Hold groups by their names, a dash for each underscore; nothing was asked yet."""
        self.values = {LAYOUT.meta: MARKER.encoded()}
        for name, value in groups.items():
            self.put(name, value)
        self.watches = 0
        """How many were begun, all ranges of a connection taken for one."""

        self.told: list[bytes] = []
        """What watches send one after another, each as much as one item, at their beginning."""

    def put(self, group: str, value: bytes) -> None:
        """Hold a group from now on, of which no watch tells."""
        self.values[LAYOUT.key("groups", group.replace("_", "-"))] = value

    def behave(self, server: Server) -> None:
        """Answer questions until the client has gone."""
        paths: dict[int, bytes] = {}
        while events := server.hear():
            for event in events:
                match event:
                    case h2.events.RequestReceived():
                        paths[event.stream_id or 0] = dict(event.headers or ())[b":path"]
                    case h2.events.DataReceived() if paths[event.stream_id or 0].endswith(b"/Watch"):
                        self._tell(server, event.stream_id or 0, event.data or b"")
                    case h2.events.DataReceived():
                        server.answer(event.stream_id or 0, self._answer((event.data or b"")[5:]))
                    case _:
                        pass

    def _tell(self, server: Server, stream: int, asked: bytes) -> None:
        """Tell what the watch has to tell, as soon as it is begun."""
        if LAYOUT.meta.encode() not in asked:
            return
        self.watches += 1
        server.state.send_headers(stream, OK)
        if self.told:
            server.send(stream, self.told.pop(0))
        server.flush()

    def _answer(self, question: bytes) -> bytes:
        fields = dict(read_fields(question))
        asked = KeyRange(_word(fields.get(1, b"")), _word(fields.get(2, b"")))
        found = sorted((key, value) for key, value in self.values.items() if key in asked)
        header = nested(1, number(1, 5) + number(3, REVISION))
        return header + b"".join(nested(2, written(key, value, REVISION)) for key, value in found)


def written(key: str, value: bytes, revision: int) -> bytes:
    """Return a key as it is sent."""
    return text(1, key.encode()) + number(3, revision) + text(5, value)


def told(*keys: bytes) -> bytes:
    """Return that keys were written, as a watch sends it."""
    message = nested(1, number(1, 5) + number(3, REVISION + 1))
    message += b"".join(nested(11, nested(2, key)) for key in keys)
    return struct.pack("!BI", 0, len(message)) + message


def _word(value: FieldValue) -> str:
    return value.decode() if isinstance(value, bytes) else ""
