"""Keep sessions busy in both directions and see which of them still carry anything, and since when not.

Every session is a pair of sockets, one at each end, that send numbered messages all the time: an end that
stops hearing has been cut, whoever keeps sending. TCP must deliver every byte in order; of the others each
message counts.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from integration.lab import Lab, wait_for
from integration.namespaces import Namespace
from tests.patience import PATIENCE

_TICK_SECONDS = 0.002
_SILENT_TICKS = 50
"""Whoever talks is heard within so many, however long a busy machine takes for them."""

_MEETING_SECONDS = 10.0
_MESSAGE = struct.Struct("!Q")


@dataclass(slots=True)
class End:
    """One end of a session."""

    socket: socket.socket
    is_stream: bool
    sent: int = 0
    heard: int = 0
    """Messages that arrived; those of a stream arrived whole and in order."""

    last_heard: float = 0.0
    """By ``time.perf_counter``."""

    broken: str = ""
    """What went wrong with what arrived."""

    unread: bytes = b""
    unsent: bytes = b""

    def send(self) -> None:
        """Send the next message; the rest that a stream does not take is kept for the next time."""
        if not self.is_stream or not self.unsent:
            self.unsent = _MESSAGE.pack(self.sent)
            self.sent += 1
        # Refused, full, or no way there for the moment: what is not taken is not heard, and so is noticed.
        with contextlib.suppress(OSError):
            taken = self.socket.send(self.unsent)
            self.unsent = self.unsent[taken:]

    def notify(self) -> None:
        """Take the arrived messages."""
        try:
            arrived = self.socket.recv(65536)
        except OSError:
            return
        if not arrived:
            return
        self.last_heard = time.perf_counter()
        if not self.is_stream:
            self.heard += 1
            return
        self.unread += arrived
        while len(self.unread) >= _MESSAGE.size:
            (number,) = _MESSAGE.unpack(self.unread[: _MESSAGE.size])
            if number != self.heard:
                self.broken = f"message {number} in the place of {self.heard}"
            self.unread = self.unread[_MESSAGE.size :]
            self.heard += 1


@dataclass(slots=True)
class Session:
    """Two ends that talk to each other."""

    name: str
    ends: tuple[End, End]
    """Who opened it, and who was asked."""

    @property
    def last_heard(self) -> float:
        """Return when either end last heard of the other."""
        return max(end.last_heard for end in self.ends)

    def lost(self) -> int:
        """Return how many messages were sent and did not arrive."""
        one, other = self.ends
        return max(one.sent - other.heard, 0) + max(other.sent - one.heard, 0)


@dataclass(slots=True)
class Traffic:
    """Sessions that talk while the test does something else."""

    lab: Lab
    sessions: dict[str, Session] = field(default_factory=dict)
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _stop: threading.Event = field(default_factory=threading.Event)
    _still: threading.Event = field(default_factory=threading.Event)
    _ticks: int = 0

    def open(
        self,
        name: str,
        client: Namespace,
        source: str,
        server: Namespace,
        destination: tuple[str, int],
        *,
        kind: int = socket.SOCK_STREAM,
        listens_at: tuple[str, int] | None = None,
        source_port: int = 0,
    ) -> Session:
        """Open a session of TCP or UDP.

        Args:
            name: to find it again.
            client: where it is opened.
            source: the client's address, its own or not.
            server: where it ends.
            destination: where the client wants to go.
            kind: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
            listens_at: where the server waits, if that is elsewhere (DNAT).
            source_port: 0 for any.
        """
        waits_at = listens_at or destination
        listener = self.lab.listen(server, waits_at[0], waits_at[1], kind)
        opener = self.lab.connect(client, (source, source_port), destination, kind)
        if kind == socket.SOCK_STREAM:
            with listener:
                listener.settimeout(_MEETING_SECONDS * PATIENCE)
                answerer = listener.accept()[0]
        else:
            answerer = _met(opener, listener)
        session = Session(name, tuple_of_ends(opener, answerer, kind))
        self._opened.enter_context(opener)
        self._opened.enter_context(answerer)
        self.sessions[name] = session
        return session

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let all sessions talk until the context is left."""
        thread = threading.Thread(target=self._talk, name="traffic")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def wait_until_all_talk(self) -> None:
        """Wait until every end of every session has heard something since now."""
        since = time.perf_counter()
        wait_for(lambda: self._all_heard_since(since), "all sessions to talk")

    def settle(self, names: set[str]) -> None:
        """Stop sending, and wait until all that these sessions sent has arrived."""
        self._still.set()
        wait_for(lambda: all(self.sessions[name].lost() == 0 for name in names), "what was sent to arrive")

    def silent_since(self, moment: float, seconds: float) -> dict[str, float]:
        """Watch for a while and tell which sessions hear nothing in its second half, and when they last did.

        Returns:
            Seconds after the moment, by the names of the sessions that fell silent.
        """
        self._watch_until(moment + seconds / 2)
        limit = time.perf_counter()
        self._watch_until(limit + seconds / 2)
        return {
            name: session.last_heard - moment
            for name, session in self.sessions.items()
            if session.last_heard < limit
        }

    def close(self) -> None:
        """Close all sockets."""
        self._opened.close()

    def _watch_until(self, end: float) -> None:
        """Wait until a moment, and until all that was sent before has been taken in."""
        last = self._ticks + _SILENT_TICKS
        wait_for(lambda: time.perf_counter() >= end and self._ticks >= last, "the watch to end")

    def _all_heard_since(self, moment: float) -> bool:
        return all(end.last_heard > moment for session in self.sessions.values() for end in session.ends)

    def _talk(self) -> None:
        """Send at every tick, and take messages as they arrive."""
        with selectors.DefaultSelector() as selector:
            ends = [end for session in self.sessions.values() for end in session.ends]
            for end in ends:
                selector.register(end.socket, selectors.EVENT_READ, end)
            due = time.perf_counter()
            while not self._stop.is_set():
                for key, _ in selector.select(max(due - time.perf_counter(), 0)):
                    key.data.notify()
                if time.perf_counter() >= due:
                    due = time.perf_counter() + _TICK_SECONDS
                    self._ticks += 1
                    for end in ends:
                        if not self._still.is_set() or end.unsent:
                            end.send()


