"""A server of gRPC in a test's hands, which answers, lies, breaks off or falls silent as the test says."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events

OK = [(":status", "200"), ("content-type", "application/grpc")]
DONE = [("grpc-status", "0")]
_PATIENCE_SECONDS = 10.0


class Server:
    """The other end of a connection, in a test's hands."""

    def __init__(self, connected: socket.socket) -> None:
        """Take the connection; nothing is read yet."""
        self.socket = connected
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.state.initiate_connection()
        self.broken_off: set[int] = set()
        """The numbers of calls that the client ended early."""

        self._put_off: list[h2.events.Event] = []

    def hear(self) -> list[h2.events.Event]:
        """Return what arrived; nothing once the client has gone."""
        events, self._put_off = self._put_off, []
        while not events and (received := self.socket.recv(65536)):
            events = self._take_in(received)
        return events

    def _take_in(self, received: bytes) -> list[h2.events.Event]:
        events = self.state.receive_data(received)
        for event in events:
            if isinstance(event, h2.events.StreamReset):
                self.broken_off.add(event.stream_id or 0)
            if isinstance(event, h2.events.DataReceived):
                self.state.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        self.flush()
        return events

    def hear_question(self) -> tuple[int, bytes]:
        """Wait for a whole request, and return its number and its message."""
        message = b""
        while True:
            for event in self.hear():
                if isinstance(event, h2.events.DataReceived):
                    message += event.data or b""
                if isinstance(event, h2.events.StreamEnded):
                    return event.stream_id or 0, message[5:]

    def answer(self, number: int, *messages: bytes, trailers: list[tuple[str, str]] = DONE) -> None:
        """Answer with messages and how it ended, unless the client has enough of it before."""
        if number in self.broken_off:
            return
        self.state.send_headers(number, OK)
        for message in messages:
            self.send(number, struct.pack("!BI", 0, len(message)) + message)
        if number not in self.broken_off:
            self.state.send_headers(number, trailers, end_stream=True)
            self.flush()

    def send(self, number: int, content: bytes) -> None:
        """Send bytes of an answer, as fast as the client takes them and until it ends the call."""
        while content and number not in self.broken_off:
            room = min(self.state.local_flow_control_window(number), self.state.max_outbound_frame_size)
            if not room:
                received = self.socket.recv(65536)
                if not received:
                    raise ConnectionResetError("the client has gone")
                self._put_off += self._take_in(received)
                continue
            self.state.send_data(number, content[:room])
            content = content[room:]
            self.flush()

    def flush(self) -> None:
        """Send what is to be sent."""
        self.socket.sendall(self.state.data_to_send())


Behaviour = Callable[[Server], None]


def hear_questions(server: Server, count: int) -> list[tuple[int, bytes]]:
    """Wait for whole requests, and return their numbers and messages."""
    messages: dict[int, bytes] = {}
    ended = 0
    while ended < count:
        for event in server.hear():
            number = getattr(event, "stream_id", None) or 0
            if isinstance(event, h2.events.DataReceived):
                messages[number] = messages.get(number, b"") + (event.data or b"")
            ended += isinstance(event, h2.events.StreamEnded)
    return [(number, message[5:]) for number, message in messages.items()]


def fill(server: Server, number: int, most: int) -> int:
    """Send of a long answer as much as the client lets in, and return how many bytes that is."""
    sent = 0
    while sent < most:
        room = min(server.state.local_flow_control_window(number), server.state.max_outbound_frame_size)
        if room:
            server.state.send_data(number, b"\0" * room)
            server.flush()
            sent += room
        else:
            server.state.ping(b"and now?")  # what the client lets in it has said by its answer
            server.flush()
            while not any(isinstance(event, h2.events.PingAckReceived) for event in server.hear()):
                pass
            if not server.state.local_flow_control_window(number):
                break
    return sent


@contextlib.contextmanager
def listening(behave: Behaviour) -> Iterator[int]:
    """Behave like this to whoever connects to a port of loopback, one after the other; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, behave), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(_PATIENCE_SECONDS)


def _accept(listener: socket.socket, behave: Behaviour) -> None:
    with contextlib.suppress(OSError):  # the test has ended
        while True:
            serve(listener.accept()[0], behave)


def serve(connected: socket.socket, behave: Behaviour) -> None:
    """Behave like this on a connection until the client has gone, who may have enough of it before."""
    connected.settimeout(_PATIENCE_SECONDS)
    with connected, contextlib.suppress(ConnectionError):
        behave(Server(connected))
        while connected.recv(65536):
            pass
