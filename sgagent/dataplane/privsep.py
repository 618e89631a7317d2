"""Privilege separation: the applier keeps CAP_NET_ADMIN, and the agent continues without it.

Before it reads any input, the process forks the applier, drops its own capabilities, and executes itself
again. The new process image holds the sockets to the applier, and nothing else of the first one.

The applier serves a fixed set of requests of the agent. It reads no document, no configuration and nothing
from the network, and does not trust a request. It changes the table ``inet sgagent``, the agent's bits of
session marks, and sessions at this host's own sockets. It ends when the agent ends, and leaves the table
unchanged.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Self, assert_never

from sgagent.core.errors import SgagentError, UsageError
from sgagent.dataplane import applier_protocol, privileges, request_validation as validation
from sgagent.dataplane.applier_protocol import LONGEST_REQUEST, MalformedMessageError, Reply, Verb
from sgagent.dataplane.conntrack import find_sessions
from sgagent.dataplane.conntrack_entries import EntryListing, Piece, end_entries, restore_entry
from sgagent.dataplane.flow_tables import list_flow_tables
from sgagent.dataplane.generation import APPLIER_NAME, RulesetChange
from sgagent.dataplane.live_sessions import destroy_socket
from sgagent.dataplane.nflog import LAST_GROUP, open_log
from sgagent.dataplane.table import PrivilegedTable, list_in_background
from sgagent.dataplane.table_dump import read_in_background
from sgagent.dataplane.tracked_table import TrackedTable

_ERRORS = 2
"""Standard error: the only descriptor from before the fork, besides the sockets, that stays open."""

_DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Ignored signals: they reach the whole service or terminal, and the agent closes the channel then."""


def be_applier(channel: socket.socket, notices: socket.socket, parent: int, *, owned: bool) -> int:
    """Serve the agent until it closes the channel; return the exit code of this process.

    Args:
        channel: to the agent.
        notices: where the agent hears who changes the ruleset.
        parent: the process id of the agent.
        owned: whether to own the table, as for :class:`sgagent.dataplane.table.PrivilegedTable`.
    """
    for number in _DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    _keep_open(channel.fileno(), notices.fileno())
    try:
        with channel, notices:  # closed before an error is printed, since a slow reader may block the print
            privileges.name_process(APPLIER_NAME)
            privileges.hide_memory()
            privileges.keep_only_net_admin()
            privileges.end_with_parent()
            if os.getppid() != parent:
                return 0
            serve(channel, notices, owned=owned)
    except (MalformedMessageError, SgagentError, OSError) as error:
        os.write(_ERRORS, f"{APPLIER_NAME}: {error}\n".encode("ascii", "backslashreplace"))
        return 1
    return 0


def serve(channel: socket.socket, notices: socket.socket, *, owned: bool) -> None:
    """Answer requests, and pass on who else changes the ruleset, until the other side is gone.

    Raises:
        MalformedMessageError: what arrived is not even a message.
        OSError: an answer could not be sent.
    """
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    with contextlib.closing(_RequestHandler(notices, owned=owned)) as handler:
        while True:
            if channel.fileno() in {number for number, _ in poll.poll()}:
                request = applier_protocol.receive(channel, LONGEST_REQUEST)
                if request is None:
                    return
                applier_protocol.send(channel, *handler.answer(*request))
                if len(request[1]) >= applier_protocol.LARGE_BYTES:
                    request = None  # it is among what can be given back
                    handler.forget()
                    gc.collect()  # only this empties Python's lists of free objects, which hold whole pages
                    privileges.give_back()
                handler.send_opened(channel)
            if handler.followed is not None:
                poll.register(handler.followed.events, select.POLLIN)
                handler.followed.read_changes()


