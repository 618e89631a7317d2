"""Asking a store that answers, is slow, dies or lies."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import h2.events
import pytest

from sgagent.documents import Limits
from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.grpc import (
    AnswerTooLargeError,
    CallRefusedError,
    CompactedError,
    ConnectionLostError,
    StoreTooLargeError,
    TooSlowError,
)
from sgagent.sources.etcd.key_layout import PUBLISHED, KeyLayout
from sgagent.sources.etcd.messages import (
    KEY_BYTES,
    KeyRange,
    largest_message,
    nested,
    number,
    read_fields,
    text,
)
from sgagent.sources.etcd.publication import read_published
from tests.grpcserver import DONE, OK, Behaviour, Server, hear_questions, listening

AT_ONCE = 32
LARGEST_MESSAGE = largest_message(Limits())
RANGES = [KeyRange(f"/{place:03}") for place in range(2 * AT_ONCE)]


class Connect(Protocol):
    """Make a client of a store that behaves in some way."""

    def __call__(
        self,
        behave: Behaviour,
        timeout_seconds: float = ...,
        user: str | None = ...,
        limits: Limits | None = ...,
    ) -> Client:
        """Return the client."""
        ...


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """Give clients of stores that behave as a test says."""
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    with ExitStack() as stack:

        def make(
            behave: Behaviour,
            timeout_seconds: float = 5.0,
            user: str | None = None,
            limits: Limits | None = None,
        ) -> Client:
            port = stack.enter_context(listening(behave))
            settings = EtcdSourceSettings(
                endpoints=(ServerUrl(host="127.0.0.1", port=port, is_encrypted=False),),
                timeout_seconds=timeout_seconds,  # type: ignore[arg-type]  # tests have less time than whole seconds
                user=user,
                password_file=password,
            )
            return stack.enter_context(closing(Client(settings, limits=limits)))

        yield make


def asked_for(question: bytes) -> str:
    """Return the key that a question for a range asks for."""
    length = question[1]
    return question[2 : 2 + length].decode()


def page(*keys: str, has_more: bool = False) -> bytes:
    """Return an answer with keys, each of which has its name as its value."""
    items = (nested(2, text(1, key.encode()) + number(3, 7) + text(5, key.encode())) for key in keys)
    return nested(1, number(3, 7)) + b"".join(items) + number(3, has_more)


def answer_all(server: Server, count: int, broken_off: list[set[int]] | None = None) -> None:
    """Answer so many questions for a key with that key; keep what had been broken off before."""
    questions = hear_questions(server, count)
    if broken_off is not None:
        broken_off.append(set(server.broken_off))
    for stream, question in questions:
        server.answer(stream, page(asked_for(question)))


def read(client: Client, ranges: list[KeyRange] = RANGES) -> list[str]:
    """Return the values of ranges."""
    return [item.value.decode() for _, items in client.read_each(ranges, revision=7) for item in items]


def names(ranges: list[KeyRange] = RANGES) -> list[str]:
    """Return the values that ranges have."""
    return [one.first for one in ranges]


def test_many_ranges(connect: Connect) -> None:
    """Each has its own keys."""

    def behave(server: Server) -> None:
        for _ in range(2):
            answer_all(server, AT_ONCE)

    assert read(connect(behave)) == names()


def test_a_lease_is_renewed_before_the_request_ends(connect: Connect) -> None:
    """The proxy of etcd cancels one whose request has ended, and hosts behind it lost their keys."""

    def renew(server: Server) -> None:
        heard = server.hear()
        while not any(isinstance(event, h2.events.DataReceived) for event in heard):
            heard = server.hear()
        stream = next(event.stream_id for event in heard if isinstance(event, h2.events.DataReceived)) or 0
        if any(isinstance(event, h2.events.StreamEnded) for event in heard):
            server.answer(stream, trailers=[("grpc-status", "1"), ("grpc-message", "context canceled")])
            return
        renewed = number(2, 7) + number(3, 60)
        server.state.send_headers(stream, OK)
        server.send(stream, struct.pack("!BI", 0, len(renewed)) + renewed)
        while stream not in server.broken_off:
            server.hear()

    lease = connect(renew).renew_lease(7)
    assert (lease.number, lease.seconds) == (7, 60)


def test_answers_are_taken_one_by_one(connect: Connect) -> None:
    """The next is not waited for, nor kept, before somebody asks for it."""
    is_taken = threading.Event()

    def behave(server: Server) -> None:
        (first, question), (second, other) = hear_questions(server, 2)
        server.answer(first, page(asked_for(question)))
        is_taken.wait(10)
        server.answer(second, page(asked_for(other)))

    answers = connect(behave).read_each(RANGES[:2], revision=7)
    assert next(answers)[0] == RANGES[0]
    is_taken.set()
    assert [one for one, _ in answers] == RANGES[1:2]


def test_a_store_that_dies_while_much_is_asked(connect: Connect) -> None:
    """One time-out is enough; nothing of all that was asked is left, and half as much is asked next."""
    asked: list[set[int]] = []
    broken_off: list[set[int]] = []

    def behave(server: Server) -> None:
        asked.append({stream for stream, _ in hear_questions(server, AT_ONCE)})
        for _ in range(4):
            answer_all(server, AT_ONCE // 2, broken_off)
        for _ in range(2):
            answer_all(server, AT_ONCE)

    client = connect(behave, 0.5)
    with pytest.raises(TooSlowError, match=r"127\.0\.0\.1.*no answer within 0\.5 seconds"):
        read(client)
    for _ in range(2):
        assert read(client) == names()
    assert broken_off[0] == asked[0]


def test_a_store_that_answers_each_just_in_time(connect: Connect) -> None:
    """All that was asked at once has a few time-outs, not one for each."""

    def behave(server: Server) -> None:
        for stream, question in hear_questions(server, AT_ONCE):
            threading.Event().wait(0.1)  # it is slow
            server.answer(stream, page(asked_for(question)))

    with pytest.raises(TooSlowError, match=r"not all answers within 2 seconds"):
        read(connect(behave, 0.5), RANGES[:AT_ONCE])


@pytest.mark.parametrize(
    ("status", "expected"), (("11", CompactedError), ("7", CallRefusedError), (None, ConnectionLostError))
)
def test_a_refusal_leaves_nothing(connect: Connect, status: str | None, expected: type[Exception]) -> None:
    """Nor does an answer that can't be read; the connection goes on."""
    asked: list[set[int]] = []
    broken_off: list[set[int]] = []

    def behave(server: Server) -> None:
        (first, _), *others = hear_questions(server, 5)
        asked.append({stream for stream, _ in others})
        if status is None:
            server.answer(first, b"\xff")
        else:
            server.answer(first, trailers=[("grpc-status", status)])
        answer_all(server, 5, broken_off)

    client = connect(behave)
    with pytest.raises(expected):
        read(client, RANGES[:5])
    assert read(client, RANGES[:5]) == names(RANGES[:5])
    assert broken_off == asked


