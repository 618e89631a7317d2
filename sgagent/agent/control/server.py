"""The control server on a Unix socket: one line for a query or command, one line for the answer.

Queries never block the loop. Each of a few connections has a thread and a deadline, and queries are answered
from the published status. The loop carries out commands.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from sgagent.agent.connections import Connection, ConnectionServer
from sgagent.agent.control.answers import Answering
from sgagent.agent.control.protocol import (
    LONGEST_ORDER,
    LONGEST_QUESTION,
    SOCKET_NAME,
    MalformedRequestError,
    Refusal,
    Refusals,
    decode_question,
    encode_answer,
)
from sgagent.agent.control.requests import ControlCommand
from sgagent.agent.step import EventLog, FaultLog
from sgagent.core.errors import SgagentError, UsageError

_CREDENTIALS = struct.Struct("=iII")
_SO_PEERGROUPS = 59
"""Of Linux on most machines; the socket module has no name for it."""

_ROOT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketPeer:
    """The process that connected, as the kernel vouches for it."""

    pid: int
    uid: int
    group_ids: frozenset[int]
    """Its own group and the supplementary ones."""


def peer_of(connection: socket.socket) -> SocketPeer:
    """Return who connected."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    return SocketPeer(pid=pid, uid=uid, group_ids=frozenset({gid, *_supplementary_groups(connection)}))


def may_ask(peer: SocketPeer, *, own_uid: int, group_id: int) -> bool:
    """Return whether a peer may ask: root, the agent's own user, and members of the socket's group."""
    return peer.uid in (_ROOT, own_uid) or group_id in peer.group_ids


def may_change(peer: SocketPeer, *, own_uid: int) -> bool:
    """Return whether a peer may change anything: root and the agent's own user."""
    return peer.uid in (_ROOT, own_uid)