class _RequestHandler:
    """Carry out the agent's requests."""

    def __init__(self, notices: socket.socket, *, owned: bool) -> None:
        self._notices = notices
        self._owned = owned
        self._mask = 0
        self._log_group: int | None = None
        self._entries: EntryListing | None = None
        """The listing of entries that was begun."""

        self._given: socket.socket | None = None
        """What the agent gets behind the answer."""

        self._readers: dict[Verb, int] = {}
        """The processes that list or read for the agent, by what asked for them; gone at the next request."""

        self.followed: TrackedTable | None = None
        """From the beginning on."""

    def close(self) -> None:
        """Release the table unchanged."""
        self._close_entries()
        if self.followed is not None:
            self.followed.close()

    def forget(self) -> None:
        """Keep nothing in memory of earlier requests."""
        if self.followed is not None:
            self.followed.table.forget()

    def send_opened(self, channel: socket.socket) -> None:
        """Send the socket that was just opened, if any, to the agent, and close our copy."""
        if self._given is not None:
            with self._given:
                applier_protocol.send_socket(channel, self._given)
            self._given = None

    def _pass_on(self, change: RulesetChange) -> None:
        """Notify the agent of a change that another process made.

        A notice that finds the queue full is dropped: the agent has unread notices and will read the table.
        If the agent has ended, the next read of the channel shows it.
        """
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._notices.send(applier_protocol.encode(change), socket.MSG_DONTWAIT)

    def answer(self, kind: int, content: bytes) -> tuple[Reply, bytes]:
        """Return the answer to a request."""
        self._readers = {
            verb: pid for verb, pid in self._readers.items() if os.waitpid(pid, os.WNOHANG) == (0, 0)
        }
        try:
            return Reply.DONE, self._do(applier_protocol.verb(kind), applier_protocol.decode(content))
        except (SgagentError, OSError, MalformedMessageError) as refusal:
            return Reply.REFUSED, applier_protocol.encode_refusal(refusal)

    def _do(self, verb: Verb, values: tuple[Any, ...]) -> bytes:
        if self.followed is not None:
            return self._do_with(self.followed, verb, values)
        if verb is not Verb.BEGIN:
            raise MalformedMessageError("before the beginning")
        self._mask = validation.check_number(values)  # said once, before the agent has read any document
        self.followed = TrackedTable(PrivilegedTable(owned=self._owned), self._pass_on)
        return b""

    def _do_with(self, followed: TrackedTable, verb: Verb, values: tuple[Any, ...]) -> bytes:
        table, encode = followed.table, applier_protocol.encode
        match verb:
            case Verb.READ_GENERATION | Verb.READ_NUMBER | Verb.TAKE_UP | Verb.LIST_TABLE:
                return _look(followed, verb, values)
            case Verb.LIST_COUNTERS:
                return table.list_counters()
            case Verb.APPLY:
                plan = validation.check_plan(values, self._mask, self._log_group)
                return encode(followed.apply(plan))
            case Verb.CLEAR_MARKS:
                return encode(table.clear_marks(*validation.check_marks(values, self._mask)))
            case Verb.REFUSE_ANOTHER_OWNER:
                table.refuse_another_owner()
            case Verb.ALLOW_LOG:
                return encode(self._allow_log(table, validation.check_number(values, LAST_GROUP)))
            case Verb.CAN_ASK_FOR_GROUPS:
                return encode(table.can_ask_for_groups())
            case Verb.OPEN_LOG:
                if self._log_group is None:
                    raise MalformedMessageError("no group of the log was named")
                self._given = open_log(self._log_group)
            case Verb.OPEN_LISTING:
                self._given = self._opened(verb, list_in_background)
            case Verb.OPEN_RULESET:
                self._given = self._opened(verb, read_in_background)
            case Verb.BEGIN:
                raise MalformedMessageError("a second beginning")
            case Verb.FIND_SESSIONS | Verb.END_SESSION | Verb.RESTORE_ENTRY | Verb.LIST_FLOW_TABLES:
                return self._do_with_sessions(verb, values)
            case Verb.BEGIN_ENTRIES | Verb.NEXT_ENTRIES | Verb.END_ENTRIES:
                return self._do_with_sessions(verb, values)
            case _:
                assert_never(verb)
        return b""

    def _do_with_sessions(
        self,
        verb: Literal[
            Verb.FIND_SESSIONS,
            Verb.END_SESSION,
            Verb.BEGIN_ENTRIES,
            Verb.NEXT_ENTRIES,
            Verb.END_ENTRIES,
            Verb.RESTORE_ENTRY,
            Verb.LIST_FLOW_TABLES,
        ],
        values: tuple[Any, ...],
    ) -> bytes:
        encode = applier_protocol.encode
        match verb:
            case Verb.FIND_SESSIONS:
                return encode(*find_sessions(validation.check_packets(values)))
            case Verb.END_SESSION:
                return encode(destroy_socket(*validation.check_socket(values)))
            case Verb.BEGIN_ENTRIES:
                self._close_entries()
                all_protocols, tests = validation.check_listing(values)
                self._entries = EntryListing(tests, all_protocols=all_protocols)
                return b""
            case Verb.NEXT_ENTRIES:
                return encode(*self._next_entries())
            case Verb.END_ENTRIES:
                return encode(end_entries(validation.check_entries(values), self._mask))
            case Verb.RESTORE_ENTRY:
                return encode(restore_entry(*validation.check_restored(values)))
            case Verb.LIST_FLOW_TABLES:
                return encode(*list_flow_tables())

    def _next_entries(self) -> Piece:
        if self._entries is None:
            raise MalformedMessageError("no entries are being listed")
        piece = self._entries.next_piece()
        if piece.is_last:
            self._entries = None
        return piece

    def _close_entries(self) -> None:
        if self._entries is not None:
            self._entries.close()
            self._entries = None

    def _allow_log(self, table: PrivilegedTable, group: int) -> bool:
        """Let plans log to a group, once, if the kernel can do that."""
        if self._log_group is not None:
            raise MalformedMessageError("a second group of the log")
        is_possible = table.allow_log(group)
        if is_possible:
            self._log_group = group
        return is_possible

    def _opened(self, verb: Verb, read: Callable[[socket.socket], int]) -> socket.socket:
        """Have another process read, so that no change waits for that; one at a time for each verb."""
        before = self._readers.pop(verb, None)  # its number may be another process's once it is waited for
        if before is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(before, signal.SIGKILL)
            os.waitpid(before, 0)
        reading, writing = socket.socketpair()
        with writing:
            self._readers[verb] = read(writing)
        return reading