def test_who_takes_no_more_answers(connect: Connect) -> None:
    """The others are not waited for."""
    asked: list[set[int]] = []
    broken_off: list[set[int]] = []

    def behave(server: Server) -> None:
        (first, question), *others = hear_questions(server, 5)
        asked.append({stream for stream, _ in others})
        server.answer(first, page(asked_for(question)))
        answer_all(server, 5, broken_off)

    client = connect(behave)
    with closing(client.read_each(RANGES[:5], revision=7)) as answers:
        next(answers)
    assert read(client, RANGES[:5]) == names(RANGES[:5])
    assert broken_off == asked


def test_a_token_that_ends_in_the_midst(connect: Connect) -> None:
    """What was answered is not asked for again."""
    asked: list[list[str]] = []

    def behave(server: Server) -> None:
        for token in (b"first", b"second"):
            server.answer(server.hear_question()[0], text(2, token))
            questions = hear_questions(server, 5 if token == b"first" else 3)
            asked.append([asked_for(question) for _, question in questions])
            for place, (stream, question) in enumerate(questions):
                if token == b"first" and place == 2:
                    server.answer(stream, trailers=[("grpc-status", "16")])
                    break
                server.answer(stream, page(asked_for(question)))

    assert read(connect(behave, user="agent"), RANGES[:5]) == names(RANGES[:5])
    assert asked == [names(RANGES[:5]), names(RANGES[2:5])]