def _supplementary_groups(connection: socket.socket) -> Sequence[int]:
    """Return the peer's supplementary groups; none where the kernel can't list them, as before Linux 4.13.

    ``socket.getsockopt`` takes buffers of at most 1,024 bytes: 256 groups of 65,536 possible ones.
    """
    import ctypes  # noqa: PLC0415 - commands that only need the socket's name would load it too

    library = ctypes.CDLL(None)
    size = ctypes.c_uint(0)

    def read(buffer: ctypes.Array[ctypes.c_uint32] | None) -> bool:
        arguments = (connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size))
        return bool(library.getsockopt(*arguments) == 0)

    if read(None):
        return ()
    groups = (ctypes.c_uint32 * (size.value // 4))()  # the kernel refused, and said how much room it needs
    return tuple(groups) if read(groups) else ()


MOST_CLIENTS = 8
"""Connections of root and the agent's user that are served at the same time, and as many of members of the
socket's group. The next ones are closed at once. So a member can't keep root out. Nor can root's orders whose
clients have gone, though the agent may be at them for minutes: their slots go to who comes next."""

FIRST_BYTE_SECONDS = 2.0
"""From accepting a connection to the first byte of a query."""

LONGEST_SECONDS = 10.0
"""For a client to send its query, and as long again for it to take the answer."""

LOOK_SECONDS = 5.0
"""Between looks of an idle server whether its socket is still there."""

_DRAFT_NAME = "control.new"
_BACKLOG = 128
_DIRECTORY_MODE = 0o755
_SOCKET_MODE = 0o660


@contextlib.contextmanager
def control_served(directory: Path, answer: Answering, log: EventLog) -> Iterator[None]:
    """Serve the control socket until the context is left.

    An agent that can't be asked enforces all the same, and says so.

    Raises:
        UsageError: another agent serves this socket.
    """
    fault = None
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(contextlib.closing(ControlServer(directory, answer)))
        except OSError as error:
            fault = f"{directory / SOCKET_NAME}: {error.strerror or error}"
        if fault:
            log.error("control_not_served", reason=fault)
        yield


@dataclass(slots=True, eq=False, kw_only=True)
class _Client(Connection):
    """A client, and the semaphore of its slot."""

    peer: SocketPeer
    slots: threading.BoundedSemaphore
    has_slot: bool = True


class ControlServer(ConnectionServer[_Client]):
    """Serve the control socket of a runtime directory."""

    def __init__(
        self,
        directory: Path,
        answer: Answering,
        *,
        first_byte_seconds: float = FIRST_BYTE_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
        longest_order: int = LONGEST_ORDER,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Take the socket's place and start to serve.

        A file that a dead agent left is replaced. A socket that somebody removes is made again.

        Args:
            directory: made if it is missing.
            answer: called from several threads.
            first_byte_seconds: after which a client that has said nothing is cut off.
            longest_seconds: after which a client is cut off that sends its query, or takes the answer.
            longest_order: bytes of a line from those who may change something.
            look_seconds: until an idle server looks whether its socket is there.

        Raises:
            UsageError: another agent serves this socket.
            OSError: the socket can't be made.
        """
        self._directory = directory
        self._path = directory / SOCKET_NAME
        self._answer = answer
        self._first_byte_seconds = first_byte_seconds
        self._longest_seconds = longest_seconds
        self._longest_order = longest_order
        self._slots = {is_trusted: threading.BoundedSemaphore(MOST_CLIENTS) for is_trusted in (True, False)}
        self._fault_log = FaultLog(_LOG.error)
        listener, self._identity = self._make_socket()
        super().__init__(listener, name="control", idle_seconds=look_seconds)

    def close(self) -> None:
        """Stop to serve, without waiting for clients, and remove the socket if it is still this one."""
        super().close()
        with contextlib.suppress(OSError):
            if self._is_in_place():
                self._path.unlink()

    def _make_socket(self) -> tuple[socket.socket, tuple[int, int]]:
        """Return a socket that listens, and device and inode of its file.

        Raises:
            UsageError: another agent serves this socket.
            OSError: the socket can't be made.
        """
        listener = _listen(self._directory)
        made = self._path.stat()
        return listener, (made.st_dev, made.st_ino)

    def _is_in_place(self) -> bool:
        """Return whether the file is that of this server.

        Raises:
            OSError: it is gone, or can't be looked at.
        """
        found = self._path.stat()
        return (found.st_dev, found.st_ino) == self._identity

    def on_idle(self) -> None:
        """Make the socket again if somebody removed it."""
        with contextlib.suppress(OSError):
            if self._is_in_place():
                return
        before = self._listener
        try:
            self._listener, self._identity = self._make_socket()
        except (OSError, UsageError) as error:
            self._fault_log.log("control_not_served", f"the socket was removed: {error}")
        else:
            before.close()
            self._fault_log.log("control_not_served", None)
            _LOG.warning("control_served_again", reason="the socket was removed")

    def admit(self, accepted: socket.socket, address: object) -> _Client | None:
        """Return the connection of who may ask, unless there are too many."""
        del address
        peer, own_uid = peer_of(accepted), os.geteuid()
        if not may_ask(peer, own_uid=own_uid, group_id=self._path.stat().st_gid):
            accepted.send(_NOT_PERMITTED, socket.MSG_DONTWAIT)
            return None
        is_trusted = may_change(peer, own_uid=own_uid)
        slots = self._slots[is_trusted]
        if not slots.acquire(blocking=False) and not (is_trusted and self._take_over_slot(slots)):
            return None
        ends_at = time.monotonic() + min(self._first_byte_seconds, self._longest_seconds)
        return _Client(socket=accepted, ends_at=ends_at, peer=peer, slots=slots)

    def _take_over_slot(self, slots: threading.BoundedSemaphore) -> bool:
        """Take over the slot of a client that has gone; return False where there is none."""
        with self._lock:
            for one in self._connections.values():
                if one.slots is slots and one.has_slot and not _is_there(one.socket):
                    one.has_slot = False
                    return True
        return False

    def leave(self, connection: _Client) -> None:
        """Free its slot, unless another client has it."""
        if connection.has_slot:
            connection.slots.release()

    def serve(self, connection: _Client) -> None:
        """Answer one query, or go without a word when the client does."""
        reply = self._reply(connection)
        connection.socket.settimeout(self._longest_seconds)
        connection.socket.sendall(reply)

    def _reply(self, client: _Client) -> bytes:
        """Return the answer to a client's query or command, if the client may send it."""
        connection, peer = client.socket, client.peer
        is_trusted = may_change(peer, own_uid=os.geteuid())
        try:
            limit = self._longest_order if is_trusted else LONGEST_QUESTION
            query = decode_question(self._read_line(client, limit))
            if isinstance(query, ControlCommand) and not is_trusted:
                return _refuse(Refusal.NOT_PERMITTED, "only root and the agent's user may change anything")
            return encode_answer(self._answer(query, lambda: _is_there(connection)))
        except MalformedRequestError as error:
            return _refuse(Refusal.MALFORMED, str(error))
        except SgagentError as error:
            if not _is_there(connection):
                _LOG.warning("order_withdrawn", client=peer.pid, reason="its client has gone")
            return encode_answer(Refusals.of(error))
        except OSError:
            raise
        except Exception as fault:  # noqa: BLE001 - the outermost frame of a thread: the agent goes on, the log says why
            _LOG.error("question_failed", client=peer.pid, exc_info=fault)
            return _refuse(Refusal.FAULT, "the agent failed to answer; its log says why")

    def _read_line(self, client: _Client, limit: int) -> bytes:
        """Return the bytes that a client sent up to the end of its line.

        Raises:
            MalformedRequestError: the line is too long, or never ended, or not in time.
        """
        last = time.monotonic() + self._longest_seconds
        line = bytearray(client.socket.recv(1))
        client.ends_at = last
        while line and not line.endswith(b"\n"):
            if len(line) >= limit:
                raise MalformedRequestError(f"a line has at most {limit} bytes")
            received = client.socket.recv(min(limit - len(line), _CHUNK))
            if not received:
                break
            line += received
        if not line.endswith(b"\n"):
            raise MalformedRequestError("the query has no end")
        client.ends_at = math.inf
        return bytes(line)


def _is_there(connection: socket.socket) -> bool:
    """Return whether a client has not closed its connection; one that only sends no more is there."""
    try:
        poll = select.poll()
        poll.register(connection, 0)  # a hang-up is always reported
        return not poll.poll(0)
    except (OSError, ValueError):  # it was closed on this side
        return False


def _refuse(reason: Refusal, message: str) -> bytes:
    return encode_answer(Refusals(reason=reason, message=message))


_NOT_PERMITTED = _refuse(Refusal.NOT_PERMITTED, "only root, the agent's user and the socket's group may ask")


def _listen(directory: Path) -> socket.socket:
    """Return a socket that listens at its path in the directory.

    The socket is created under a temporary name, gets its mode, and is then renamed. So clients never see it
    with another mode or before it listens.

    Raises:
        UsageError: another agent listens there.
        OSError: the socket can't be created.
    """
    directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    path, draft = directory / SOCKET_NAME, directory / _DRAFT_NAME
    if _is_served(path):
        raise UsageError(f"{path}: another agent is running; give this one its own state.runtime_directory")
    draft.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(draft))
        draft.chmod(_SOCKET_MODE)
        listener.listen(_BACKLOG)
        draft.rename(path)
    except OSError:
        listener.close()
        raise
    return listener


def _is_served(path: Path) -> bool:
    """Return whether somebody listens on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except TimeoutError:
            return True
    return True


_CHUNK = 1 << 20
_LOG = structlog.get_logger(__name__)