def _look(
    followed: TrackedTable,
    verb: Literal[Verb.READ_GENERATION, Verb.READ_NUMBER, Verb.TAKE_UP, Verb.LIST_TABLE],
    values: tuple[Any, ...],
) -> bytes:
    """Return the kernel's answer about the table, or about the ruleset that it belongs to."""
    match verb:
        case Verb.READ_GENERATION:
            return applier_protocol.encode(followed.read_generation())
        case Verb.READ_NUMBER:
            return applier_protocol.encode(followed.ruleset_number())
        case Verb.TAKE_UP:
            number = validation.check_ruleset_number(values)
            return applier_protocol.encode(followed.take_up(number))
        case Verb.LIST_TABLE:
            return applier_protocol.encode_listing(followed.list_table())


def _keep_open(*kept: int) -> None:
    """Close every other file, and let nothing be read or printed by mistake."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    first = _ERRORS + 1
    for number in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, number)
        first = number + 1


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
    notices: socket.socket
    """Carries one message for each change of the ruleset by another process; closed when the applier ends."""

    def __enter__(self) -> Self:
        """Return the applier."""
        return self

    def end_in_words(self) -> str | None:
        """Return how the process ended, like ``was killed by signal 9 (Killed)``; None if it runs on."""
        if not privileges.ends_within(self.pid, _LONGEST_END_SECONDS):
            return None
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert found is not None  # noqa: S101 - it has ended; for the type checker
        if found.si_code == os.CLD_EXITED:
            return f"ended with exit code {found.si_status}"
        return f"was killed by signal {found.si_status} ({signal.strsignal(found.si_status)})"

    def __exit__(self, *_: object) -> None:
        """Close the channel, and wait until the applier has ended; one that does not is killed."""
        self.channel.close()
        self.notices.close()
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            if not privileges.ends_within(self.pid, _LONGEST_END_SECONDS):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def fork_applier(*, owned: bool) -> Applier:
    """Fork the applier, with all privileges that this process has.

    Args:
        owned: whether the applier declares the table as its own.
    """
    channel, its_channel = socket.socketpair()
    notices, its_notices = socket.socketpair(type=socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = be_applier(its_channel, its_notices, parent, owned=owned)
        except Exception:  # noqa: BLE001 - the outermost frame of this process
            os.write(2, traceback.format_exc().encode("ascii", "backslashreplace"))
        finally:
            os._exit(code)
    its_channel.close()
    its_notices.close()
    return Applier(pid, channel, notices)


def go_on_without_privilege(applier: Applier) -> NoReturn:
    """Give every capability up and execute this program again with the same arguments."""
    drop_privilege(applier, os.environ)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - itself, as it was started


def drop_privilege(applier: Applier, environment: MutableMapping[str, str]) -> None:
    """Give every capability up, and leave the applier to the program that this process executes next.

    Args:
        applier: that this process forked.
        environment: of the process; :func:`applier_of_first_life` finds the applier there.
    """
    privileges.give_up_all()
    numbers = applier.channel.fileno(), applier.notices.fileno()
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
    privileges.refuse_privilege()
    try:
        pid, *numbers = map(int, value.split())
        channel, notices = (socket.socket(fileno=number) for number in numbers)
    except (OSError, ValueError) as error:
        raise UsageError(f"{_VARIABLE} is for the agent itself, and must not be set: {error}") from error
    for inherited in (channel, notices):
        inherited.set_inheritable(False)
    return Applier(pid, channel, notices)


@contextlib.contextmanager
def watching_notices(
    notices: socket.socket, changed: Callable[[RulesetChange], None], ended: Callable[[], None]
) -> Iterator[None]:
    """Call back from a thread of its own, until the context is left.

    Args:
        notices: from the applier.
        changed: called for each change by another process.
        ended: called once, when the applier has ended.
    """
    thread = threading.Thread(target=_receive, args=(notices, changed, ended), name="notices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            notices.shutdown(socket.SHUT_RDWR)
        thread.join()


def _receive(
    notices: socket.socket, changed: Callable[[RulesetChange], None], ended: Callable[[], None]
) -> None:
    with contextlib.suppress(OSError):
        while content := notices.recv(_CHANGE_BYTES):
            changed(*applier_protocol.decode(content))
    ended()
