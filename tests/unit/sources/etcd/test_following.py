"""Following a store that tells more than anybody takes in."""

from __future__ import annotations

import struct
from contextlib import closing

import h2.events

from sgagent.settings import EtcdEndpoint, EtcdSourceSettings
from sgagent.sources.etcd.bell import Bell
from sgagent.sources.etcd.call import LARGEST_MESSAGE
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.following import Following
from sgagent.sources.etcd.interest import Everything
from sgagent.sources.etcd.layout import Layout
from sgagent.sources.etcd.marker import Marker, State
from sgagent.sources.etcd.protobuf import nested, number, text
from tests.grpcserver import OK, Server, listening
from tests.waiting import wait_until

LAYOUT = Layout("/sgagent")
MARKER = Marker(state=State.COMPLETE, serial=1, version="v", published_by="x", published_at="y")


class Store:
    """Something published that is empty, and a watch that once has too much to tell."""

    def __init__(self) -> None:
        """Begin without being asked anything."""
        self.watches = 0

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
                        server.answer(event.stream_id or 0, self._answer(event.data or b""))
                    case _:
                        pass

    def _tell(self, server: Server, stream: int, asked: bytes) -> None:
        """Say too much in the first watch, nothing in others."""
        if LAYOUT.meta.encode() in asked:
            self.watches += 1
            server.state.send_headers(stream, OK)
            if self.watches == 1:
                server.state.send_data(stream, struct.pack("!BI", 0, LARGEST_MESSAGE + 1))
            server.flush()

    def _answer(self, question: bytes) -> bytes:
        header = nested(1, number(1, 5) + number(3, 7))
        if LAYOUT.meta.encode() not in question:
            return header
        return header + nested(2, text(1, LAYOUT.meta.encode()) + number(3, 7) + text(5, MARKER.encoded()))


def test_a_watch_that_has_too_much_to_tell() -> None:
    """What it was to tell is read instead, as it is by now, over the same connection."""
    store, bell = Store(), Bell()
    with listening(store.behave) as port:
        settings = EtcdSourceSettings(
            endpoints=(EtcdEndpoint(host="127.0.0.1", port=port, is_encrypted=False),)
        )
        with closing(bell), closing(Client(settings)) as client:
            following = Following(client, LAYOUT, Everything(LAYOUT), bell)
            before = following.connect()
            after = following.wait()
            assert after is not None
            assert after is not before
            assert after.marker == MARKER
            wait_until(lambda: store.watches == 2, "another watch")
