"""Privilege separation: a small process keeps the privilege, and the agent continues without it.

Before it reads any input, the process forks the applier, drops its own capabilities, and executes itself
again. The new process image holds the sockets to the applier, and nothing else of the first one.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self

from sgagent.core.errors import UsageError
from sgagent.dataplane import protocol
from sgagent.dataplane.applier import be_applier
from sgagent.dataplane.monitor import RulesetChange
from sgagent.dataplane.privileges import give_up_all, refuse_privilege

_VARIABLE = "SGAGENT_APPLIER"
"""Passes the applier's process id and socket descriptors through the ``execve``."""

_CHANGE_BYTES = 4096
"""A notice of a change is much shorter."""

_LONGEST_END_SECONDS = 5.0
"""Until an applier that has not ended is killed. It may be in the middle of a transaction."""


@dataclass(frozen=True, slots=True)
class Applier:
    """The applier as its parent sees it."""

    pid: int
    channel: socket.socket
    news: socket.socket
    """Carries one message for each change of the ruleset by another process; closed when the applier ends."""

    def __enter__(self) -> Self:
        """Return the applier."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the applier, and wait until it has given the table up."""
        self.end()

    def end(self) -> None:
        """Close the channel, and wait until the applier has ended; one that does not is killed."""
        self.channel.close()
        self.news.close()
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            with open(descriptor, "rb", buffering=0):  # noqa: PTH123 - a number, not a path
                if not _ends_within(descriptor, _LONGEST_END_SECONDS):
                    os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)


def _ends_within(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def fork_applier(*, owned: bool) -> Applier:
    """Fork the applier, with all privileges that this process has.

    Args:
        owned: whether the applier declares the table as its own.
    """
    channel, its_channel = socket.socketpair()
    news, its_news = socket.socketpair(type=socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = be_applier(its_channel, its_news, parent, owned=owned)
        except Exception:  # noqa: BLE001 - the outermost frame of this process
            os.write(2, traceback.format_exc().encode("ascii", "backslashreplace"))
        finally:
            os._exit(code)
    its_channel.close()
    its_news.close()
    return Applier(pid, channel, news)


def go_on_without_privilege(applier: Applier) -> NoReturn:
    """Give every capability up and execute this program again with the same arguments."""
    hand_over(applier, os.environ)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - itself, as it was started


def hand_over(applier: Applier, environment: MutableMapping[str, str]) -> None:
    """Give every capability up, and leave the applier to what this process does next.

    Args:
        applier: that this process forked.
        environment: of the process; :func:`applier_of_first_life` finds the applier there.
    """
    give_up_all()
    numbers = applier.channel.fileno(), applier.news.fileno()
    for number in numbers:
        os.set_inheritable(number, True)  # noqa: FBT003 - the standard library's own parameter
    environment[_VARIABLE] = " ".join(map(str, (applier.pid, *numbers)))


def applier_of_first_life(environment: MutableMapping[str, str]) -> Applier | None:
    """Return the applier that this process forked before its ``execve``; None before that.

    Args:
        environment: of the process; the variable is removed from it.

    Raises:
        NotPermittedError: this process still has the privilege.
        UsageError: the variable is set, but not by this program.
    """
    value = environment.pop(_VARIABLE, None)
    if value is None:
        return None
    refuse_privilege()
    try:
        pid, *numbers = map(int, value.split())
        channel, news = (_inherited(number) for number in numbers)
    except (OSError, ValueError) as error:
        raise UsageError(f"{_VARIABLE} is for the agent itself, and must not be set: {error}") from error
    return Applier(pid, channel, news)


def _inherited(number: int) -> socket.socket:
    """Return a socket that is not inherited any further."""
    inherited = socket.socket(fileno=number)
    inherited.set_inheritable(False)
    return inherited


@contextlib.contextmanager
def news_heard(
    news: socket.socket, changed: Callable[[RulesetChange], None], ended: Callable[[], None]
) -> Iterator[None]:
    """Call back from a thread of its own, until the context is left.

    Args:
        news: from the applier.
        changed: called for each change by another process.
        ended: called once, when the applier has ended.
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
        while content := news.recv(_CHANGE_BYTES):
            changed(*protocol.decode(content))
    ended()
