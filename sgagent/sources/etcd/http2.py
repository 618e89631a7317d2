"""gRPC calls over one HTTP/2 connection.

A channel belongs to one thread. While the thread waits for one call, the channel buffers data of the others,
so that a watch continues during short requests. HTTP/2 flow control bounds the buffer of each call to one
window. The channel detects a silent peer by pings, and every wait has a timeout.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from sgagent.sources.etcd.grpc import AnswerDeadline, ConnectionLostError, GrpcMessages, TooSlowError, packed

WINDOW = 1 << 20
"""Flow control window in bytes, of each call and of the connection."""

_TAKEN_STEP = 1 << 14
"""Sent bytes that extend the timeout of a send."""

_RECEIVED_AT_ONCE = 1 << 16
_GREETING_BYTES = 9
"""The header of the first frame."""

_TLS_ALERT = b"\x15"
_HEADERS = (("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "sgagent"))


@dataclass(frozen=True, slots=True)
class KeepaliveTimeouts:
    """The keepalive timeouts of a connection."""

    ping_after_seconds: float = 10.0
    """Silence before a ping. Servers close connections with pings more often than every 5 seconds."""

    silent_seconds: float = 5.0
    """Timeout of the answer to a ping, and of a send without progress."""


USUAL_TIMEOUTS = KeepaliveTimeouts()


class WakeSignal:
    """A descriptor that any thread can make readable, to end a wait early."""

    def __init__(self) -> None:
        """Open the descriptor."""
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._descriptor

    def wake(self) -> None:
        """Make the descriptor readable."""
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Make the descriptor no longer readable."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class Channel:
    """One connection to an endpoint."""

    def __init__(
        self,
        connected: socket.socket,
        authority: str,
        largest_message: int,
        patience: KeepaliveTimeouts = USUAL_TIMEOUTS,
    ) -> None:
        """Send the HTTP/2 preface over a connected socket, with or without TLS.

        Args:
            connected: the socket; the channel closes it.
            authority: the value of ``:authority``.
            largest_message: the size limit of a received message, in bytes.
            patience: the keepalive timeouts.

        Raises:
            ConnectionLostError: the peer does not accept the preface.
        """
        self._socket = connected
        scheme = "https" if isinstance(connected, ssl.SSLSocket) else "http"
        self._headers = [(":method", "POST"), (":scheme", scheme), (":authority", authority)]
        self._largest_message = largest_message
        self._patience = patience
        self._calls: dict[int, GrpcMessages] = {}
        self._heard_at = time.monotonic()
        self._asked_at: float | None = None
        self._is_ended = ""
        self._greeting = b""
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.bytes_received = 0
        """Bytes read from the socket, over all calls."""

        self._state.initiate_connection()
        self._state.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self._state.increment_flow_control_window(WINDOW)
        self._flush_or_hear_why()

    def call(self, method: str, message: bytes, *, metadata: Mapping[str, str], seconds: float) -> bytes:
        """Make a unary call.

        Raises:
            ConnectionLostError: no answer in time, or the connection broke.
            CallRefusedError: the server answered with an error.
        """
        call = self.open(method, message, metadata=metadata, is_last=True)
        return self.finish(call, AnswerDeadline(seconds, seconds))

    @property
    def has_room(self) -> bool:
        """Return whether the server accepts another concurrent call."""
        return self._state.open_outbound_streams < self._state.remote_settings.max_concurrent_streams

    def finish(self, call: GrpcMessages, allowance: AnswerDeadline) -> bytes:
        """Return the answer of an open call; one whose request has not ended is cancelled after the answer.

        Args:
            call: the call.
            allowance: the time budget of all concurrent calls; the wait uses it up.

        Raises:
            TooSlowError: no answer in time.
            AnswerTooLargeError: the answer exceeds the size limit.
            ConnectionLostError: the connection broke.
            CallRefusedError: the server answered with an error.
        """
        allowance.begin(time.monotonic(), self.bytes_received)
        try:
            while not call.is_over and (call.is_question or not call.messages):
                self._pump(allowance.deadline(time.monotonic(), self.bytes_received), call)
        except TooSlowError:
            self.cancel(call)
            raise
        finally:
            allowance.end(time.monotonic())
        if call.is_over:
            self._calls.pop(call.number, None)
            call.raise_refusal()
        else:
            self.cancel(call)
        if len(call.messages) != 1:
            raise ConnectionLostError(f"{len(call.messages)} answers to one request")
        return call.messages.popleft()

    def open(
        self, method: str, message: bytes, *, metadata: Mapping[str, str], is_last: bool
    ) -> GrpcMessages:
        """Open a call; wait if the server does not accept another concurrent call.

        Args:
            method: like ``/etcdserverpb.KV/Range``.
            message: the first message of the request.
            metadata: the gRPC metadata.
            is_last: whether the request ends with this message.

        Raises:
            ConnectionLostError: the connection broke, or no other call ended in time.
        """
        self._wait_for_room()
        try:
            number = self._state.get_next_available_stream_id()
            call = GrpcMessages(number, is_last, WINDOW, self._largest_message)
            headers = [*self._headers, (":path", method), *_HEADERS, *metadata.items()]
            self._state.send_headers(call.number, headers)
        except h2.exceptions.ProtocolError as error:
            raise ConnectionLostError(self._is_ended or str(error)) from error
        self._calls[call.number] = call
        self.send(call, message, is_last=is_last)
        return call

    def send(self, call: GrpcMessages, message: bytes, *, is_last: bool = False) -> None:
        """Send a message of a call's request within flow control.

        Only steps of a fixed size extend the timeout.

        Raises:
            ConnectionLostError: the connection broke, or the server accepts too little.
        """
        left, taken = memoryview(packed(message)), 0
        deadline = time.monotonic() + self._patience.silent_seconds
        while left and not call.is_over:
            try:
                room = self._state.local_flow_control_window(call.number)
                size = min(room, self._state.max_outbound_frame_size, len(left))
                if size:
                    is_end = is_last and size == len(left)
                    self._state.send_data(call.number, bytes(left[:size]), end_stream=is_end)
            except h2.exceptions.ProtocolError as error:
                raise ConnectionLostError(self._is_ended or str(error)) from error
            self._flush_or_hear_why()
            left, taken = left[size:], taken + size
            if taken >= _TAKEN_STEP:
                taken, deadline = 0, time.monotonic() + self._patience.silent_seconds
            if not size:
                if time.monotonic() >= deadline:
                    seconds = f"{self._patience.silent_seconds:g} seconds"
                    raise ConnectionLostError(f"the server accepts nothing, or too little, for {seconds}")
                self._pump(deadline)

    def receive(
        self, call: GrpcMessages, seconds: float, interrupt: WakeSignal | None = None
    ) -> bytes | None:
        """Return the next message of a call.

        Args:
            call: the call.
            seconds: the timeout.
            interrupt: ends the wait early.

        Returns:
            The message; None after the timeout or an interrupt.

        Raises:
            AnswerTooLargeError: the message exceeds the size limit.
            ConnectionLostError: the connection broke, or the server ended the call without an error.
            CallRefusedError: the server ended the call with an error.
        """
        deadline = time.monotonic() + seconds
        while not call.messages:
            if call.is_over:
                call.raise_refusal()
                raise ConnectionLostError("the server ended the call")
            if time.monotonic() >= deadline or not self._pump(deadline, call, interrupt):
                return None
        return call.messages.popleft()

    def cancel(self, *calls: GrpcMessages) -> None:
        """Cancel calls, and forget those that have ended.

        A lost connection raises nothing here; the next use of the channel raises.
        """
        for call in calls:
            self._calls.pop(call.number, None)
            if not call.is_over:
                with contextlib.suppress(h2.exceptions.ProtocolError):  # the call has just ended
                    self._state.reset_stream(call.number, error_code=h2.errors.ErrorCodes.CANCEL)
        with contextlib.suppress(ConnectionLostError):
            self._flush()

    def close(self) -> None:
        """End the connection and all calls."""
        self._socket.close()

    def _wait_for_room(self) -> None:
        """Wait until the server accepts another concurrent call, by finishing the oldest unary call."""
        deadline = time.monotonic() + self._patience.silent_seconds
        while not self.has_room:
            if time.monotonic() >= deadline:
                raise ConnectionLostError("the server accepts no more concurrent calls")
            asked = (call for call in self._calls.values() if call.is_question and not call.is_over)
            self._pump(deadline, next(asked, None))

    def _pump(
        self, deadline: float, awaited: GrpcMessages | None = None, interrupt: WakeSignal | None = None
    ) -> bool:
        """Wait for data until the deadline and process it; return False after an interrupt.

        Args:
            deadline: by the monotonic clock.
            awaited: the call whose flow control window to extend.
            interrupt: ends the wait early.
        """
        self._make_room(awaited)
        now = time.monotonic()
        if self._asked_at is None and now >= self._heard_at + self._patience.ping_after_seconds:
            self._state.ping(b"sgagent\0")
            self._asked_at = now
            self._flush()
        if self._asked_at is None:
            silent_at = self._heard_at + self._patience.ping_after_seconds
        else:
            silent_at = self._asked_at + self._patience.silent_seconds
        if now >= silent_at:
            raise ConnectionLostError(f"the server is silent for {now - self._heard_at:.0f} seconds")
        if not self._has_pending():
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if interrupt is not None:
                poll.register(interrupt, select.POLLIN)
            ready = poll.poll(max(0.0, min(deadline, silent_at) - now) * 1000)
            if interrupt is not None and any(number == interrupt.fileno() for number, _ in ready):
                return False
            if not ready:
                return True
        self._take_in()
        return True

    def _make_room(self, awaited: GrpcMessages | None) -> None:
        """Extend the flow control windows of the connection and of the awaited call.

        So what is kept of others is bounded by their windows. No call can hold up another one, as the window
        of all is opened whatever came.
        """
        if self._is_ended:
            return
        room = self._state.inbound_flow_control_window
        if room <= WINDOW // 2:
            self._state.increment_flow_control_window(WINDOW - room)
        if awaited is not None and not awaited.is_over and awaited.room <= WINDOW // 2:
            self._state.increment_flow_control_window(WINDOW - awaited.room, awaited.number)
            awaited.room = WINDOW
        with contextlib.suppress(ConnectionLostError):  # the next reading tells
            self._flush()

    def _has_pending(self) -> bool:
        """Return whether there are bytes that were decrypted and not read yet."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _take_in(self) -> None:
        """Receive the bytes that have arrived, at least one, and give them to their calls.

        Raises:
            ConnectionLostError: the connection broke, or the peer speaks another protocol.
        """
        try:
            received = self._socket.recv(_RECEIVED_AT_ONCE)
        except TimeoutError:  # half a record
            return
        except OSError as error:
            raise ConnectionLostError(_reason(error)) from error
        if not received:
            raise ConnectionLostError(self._is_ended or "the server closed the connection")
        self._heard_at, self._asked_at = time.monotonic(), None
        self.bytes_received += len(received)
        self._look_at_greeting(received)
        try:
            events = self._state.receive_data(received)
        except h2.exceptions.ProtocolError as error:
            raise ConnectionLostError(f"not HTTP/2: {error}") from error
        for event in events:
            self._note(event)
        with contextlib.suppress(ConnectionLostError):  # what was received counts; the next reading tells
            self._flush()

    def _look_at_greeting(self, received: bytes) -> None:
        """Give up a peer that does not begin as HTTP/2 has it, say a web server of an older kind.

        Whatever it says reads as the head of a frame of some length, which would be waited for.
        """
        missing = _GREETING_BYTES - len(self._greeting)
        if missing <= 0:
            return
        self._greeting += received[:missing]
        kind_and_flags = self._greeting[3:5]
        if self._greeting[:1] == _TLS_ALERT:
            raise ConnectionLostError("not HTTP/2 but TLS, which https:// speaks")
        if not b"\x04\0".startswith(kind_and_flags):  # settings that acknowledge nothing (RFC 9113, 3.4)
            raise ConnectionLostError(f"not HTTP/2, as it begins with {self._greeting.decode('latin-1')!r}")

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._is_ended = f"the server ends the connection (code {event.error_code})"
            for one in self._calls.values():
                if not one.is_over:
                    one.end(self._is_ended)
        call = self._calls.get(getattr(event, "stream_id", None) or 0)
        if call is None:
            return
        match event:
            case h2.events.DataReceived():
                call.room -= event.flow_controlled_length or 0
                call.add(event.data or b"")
                if call.refused_bytes:
                    self.cancel(call)
                    call.end()
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                call.take_in_headers(event.headers or ())
            case h2.events.StreamEnded():
                call.end()
            case h2.events.StreamReset():
                call.end(f"the server cancelled the call (code {event.error_code})")

    def _flush_or_hear_why(self) -> None:
        """Send pending data; on failure, read the peer's reason before raising.

        Raises:
            ConnectionLostError: the send failed; the message is the peer's reason, if there is one.
        """
        try:
            self._flush()
        except ConnectionLostError as error:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if self._has_pending() or poll.poll(0):
                self._take_in()
            raise ConnectionLostError(self._is_ended) from error

    def _flush(self) -> None:
        """Send pending data."""
        outgoing = self._state.data_to_send()
        if not outgoing:
            return
        if self._is_ended:
            raise ConnectionLostError(self._is_ended)
        try:
            self._socket.settimeout(self._patience.silent_seconds)
            self._socket.sendall(outgoing)
        except OSError as error:
            self._is_ended = _reason(error)  # an unknown part of the data was sent
            raise ConnectionLostError(self._is_ended) from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
