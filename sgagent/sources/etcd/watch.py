"""Hear what changes in a store, as it is told."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.sources.etcd.call import Call
from sgagent.sources.etcd.channel import Channel, Interrupt
from sgagent.sources.etcd.failures import (
    AnswerTooLargeError,
    CallRefusedError,
    CompactedError,
    ConnectionLostError,
    Status,
    TooLargeError,
    as_compacted,
)
from sgagent.sources.etcd.messages import KeyRange, WatchAnswer, read_watch, watch_request
from sgagent.sources.etcd.protobuf import MalformedMessageError
from sgagent.sources.etcd.room import Room


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch that has begun."""

    channel: Channel
    call: Call
    followed: list[KeyRange]
    """In the order of the watches' numbers."""

    place: str
    """Of the end point, for messages."""

    most_bytes: int
    """That one answer may hold."""

    def add(self, followed: KeyRange, revision: int) -> None:
        """Follow another range, from a revision on.

        Raises:
            ConnectionLostError: the connection broke.
        """
        try:
            self.channel.send(self.call, watch_request(followed, revision, len(self.followed)))
        except ConnectionLostError as error:
            raise type(error)(f"{self.place}: {error}") from error
        self.followed.append(followed)

    def receive(self, seconds: float, interrupt: Interrupt | None = None) -> WatchAnswer | None:
        """Return what is told next; None if nothing was in time.

        Raises:
            CompactedError: the revision that it was to begin with is gone.
            AnswerTooLargeError: so much has changed that it can't be told at once.
            EtcdError: the watch has ended.
        """
        room = Room(self.most_bytes)
        try:
            message = self.channel.receive(self.call, seconds, interrupt)
            answer = None if message is None else read_watch(message, lambda item: room.take((item,)))
        except CallRefusedError as error:
            raise as_compacted(error) from error
        except TooLargeError as error:
            raise AnswerTooLargeError(f"{self.place}: {error}") from error
        except ConnectionLostError as error:
            raise type(error)(f"{self.place}: {error}") from error
        except MalformedMessageError as error:
            raise ConnectionLostError(f"{self.place}: an answer that can't be read: {error}") from error
        if answer is not None and answer.is_canceled:
            if answer.compact_revision:
                raise CompactedError(f"before revision {answer.compact_revision}")
            raise CallRefusedError(Status.CANCELLED, answer.reason or "the watch was canceled")
        return answer

    def end(self) -> None:
        """End the watch; the connection goes on."""
        self.channel.cancel(self.call)

    def range_of(self, answer: WatchAnswer) -> KeyRange | None:
        """Return which range an answer is about; None if that is not known."""
        if 0 <= answer.watch_id < len(self.followed):
            return self.followed[answer.watch_id]
        return None