def limit_of(question: bytes) -> int:
    """Return how many keys a question for a range asks for at most."""
    return next(value for field, value in read_fields(question) if field == 3 and isinstance(value, int))


def refuse_more_than(server: Server, most: int, questions: int) -> list[tuple[str, int]]:
    """Answer questions, one for more keys than these by too large a message; return what was asked."""
    asked = []
    for _ in range(questions):
        stream, question = server.hear_question()
        asked.append((asked_for(question), limit_of(question)))
        if limit_of(question) > most:
            server.state.send_headers(stream, OK)
            server.send(stream, struct.pack("!BI", 0, LARGEST_MESSAGE + 1))
        else:
            server.answer(stream, page(asked_for(question), has_more=asked_for(question) == "/a/"))
    return asked


def test_keys_that_are_too_large_together(connect: Connect) -> None:
    """Fewer are asked for at once, which may be one."""
    asked: list[tuple[str, int]] = []

    def behave(server: Server) -> None:
        asked.extend(refuse_more_than(server, 250, 6))

    _, items = connect(behave).read(KeyRange.below("/a/"), revision=7)
    assert [item.key for item in items] == ["/a/", "/a/\0"]
    limits = [1000, 500, 250]
    assert asked == [*(("/a/", limit) for limit in limits), *(("/a/\0", limit) for limit in limits)]


def test_a_key_that_is_too_large(connect: Connect) -> None:
    """Its size is told, and where it stands."""

    def behave(server: Server) -> None:
        refuse_more_than(server, 0, 10)

    with pytest.raises(AnswerTooLargeError, match=rf"127\.0\.0\.1.*{LARGEST_MESSAGE + 1} bytes"):
        connect(behave).read(KeyRange("/a"))


def test_one_of_many_ranges_is_too_large(connect: Connect) -> None:
    """From it on each is read by itself."""

    def behave(server: Server) -> None:
        (first, question), (second, _), *_ = hear_questions(server, 5)
        server.answer(first, page(asked_for(question)))
        server.state.send_headers(second, OK)
        server.send(second, struct.pack("!BI", 0, LARGEST_MESSAGE + 1))
        refuse_more_than(server, 500, 8)

    assert read(connect(behave), RANGES[:5]) == names(RANGES[:5])


@pytest.mark.parametrize(
    "answer", (page(has_more=True), page("/b/1"), page("/b/1", has_more=True), page("/a/1", "/a0"))
)
def test_keys_that_nobody_asked_for(connect: Connect, answer: bytes) -> None:
    """Nor does an answer without keys say that more follow."""

    def behave(server: Server) -> None:
        server.answer(server.hear_question()[0], answer)

    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1.*does not fit the question .*'/a/'"):
        connect(behave).read(KeyRange.below("/a/"))


def test_a_token_that_can_not_be_read(connect: Connect) -> None:
    """The end point is taken for none."""

    def behave(server: Server) -> None:
        server.answer(server.hear_question()[0], b"\xff")

    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1.*can't be read"):
        connect(behave, user="agent").count(KeyRange("/a"))


def test_a_token_that_ends_where_no_other_comes(connect: Connect) -> None:
    """Which end point gives none in time is told."""

    def behave(server: Server) -> None:
        server.answer(server.hear_question()[0], text(2, b"first"))
        server.answer(server.hear_question()[0], trailers=[("grpc-status", "16")])
        server.hear_question()

    with pytest.raises(TooSlowError, match=r"^http://127\.0\.0\.1:\d+: no answer within 0\.5 seconds"):
        connect(behave, 0.5, user="agent").count(KeyRange("/a"))


def test_a_watch_on_a_connection_that_has_ended(connect: Connect) -> None:
    """Where it was is told."""

    def behave(server: Server) -> None:
        stream, _ = server.hear_question()
        server.state.send_headers(stream, OK)
        server.state.send_data(stream, bytes(5))
        server.state.send_headers(stream, DONE, end_stream=True)
        server.state.close_connection(error_code=11)
        server.flush()  # all in one

    client = connect(behave)
    client.count(KeyRange("/a"))
    with pytest.raises(ConnectionLostError, match=r"^http://127\.0\.0\.1:\d+: .*ends the connection"):
        client.watch([(KeyRange("/a"), 1)])


