"""A few clients get events, and none of them can keep others waiting."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry

from sgagent.agent.web.http_server import MOST_STREAMS, MOST_WAITING, MetricsServer, listen
from sgagent.agent.web.page import Request, Response, plain
from tests.unit.agent.web.test_http_server import WAIT_SECONDS, Served
from tests.waiting import wait_until

REQUEST = b"GET /events HTTP/1.1\r\n\r\n"


@pytest.fixture
def events() -> Iterator[Served]:
    """Return a server whose events are numbered, a hundred a second; other responses last a moment only."""
    numbers = itertools.count()

    def stream(_request: Request) -> Response:
        return Response(
            status=HTTPStatus.OK,
            content_type="text/event-stream",
            content=b"retry: 1\n\n",
            make_event=lambda: b"data: %d\n\n" % next(numbers),
        )

    pages = {"/events": stream, "/healthz": lambda _: plain(HTTPStatus.OK, "ok\n")}
    server = MetricsServer(
        listen("127.0.0.1", 0), CollectorRegistry(), pages, longest_seconds=WAIT_SECONDS, event_seconds=0.01
    )
    with closing(server):
        yield Served("127.0.0.1", server)


def opened(served: Served, stack: ExitStack) -> socket.socket:
    """Return a client whose stream has begun."""
    client = stack.enter_context(served.connect())
    client.sendall(REQUEST)
    received = b""
    while b"data: " not in received:
        chunk = client.recv(4096)
        assert chunk, received
        received += chunk
    head, _, _ = received.partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert b"Content-Length" not in head
    return client


def test_events_come_one_after_the_other(events: Served) -> None:
    """The first at once, the next without a request."""
    with ExitStack() as stack, opened(events, stack).makefile("rb") as answer:
        numbers = [int(line[6:]) for line in itertools.islice(answer, 20) if line.startswith(b"data: ")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 5


def test_more_clients_than_there_is_room_for_are_told_to_come_later(events: Served) -> None:
    """They get 503 with Retry-After; once a client has gone, the next gets its place."""
    with ExitStack() as stack:
        clients = [opened(events, stack) for _ in range(MOST_STREAMS)]
        late = stack.enter_context(events.connect())
        late.sendall(REQUEST)
        with late.makefile("rb") as answer:
            text = answer.read()
        assert text.startswith(b"HTTP/1.0 503 ")
        assert b"\r\nRetry-After: 60\r\n" in text
        clients[0].close()
        wait_until(lambda: has_place(events), "the place to be free")


def has_place(served: Served) -> bool:
    """Ask for the stream once, without reading its events."""
    with served.connect() as client, client.makefile("rb") as answer:
        client.sendall(REQUEST)
        return b" 200 " in answer.readline()


def test_streams_occupy_no_worker(events: Served) -> None:
    """More requests than may wait for one page are answered while all streams are open."""
    with ExitStack() as stack:
        for _ in range(MOST_STREAMS):
            opened(events, stack)
        for _ in range(2 * MOST_WAITING):
            assert events.request("/healthz")[::2] == (200, "ok\n")
            assert events.request("/events")[0] == 503


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Return what serves a stream of one event, again and again."""
    with ExitStack() as stack:

        def serve(event: bytes, event_seconds: float, **seconds: float) -> Served:
            pages = {
                "/events": lambda _: Response(
                    status=HTTPStatus.OK,
                    content_type="text/event-stream",
                    content=b"retry: 1\n\n",
                    make_event=lambda: event,
                )
            }
            server = MetricsServer(
                listen("127.0.0.1", 0), CollectorRegistry(), pages, event_seconds=event_seconds, **seconds
            )
            return Served("127.0.0.1", stack.enter_context(closing(server)))

        yield serve


def test_a_client_that_reads_nothing_is_closed_and_keeps_nobody_waiting(serve: Callable[..., Served]) -> None:
    """As soon as its socket takes no event; the others get theirs."""
    served = serve(b"data: " + b"x" * 65_536 + b"\n\n", 0.001)
    with ExitStack() as stack:
        stalled, reader = opened(served, stack), opened(served, stack)
        received = 0
        while received < 20_000_000:  # more than the buffers of a socket hold
            received += len(reader.recv(1 << 20))
        with stalled.makefile("rb") as answer:
            assert len(answer.read()) < received
        assert reader.recv(1)


def test_an_event_is_sent_whole_or_ends_the_stream(serve: Callable[..., Served]) -> None:
    """A client never reads the rest of an event late."""
    event = b"data: " + b"x" * 50_000_000
    with ExitStack() as stack, opened(serve(event, 0.0), stack).makefile("rb") as answer:
        assert len(answer.read()) < len(event)


def test_the_head_alone_is_no_stream(events: Served) -> None:
    """The connection ends after it."""
    with events.connect() as client, client.makefile("rb") as answer:
        client.sendall(REQUEST.replace(b"GET", b"HEAD"))
        text = answer.read()
    assert b" 200 " in text
    assert b"data: " not in text


def test_a_stream_ends_with_its_time(serve: Callable[..., Served]) -> None:
    """The client gets a last event, and the end."""
    served = serve(b"data: 1\n\n", 0.0, stream_seconds=0.0)
    with served.connect() as client, client.makefile("rb") as answer:
        client.sendall(REQUEST)
        assert answer.read().endswith(b"retry: 1\n\ndata: 1\n\n")


def test_a_client_that_sends_more_is_closed(events: Served) -> None:
    """A stream goes one way."""
    with ExitStack() as stack:
        client = opened(events, stack)
        client.sendall(b"x")
        with client.makefile("rb") as answer:
            answer.read()


def test_a_closed_server_ends_its_streams(events: Served) -> None:
    """The clients see the end."""
    with ExitStack() as stack:
        client = opened(events, stack)
        events.server.close()
        with client.makefile("rb") as answer:
            answer.read()
