"""The applier: the only process that holds CAP_NET_ADMIN; it serves a fixed set of requests of the agent.

It reads no document, no configuration and nothing from the network, and does not trust a request. It changes
the table ``inet sgagent``, the agent's bits of session marks, and sessions at this host's own sockets. It
ends when the agent ends, and leaves the table unchanged.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
from typing import Any, assert_never

from sgagent.core.errors import SgagentError
from sgagent.dataplane import protocol, request_validation
from sgagent.dataplane.conntrack import find_session
from sgagent.dataplane.generation import APPLIER_NAME
from sgagent.dataplane.monitor import RulesetChange, TrackedTable
from sgagent.dataplane.nflog import LAST_GROUP, open_log
from sgagent.dataplane.privileges import end_with_parent, hide_memory, keep_only_net_admin, name_process
from sgagent.dataplane.protocol import LONGEST_REQUEST, MalformedMessageError, Reply, Verb
from sgagent.dataplane.sockets import destroy_socket
from sgagent.dataplane.table import KernelTable

LARGE_BYTES = 1 << 18
"""Size of a plan from which :func:`give_back` is worth its time."""


def give_back() -> None:
    """Return free memory of the C library to the kernel, if the C library supports that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


_ERRORS = 2
"""Standard error: the only descriptor from before the fork, besides the sockets, that stays open."""

_DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Ignored signals: they reach the whole service or terminal, and the agent closes the channel then."""


def be_applier(channel: socket.socket, news: socket.socket, parent: int, *, owned: bool) -> int:
    """Serve the agent until it closes the channel; return the exit code of this process.

    Args:
        channel: to the agent.
        news: where the agent hears who changes the ruleset.
        parent: the process id of the agent.
        owned: whether to own the table, as for :class:`sgagent.dataplane.table.KernelTable`.
    """
    for number in _DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    _keep_open(channel.fileno(), news.fileno())
    try:
        with channel, news:  # closed before an error is printed, since a slow reader may block the print
            name_process(APPLIER_NAME)
            hide_memory()
            keep_only_net_admin()
            end_with_parent()
            if os.getppid() != parent:
                return 0
            serve(channel, news, owned=owned)
    except (MalformedMessageError, SgagentError, OSError) as error:
        os.write(_ERRORS, f"{APPLIER_NAME}: {error}\n".encode("ascii", "backslashreplace"))
        return 1
    return 0


def serve(channel: socket.socket, news: socket.socket, *, owned: bool) -> None:
    """Answer requests, and pass on who else changes the ruleset, until the other side is gone.

    Raises:
        MalformedMessageError: what arrived is not even a message.
        OSError: an answer could not be sent.
    """
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    with contextlib.closing(_Desk(news, owned=owned)) as desk:
        while True:
            if channel.fileno() in {number for number, _ in poll.poll()}:
                request = protocol.receive(channel, LONGEST_REQUEST)
                if request is None:
                    return
                protocol.send(channel, *desk.answer(*request))
                if len(request[1]) >= LARGE_BYTES:
                    request = None  # it is among what can be given back
                    desk.forget()
                    gc.collect()  # only this empties Python's lists of free objects, which hold whole pages
                    give_back()
                desk.hand_over(channel)
            if desk.followed is not None:
                poll.register(desk.followed.events, select.POLLIN)
                desk.followed.hear()


class _Desk:
    """Do what is asked for."""

    def __init__(self, news: socket.socket, *, owned: bool) -> None:
        self._news = news
        self._owned = owned
        self._table: KernelTable | None = None
        self._mask = 0
        self._log_group: int | None = None
        self._log: socket.socket | None = None
        self.followed: TrackedTable | None = None
        """From the beginning on, if the privilege is there."""

    def close(self) -> None:
        """Release the table unchanged."""
        for opened in (self.followed, self._table):
            if opened is not None:
                opened.close()

    def forget(self) -> None:
        """Keep nothing in memory of what was done."""
        if self._table is not None:
            self._table.forget()

    def hand_over(self, channel: socket.socket) -> None:
        """Send the log's socket, if one was just opened, to the agent, and close our copy."""
        if self._log is not None:
            with self._log:
                protocol.hand_over(channel, self._log)
            self._log = None

    def _pass_on(self, change: RulesetChange) -> None:
        """Notify the agent of a change that another process made.

        A notice that finds the queue full is dropped: the agent has unread notices and will read the table.
        If the agent has ended, the next read of the channel shows it.
        """
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._news.send(protocol.encode(change), socket.MSG_DONTWAIT)

    def answer(self, kind: int, content: bytes) -> tuple[Reply, bytes]:
        """Return the answer to a request."""
        try:
            return Reply.DONE, self._do(protocol.verb(kind), content)
        except (SgagentError, OSError, MalformedMessageError) as refusal:
            return Reply.REFUSED, protocol.encode_refusal(refusal)

    def _do(self, verb: Verb, content: bytes) -> bytes:
        if self._table is None and verb is not Verb.BEGIN:
            raise MalformedMessageError("before the beginning")
        values = protocol.decode(content)
        if self._table is None:
            return self._begin(request_validation.check_number(values))
        return self._do_with(self._table, verb, values)

    def _begin(self, mask: int) -> bytes:
        """Open the table. Which bits are the agent's is said once, before it has read any document."""
        self._table, self._mask = KernelTable(owned=self._owned, guarded=True), mask
        with contextlib.suppress(OSError):  # without the privilege every other verb says so
            self.followed = TrackedTable(self._table, self._pass_on)
        return b""

    def _do_with(self, table: KernelTable, verb: Verb, values: tuple[Any, ...]) -> bytes:
        followed = self.followed or table
        match verb:
            case Verb.READ_GENERATION:
                return protocol.encode(followed.read_generation())
            case Verb.LIST_TABLE:
                return protocol.encode_listing(followed.list_table(), is_owner=table.is_owner)
            case Verb.LIST_COUNTERS:
                return table.list_counters()
            case Verb.APPLY:
                plan = request_validation.check_plan(values, self._mask, self._log_group)
                return protocol.encode(followed.apply(plan), table.is_owner)
            case Verb.CLEAR_MARKS:
                return protocol.encode(table.clear_marks(*request_validation.check_marks(values, self._mask)))
            case Verb.REFUSE_ANOTHER_OWNER:
                table.refuse_another_owner()
                return b""
            case Verb.FIND_SESSION:
                return protocol.encode(find_session(request_validation.check_packet(values)))
            case Verb.END_SESSION:
                return protocol.encode(destroy_socket(*request_validation.check_socket(values)))
            case Verb.ALLOW_LOG:
                return protocol.encode(
                    self._allow_log(table, request_validation.check_number(values, LAST_GROUP))
                )
            case Verb.OPEN_LOG:
                return self._open_log()
            case Verb.BEGIN:
                raise MalformedMessageError("a second beginning")
            case _:
                assert_never(verb)

    def _allow_log(self, table: KernelTable, group: int) -> bool:
        """Let plans log to a group, once, if the kernel can do that."""
        if self._log_group is not None:
            raise MalformedMessageError("a second group of the log")
        is_possible = table.allow_log(group)
        if is_possible:
            self._log_group = group
        return is_possible

    def _open_log(self) -> bytes:
        if self._log_group is None:
            raise MalformedMessageError("no group of the log was named")
        self._log = open_log(self._log_group)
        return b""


def _keep_open(*kept: int) -> None:
    """Close every other file, and let nothing be read or printed by mistake."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    first = _ERRORS + 1
    for number in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, number)
        first = number + 1
