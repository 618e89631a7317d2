"""Calls over HTTP/2, to servers that answer and to such that lie, break off or fall silent."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from typing import Protocol

import h2.events
import h2.settings
import pytest

from sgagent.sources.etcd.grpc import (
    AnswerDeadline,
    AnswerTooLargeError,
    CallRefusedError,
    ConnectionLostError,
    GrpcMessages,
    TooSlowError,
)
from sgagent.sources.etcd.http2 import USUAL_TIMEOUTS, WINDOW, Channel, KeepaliveTimeouts, WakeSignal
from tests.grpcserver import DONE, OK, Behaviour, Server, fill, hear_questions, serve
from tests.patience import PATIENCE

LARGEST_MESSAGE = 65 << 20


class Connect(Protocol):
    """Make a channel to a server that behaves in some way."""

    def __call__(self, behave: Behaviour, patience: KeepaliveTimeouts = ...) -> Channel:
        """Return the channel."""
        ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Give channels to servers that behave as a test says."""
    opened: list[tuple[Channel, threading.Thread]] = []

    def make(behave: Behaviour, patience: KeepaliveTimeouts = USUAL_TIMEOUTS) -> Channel:
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=serve, args=(theirs, behave), daemon=True)
        thread.start()
        opened.append((Channel(ours, "etcd.example.com", LARGEST_MESSAGE, patience), thread))
        return opened[-1][0]

    yield make
    for channel, thread in opened:
        channel.close()
        thread.join(10)


def ask(channel: Channel, message: bytes = b"question", seconds: float = 5.0 * PATIENCE) -> bytes:
    """Ask a question of one answer."""
    return channel.call("/service/Method", message, metadata={"token": "x"}, seconds=seconds)


def finish(channel: Channel, *calls: GrpcMessages) -> list[bytes]:
    """Return the answers to questions."""
    allowance = AnswerDeadline(10.0 * PATIENCE, 10.0 * PATIENCE)
    return [channel.finish(call, allowance) for call in calls]


@pytest.mark.parametrize("size", (0, 5, 100_000, 3_000_000))
def test_questions_and_answers_of_any_size(connect: Connect, size: int) -> None:
    """Both ways they are longer than what the other end takes at once."""

    def echo(server: Server) -> None:
        for _ in range(2):
            number, message = server.hear_question()
            server.answer(number, message)

    channel = connect(echo)
    for _ in range(2):
        assert ask(channel, b"x" * size) == b"x" * size
    assert channel.bytes_received > 2 * size


def test_an_error_of_the_server(connect: Connect) -> None:
    """Its code and words are kept."""

    def refuse(server: Server) -> None:
        number, _ = server.hear_question()
        server.answer(number, trailers=[("grpc-status", "7"), ("grpc-message", "permission%20denied")])

    with pytest.raises(CallRefusedError, match="permission denied") as caught:
        ask(connect(refuse))
    assert caught.value.code == 7
    assert not caught.value.is_passing


def _closes(server: Server) -> None:
    server.hear_question()
    server.socket.shutdown(socket.SHUT_WR)


def _is_no_http2(server: Server) -> None:
    server.socket.recv(1000)
    server.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)


def _speaks_tls(server: Server) -> None:
    server.socket.recv(1000)
    server.socket.sendall(b"\x15\x03\x01\0\x02\x02\x46")  # an alert


def _is_a_web_server(server: Server) -> None:
    number, _ = server.hear_question()
    server.state.send_headers(number, [(":status", "503")], end_stream=True)
    server.flush()


def _resets(server: Server) -> None:
    number, _ = server.hear_question()
    server.state.reset_stream(number, error_code=2)
    server.flush()


def _goes_away(server: Server) -> None:
    server.hear_question()
    server.state.close_connection(error_code=11)
    server.flush()


def _answers_twice(server: Server) -> None:
    number, _ = server.hear_question()
    server.answer(number, b"one", b"two")


def _answers_nothing(server: Server) -> None:
    number, _ = server.hear_question()
    server.answer(number)


def _says_strangely_how_it_ended(server: Server) -> None:
    number, _ = server.hear_question()
    server.answer(number, trailers=[("grpc-status", "²")])


def _says_at_length_how_it_ended(server: Server) -> None:
    number, _ = server.hear_question()
    server.answer(number, trailers=[("grpc-status", "1" * 5000)])


def _compresses(server: Server) -> None:
    number, _ = server.hear_question()
    server.state.send_headers(number, OK)
    server.send(number, struct.pack("!BI", 1, 3) + b"abc")


