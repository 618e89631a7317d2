"""Stream of a store's changes, and a wake-up pipe that ends a wait for them."""

from __future__ import annotations

import contextlib
import os
import select
from dataclasses import dataclass

from sgagent.sources.etcd.grpc import (
    AnswerTooLargeError,
    CallRefusedError,
    CompactedError,
    ConnectionLostError,
    GrpcMessages,
    GrpcStatus,
    MalformedMessageError,
    StoreTooLargeError,
    as_compacted,
)
from sgagent.sources.etcd.http2 import Channel, Interrupt
from sgagent.sources.etcd.messages import KeyRange, WatchAnswer, read_watch, watch_request
from sgagent.sources.etcd.replica import SizeBudget


@dataclass(frozen=True, slots=True)
class Watch:
    """An open watch on several ranges."""

    channel: Channel
    call: GrpcMessages
    followed: list[KeyRange]
    """The ranges, by watch id."""

    place: str
    """The endpoint, for messages."""

    most_bytes: int
    """Size limit of one answer."""

    def add(self, followed: KeyRange, revision: int) -> None:
        """Watch another range from a revision on.

        Raises:
            ConnectionLostError: the connection broke.
        """
        try:
            self.channel.send(self.call, watch_request(followed, revision, len(self.followed)))
        except ConnectionLostError as error:
            raise type(error)(f"{self.place}: {error}") from error
        self.followed.append(followed)

    def receive(self, seconds: float, interrupt: Interrupt | None = None) -> WatchAnswer | None:
        """Return the next answer; None after the timeout or an interrupt.

        Raises:
            CompactedError: the store has compacted the first revision of the watch.
            AnswerTooLargeError: the answer exceeds the size limit.
            EtcdError: the watch has ended.
        """
        room = SizeBudget(self.most_bytes)
        try:
            message = self.channel.receive(self.call, seconds, interrupt)
            answer = None if message is None else read_watch(message, lambda item: room.take((item,)))
        except CallRefusedError as error:
            raise as_compacted(error) from error
        except StoreTooLargeError as error:
            raise AnswerTooLargeError(f"{self.place}: {error}") from error
        except ConnectionLostError as error:
            raise type(error)(f"{self.place}: {error}") from error
        except MalformedMessageError as error:
            raise ConnectionLostError(f"{self.place}: an answer that can't be read: {error}") from error
        if answer is not None and answer.is_canceled:
            if answer.compact_revision:
                raise CompactedError(f"before revision {answer.compact_revision}")
            raise CallRefusedError(GrpcStatus.CANCELLED, answer.reason or "the watch was canceled")
        return answer

    def end(self) -> None:
        """Cancel the watch and keep the connection."""
        self.channel.cancel(self.call)

    def range_of(self, answer: WatchAnswer) -> KeyRange | None:
        """Return the range of an answer; None for an unknown watch id."""
        if 0 <= answer.watch_id < len(self.followed):
            return self.followed[answer.watch_id]
        return None


class WakePipe:
    """Wake-up pipe: any thread can make its descriptor readable."""

    def __init__(self) -> None:
        """Open the pipe."""
        self._heard, self._rung = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._heard

    def wake(self) -> None:
        """Make the descriptor readable."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._rung, b"\0")

    def clear(self) -> None:
        """Empty the pipe."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._heard, 4096):
                pass

    def wait(self, seconds: float) -> None:
        """Wait until the descriptor is readable or the timeout ends, and empty the pipe."""
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)
        self.clear()

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self._heard)
        os.close(self._rung)
