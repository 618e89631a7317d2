"""Hear from the applier who else changes the ruleset, and that it has ended."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from sgagent.dataplane import messages
from sgagent.dataplane.events import RulesetChange


@contextlib.contextmanager
def news_heard(
    news: socket.socket, changed: Callable[[RulesetChange], None], ended: Callable[[], None]
) -> Iterator[None]:
    """Call back from a thread of its own, until the context is left.

    Args:
        news: from the applier.
        changed: is told of each change that somebody else made.
        ended: is told, once, that the applier has ended.
    """
    thread = threading.Thread(target=_hear, args=(news, changed, ended), name="news", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            news.shutdown(socket.SHUT_RDWR)
        thread.join()


def _hear(news: socket.socket, changed: Callable[[RulesetChange], None], ended: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        while content := news.recv(messages.CHANGE_BYTES):
            changed(messages.read_change(content))
    ended()