@pytest.mark.parametrize(
    ("behave", "told"),
    (
        (_closes, "closed the connection"),
        (_is_no_http2, "not HTTP/2, as it begins with 'HTTP/1.1 '"),
        (_speaks_tls, "TLS, which https:// speaks"),
        (_is_a_web_server, "HTTP status 503"),
        (_resets, "cancelled the call"),
        (_goes_away, "ends the connection"),
        (_answers_twice, "2 answers"),
        (_answers_nothing, "0 answers"),
        (_says_strangely_how_it_ended, "no answer of gRPC"),
        (_says_at_length_how_it_ended, "no answer of gRPC"),
        (_compresses, "compressed"),
    ),
)
def test_a_server_that_lies_or_breaks_off(connect: Connect, behave: Behaviour, told: str) -> None:
    """The connection is given up, and why is told."""
    with pytest.raises(ConnectionLostError, match=told):
        ask(connect(behave))


@pytest.mark.parametrize("is_question", (True, False))
def test_a_message_that_is_too_large(connect: Connect, is_question: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """It is broken off as soon as it says so, and nothing else is."""

    def behave(server: Server) -> None:
        number = 0
        while not number:
            begun = (e for e in server.hear() if isinstance(e, h2.events.RequestReceived))
            number = next((event.stream_id or 0 for event in begun), 0)
        server.state.send_headers(number, OK)
        server.send(number, struct.pack("!BI", 0, LARGEST_MESSAGE + 1) + bytes(1000))
        number, message = server.hear_question()
        server.answer(number, message)

    channel = connect(behave)
    call = channel.open("/s/M", b"much", metadata={}, is_last=is_question)
    with pytest.raises(
        AnswerTooLargeError, match=f"{LARGEST_MESSAGE + 1} bytes.*{LARGEST_MESSAGE} are the most"
    ):
        finish(channel, call) if is_question else channel.receive(call, 5.0 * PATIENCE)
    assert ask(channel) == b"question"


def test_a_server_that_said_why_before_it_closed(connect: Connect) -> None:
    """That is told, not that nothing could be sent any more."""
    has_closed = threading.Event()

    def behave(server: Server) -> None:
        server.hear()
        server.state.close_connection(error_code=11)
        server.flush()
        server.socket.shutdown(socket.SHUT_RDWR)
        has_closed.set()

    channel = connect(behave)
    assert has_closed.wait(10)
    with pytest.raises(ConnectionLostError, match=r"ends the connection \(code 11\)"):
        ask(channel)
    with pytest.raises(ConnectionLostError, match=r"ends the connection \(code 11\)"):
        ask(channel)


def test_a_server_that_does_not_answer(connect: Connect) -> None:
    """Every question has its time; another may still be asked."""

    def answers_the_second(server: Server) -> None:
        server.hear_question()
        number, message = server.hear_question()
        server.answer(number, message)

    channel = connect(answers_the_second)
    with pytest.raises(ConnectionLostError, match="no answer within"):
        ask(channel, seconds=0.1)
    assert ask(channel) == b"question"


def test_a_server_that_fell_silent(connect: Connect) -> None:
    """It is asked for a sign of life, and given up if there is none."""
    heard = threading.Event()

    def hears_and_says_nothing(server: Server) -> None:
        server.socket.recv(65536)
        heard.wait(10)

    channel = connect(hears_and_says_nothing, KeepaliveTimeouts(0.05, 0.2))
    with pytest.raises(ConnectionLostError, match="the server is silent"):
        ask(channel)
    heard.set()


def test_questions_that_are_asked_at_once(connect: Connect) -> None:
    """Each has its own answer, in whatever order these come."""

    def behave(server: Server) -> None:
        first, second = hear_questions(server, 2)
        for number, message in (second, first):
            server.answer(number, b"answer to " + message)

    channel = connect(behave)
    calls = [channel.open("/s/M", message, metadata={}, is_last=True) for message in (b"one", b"two")]
    assert finish(channel, *calls) == [b"answer to one", b"answer to two"]


@pytest.mark.parametrize("is_question", (True, False))
def test_what_nobody_waits_for_is_not_let_in(connect: Connect, is_question: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Of the answer to another question or of a stream, as much as its window has; no other call feels it."""
    sent: list[int] = []

    def behave(server: Server) -> None:
        begun: list[int] = []
        while len(begun) < 2:
            begun += [e.stream_id or 0 for e in server.hear() if isinstance(e, h2.events.RequestReceived)]
        first, second = begun
        server.state.send_headers(first, OK)
        server.send(first, struct.pack("!BI", 0, 2 * WINDOW))
        sent.append(fill(server, first, 2 * WINDOW))
        server.answer(second, b"x" * (WINDOW + 100_000))
        server.send(first, bytes(2 * WINDOW - sent[0]))
        server.state.send_headers(first, DONE, end_stream=True)
        server.flush()

    channel = connect(behave)
    call = channel.open("/s/M", b"much", metadata={}, is_last=is_question)
    assert ask(channel) == b"x" * (WINDOW + 100_000)
    assert 0 < sent[0] <= WINDOW
    received = finish(channel, call) if is_question else [channel.receive(call, 5.0 * PATIENCE)]
    assert received == [bytes(2 * WINDOW)]


@pytest.mark.parametrize("size", (1, WINDOW + 100_000))
def test_a_server_that_takes_one_call_at_a_time(connect: Connect, size: int) -> None:
    """The next is opened once the one before has ended, however long its answer is, and not before."""

    def behave(server: Server) -> None:
        server.state.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        for _ in range(4):
            number, message = server.hear_question()
            server.answer(number, message * size)

    channel = connect(behave)
    ask(channel)  # by then the client knows
    calls = [channel.open("/s/M", b"%d" % number, metadata={}, is_last=True) for number in range(3)]
    assert finish(channel, *calls) == [b"0" * size, b"1" * size, b"2" * size]


def test_answers_that_take_too_long_together(connect: Connect) -> None:
    """Once their time is up nobody waits for any of them."""

    def behave(server: Server) -> None:
        hear_questions(server, 2)

    channel = connect(behave)
    calls = [channel.open("/s/M", b"question", metadata={}, is_last=True) for _ in range(2)]
    allowance = AnswerDeadline(5.0, 0.1)
    for call in calls:
        with pytest.raises(TooSlowError, match=r"not all answers within 0\.1 seconds"):
            channel.finish(call, allowance)


def test_a_server_that_takes_no_call_any_more(connect: Connect) -> None:
    """It is given up after a while."""

    def behave(server: Server) -> None:
        server.state.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        number, message = server.hear_question()
        server.answer(number, message)

    channel = connect(behave, KeepaliveTimeouts(silent_seconds=0.2))
    ask(channel)
    channel.open("/s/M", b"one", metadata={}, is_last=False)
    with pytest.raises(ConnectionLostError, match="accepts no more concurrent calls"):
        channel.open("/s/M", b"two", metadata={}, is_last=True)


def test_a_server_that_takes_a_byte_now_and_then(connect: Connect) -> None:
    """It is given up, too, however much sense it makes."""

    def behave(server: Server) -> None:
        server.state.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        number, message = server.hear_question()
        server.answer(number, message)
        while events := server.hear():  # a byte that it heard makes room for another
            for event in events:
                if isinstance(event, h2.events.RequestReceived):
                    server.state.increment_flow_control_window(1, event.stream_id)
            server.flush()

    channel = connect(behave, KeepaliveTimeouts(silent_seconds=0.2))
    ask(channel)  # by then the client knows
    with pytest.raises(ConnectionLostError, match="accepts nothing, or too little"):
        channel.open("/s/M", bytes(15_000), metadata={}, is_last=True)


def test_a_stream_goes_on_beside_questions(connect: Connect) -> None:
    """What arrives for one while another is waited for is kept."""

    def serve(server: Server) -> None:
        streams: list[int] = []
        while not streams:
            streams = [e.stream_id or 0 for e in server.hear() if isinstance(e, h2.events.DataReceived)]
        server.state.send_headers(streams[0], OK)
        server.send(streams[0], struct.pack("!BI", 0, 3) + b"one")
        number, _ = server.hear_question()
        server.send(streams[0], struct.pack("!BI", 0, 3) + b"two")
        server.answer(number, b"answer")
        server.hear()

    channel = connect(serve)
    call = channel.open("/service/Stream", b"begin", metadata={}, is_last=False)
    assert channel.receive(call, 5.0 * PATIENCE) == b"one"
    assert ask(channel) == b"answer"
    assert channel.receive(call, 5.0 * PATIENCE) == b"two"
    assert channel.receive(call, 0.01) is None
    channel.cancel(call)


def test_a_wait_that_is_ended_early(connect: Connect) -> None:
    """By a wake-up pipe, which any thread may write to."""

    def serve(server: Server) -> None:
        while server.socket.recv(65536):
            pass

    channel, wake_signal = connect(serve), WakeSignal()
    call = channel.open("/service/Stream", b"begin", metadata={}, is_last=False)
    wake_signal.wake()
    wake_signal.wake()
    assert channel.receive(call, 60.0, wake_signal) is None
    wake_signal.clear()
    assert channel.receive(call, 0.01, wake_signal) is None
    wake_signal.close()