def room_for(*keys: str) -> Limits:
    """Return the limits with which such keys just fit, each with its name as its value."""
    return Limits(document_bytes=-(-sum(KEY_BYTES + 2 * len(key) for key in keys) // 4))


def test_pages_without_end(connect: Connect) -> None:
    """As many are read as there is room for; where there is none is told, and how much it would be."""
    keys = ["/a/" + place * "\0" for place in range(5)]
    limits = room_for(*keys[:-1])

    def behave(server: Server) -> None:
        for key in keys:
            stream, question = server.hear_question()
            server.answer(stream, page(asked_for(question), has_more=key != keys[-1]))

    with pytest.raises(
        StoreTooLargeError, match=rf"^http://127\.0\.0\.1:\d+: .*more than {limits.all_bytes} bytes"
    ):
        connect(behave, limits=limits).read(KeyRange.below("/a/"))
    _, items = connect(behave, limits=room_for(*keys)).read(KeyRange.below("/a/"))
    assert [item.key for item in items] == keys


def test_ranges_that_are_too_large_together(connect: Connect) -> None:
    """They are counted together, in whatever portions they are asked for."""
    ranges = RANGES[: AT_ONCE + 1]

    def behave(server: Server) -> None:
        answer_all(server, AT_ONCE)
        answer_all(server, 1)

    with pytest.raises(StoreTooLargeError):
        read(connect(behave, limits=room_for(*names(ranges[:-1]))), ranges)
    assert read(connect(behave, limits=room_for(*names(ranges))), ranges) == names(ranges)


def test_one_of_many_ranges_that_is_read_by_itself(connect: Connect) -> None:
    """It counts as the others do."""

    def behave(server: Server) -> None:
        (first, question), (second, _) = hear_questions(server, 2)
        server.answer(first, page(asked_for(question)))
        server.state.send_headers(second, OK)
        server.send(second, struct.pack("!BI", 0, LARGEST_MESSAGE))
        refuse_more_than(server, 1000, 1)

    ranges = RANGES[:2]
    with pytest.raises(StoreTooLargeError, match="have more than"):
        read(connect(behave, limits=room_for(*names(ranges[:1]))), ranges)
    assert read(connect(behave, limits=room_for(*names(ranges))), ranges) == names(ranges)


def test_what_is_published_is_read_together(connect: Connect) -> None:
    """Of all kinds of objects together no more is read than of files."""
    layout = KeyLayout("/sgagent")
    keys = [layout.all_of(kind).first for kind in PUBLISHED]

    def behave(server: Server) -> None:
        for _ in range(1 + len(keys)):
            stream, question = server.hear_question()
            server.answer(stream, page() if asked_for(question) == layout.meta else page(asked_for(question)))

    with pytest.raises(StoreTooLargeError):
        read_published(connect(behave, limits=room_for(*keys[:-1])), layout)
    assert len(read_published(connect(behave, limits=room_for(*keys)), layout).items) == len(keys)


@pytest.mark.parametrize("document_bytes", (1000, 128 << 20))
def test_a_document_as_large_as_is_allowed(connect: Connect, document_bytes: int) -> None:
    """It fits into an answer, with what stands around it; one that is much larger does not."""
    largest = document_bytes + (1 << 20)

    def behave(server: Server) -> None:
        for _ in range(10):
            stream, _ = server.hear_question()
            server.state.send_headers(stream, OK)
            server.send(stream, struct.pack("!BI", 0, largest + 1))

    with pytest.raises(AnswerTooLargeError, match=f"of {largest + 1} bytes, where {largest} are the most"):
        connect(behave, limits=Limits(document_bytes=document_bytes)).read(KeyRange("/a"))


def test_more_keys_than_were_asked_for(connect: Connect) -> None:
    """They are not even read: each would cost more than it is long."""

    def behave(server: Server) -> None:
        stream, _ = server.hear_question()
        server.answer(stream, page(*(f"/a/{place:04}" for place in range(1001))))
        stream, _ = server.hear_question()
        server.answer(stream, page("/a/"))

    client = connect(behave)
    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1.*more than the 1000 keys"):
        client.read(KeyRange.below("/a/"))
    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1.*more than the 0 keys"):
        client.count(KeyRange.below("/a/"))