def tuple_of_ends(opener: socket.socket, answerer: socket.socket, kind: int) -> tuple[End, End]:
    """Return both ends of a session, made so that they never wait."""
    for opened in (opener, answerer):
        opened.settimeout(0)
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    is_stream = kind == socket.SOCK_STREAM
    return End(opener, is_stream), End(answerer, is_stream)


@contextlib.contextmanager
def traffic(lab: Lab) -> Iterator[Traffic]:
    """Return sessions to be opened, and close them at the end."""
    made = Traffic(lab)
    try:
        yield made
    finally:
        made.close()


def is_open(attempt: Callable[[], socket.socket]) -> bool:
    """Tell whether a connection is made; one that nobody answers is not."""
    try:
        attempt().close()
    except TimeoutError:
        return False
    return True


def is_answered(attempt: Callable[[], socket.socket]) -> bool:
    """Tell whether an attempt to connect is answered, be it by a refusal."""
    try:
        return is_open(attempt)
    except ConnectionRefusedError:
        return True


def _met(opener: socket.socket, listener: socket.socket) -> socket.socket:
    """Exchange the first datagrams of a session, and return the listener as an end that is connected."""
    opener.send(b"hello")
    listener.settimeout(_MEETING_SECONDS * PATIENCE)
    _, opened_by = listener.recvfrom(64)
    listener.connect(opened_by)
    listener.send(b"welcome")
    opener.settimeout(_MEETING_SECONDS * PATIENCE)
    opener.recv(64)
    return listener
