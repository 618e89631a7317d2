"""The control socket: its place, its modes, who may ask, and clients that misbehave."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from operator import itemgetter
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from sgagent.agent.control.answers import Answering, answering
from sgagent.agent.control.hits import HitsQuery
from sgagent.agent.control.protocol import (
    LONGEST_QUESTION,
    SOCKET_NAME,
    Refusal,
    Refusals,
    decode_answer,
    encode_question,
)
from sgagent.agent.control.requests import (
    ConfirmAnswer,
    ConfirmCommand,
    ControlAnswer,
    Query,
    ReloadCommand,
    StatusAnswer,
    StatusQuery,
)
from sgagent.agent.control.server import (
    MOST_CLIENTS,
    ControlServer,
    SocketPeer,
    control_served,
    may_ask,
    may_change,
    peer_of,
)
from sgagent.agent.inbox import Inbox, Wanted, always
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.sessions import LiveSessions
from sgagent.analysis.doctor.findings import Diagnosis
from sgagent.core.errors import (
    NOWHERE,
    DocumentError,
    KernelRefusedError,
    Problem,
    Severity,
    SgagentError,
    SourceUnavailableError,
    UsageError,
)
from sgagent.nft.marks import MarkLayout
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.patience import PATIENCE
from tests.unit.agent.machine import Machine
from tests.waiting import wait_until

WAIT_SECONDS = 5.0 * PATIENCE
MORE_THAN_MEMORY = 1 << 46
"""Bytes of a stack with which no thread starts."""

NO_SESSIONS = LiveSessions(MarkLayout(0xFFFF0000), lambda _: [None])
PROBLEM = Problem(severity=Severity.ERROR, code="x", origin=NOWHERE, message="wrong")
AGENT = {"own_uid": 990, "group_id": 991}


@pytest.fixture
def answer(tmp_path: Path) -> Answering:
    """Answer as an agent that has not stepped yet."""
    clock = FakeClock()
    dispatcher = Machine(tmp_path / "state").dispatcher(Inbox(), FakeLog())
    return answering(
        PublishedStatus(clock, lambda _: True),
        clock,
        "file groups.d",
        NO_SESSIONS,
        dispatcher,
        look=Diagnosis,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Name a runtime directory that is not there yet."""
    return tmp_path / "run"


@pytest.fixture
def served(directory: Path, answer: Answering) -> Iterator[Path]:
    """Serve, and give the path of the socket."""
    with closing(ControlServer(directory, answer, longest_order=LONGEST_QUESTION)):
        yield directory / SOCKET_NAME


def connect(path: Path) -> socket.socket:
    """Return a connection."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(WAIT_SECONDS)
    connection.connect(str(path))
    return connection


def read(connection: socket.socket) -> bytes:
    """Return all that comes until the connection ends."""
    parts = []
    while received := connection.recv(65536):
        parts.append(received)
    return b"".join(parts)


def send(path: Path, line: bytes) -> ControlAnswer | Refusals:
    """Send a line and return what it is answered."""
    with connect(path) as connection:
        connection.sendall(line)
        return decode_answer(StatusQuery(), read(connection))


def test_a_question_is_answered(served: Path) -> None:
    """One line asks, one line answers, and the connection ends."""
    found = send(served, encode_question(StatusQuery()))
    assert isinstance(found, StatusAnswer)
    assert found.pid == os.getpid()
    assert found.source == "file groups.d"


def test_a_question_may_come_in_pieces(served: Path) -> None:
    """What counts is the end of the line."""
    with connect(served) as connection:
        for octet in encode_question(StatusQuery()):
            connection.send(bytes([octet]))
        assert isinstance(decode_answer(StatusQuery(), read(connection)), StatusAnswer)


def test_the_place_of_the_socket_lets_its_group_in_and_no_others(served: Path) -> None:
    """Anybody may see that an agent runs; its user and group may connect."""
    assert stat.S_IMODE(served.parent.stat().st_mode) & 0o777 == 0o755
    assert stat.S_ISSOCK(served.stat().st_mode)
    assert stat.S_IMODE(served.stat().st_mode) == 0o660
    assert [path.name for path in served.parent.iterdir()] == [SOCKET_NAME]


@pytest.mark.parametrize("left", ("socket", "file"))
def test_what_a_dead_agent_left_is_replaced(directory: Path, left: str, answer: Answering) -> None:
    """A socket that nobody listens on, or any file in its place, does not keep an agent from its work."""
    directory.mkdir()
    if left == "socket":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
            dead.bind(str(directory / SOCKET_NAME))
    else:
        (directory / SOCKET_NAME).write_text("")
    (directory / "control.new").write_text("of an agent that died while it began")
    with closing(ControlServer(directory, answer)):
        assert isinstance(send(directory / SOCKET_NAME, encode_question(StatusQuery())), StatusAnswer)


def test_a_second_agent_is_refused(served: Path, answer: Answering) -> None:
    """The socket of a live agent is left alone, and the second is told which key to change."""
    with pytest.raises(UsageError, match=r"another agent is running.*state\.runtime_directory"):
        ControlServer(served.parent, answer)
    assert isinstance(send(served, encode_question(StatusQuery())), StatusAnswer)


def test_a_closed_server_leaves_nothing(directory: Path, answer: Answering) -> None:
    """No file, and no thread."""
    ControlServer(directory, answer).close()
    assert list(directory.iterdir()) == []
    assert "control" not in {thread.name for thread in threading.enumerate()}


def test_a_closed_server_leaves_the_socket_of_its_successor(directory: Path, answer: Answering) -> None:
    """An agent that ends late does not take the new one's socket away."""
    first = ControlServer(directory, answer)
    (directory / SOCKET_NAME).unlink()
    with closing(ControlServer(directory, answer)):
        first.close()
        assert isinstance(send(directory / SOCKET_NAME, encode_question(StatusQuery())), StatusAnswer)


def test_what_somebody_removes_is_made_again(tmp_path: Path, answer: Answering) -> None:
    """Else commands would say that no agent runs; what can't be made is logged once, and tried again."""
    directory, target, obstacle = tmp_path / "run", tmp_path / "target", tmp_path / "obstacle"
    target.mkdir()
    directory.symlink_to(target)
    obstacle.touch()
    with capture_logs() as logged, closing(ControlServer(directory, answer, look_seconds=0.01)):
        events = partial(map, itemgetter("event"), logged)
        (directory / SOCKET_NAME).unlink()
        wait_until(lambda: list(events()) == ["control_served_again"], "a line")
        obstacle.replace(directory)
        wait_until(lambda: list(events())[1:] == ["control_not_served"], "a line")
        directory.unlink()
        wait_until(lambda: list(events())[2:] == ["control_served_again"], "a line")
        assert isinstance(send(directory / SOCKET_NAME, encode_question(StatusQuery())), StatusAnswer)
    assert list(directory.iterdir()) == []


def test_a_place_that_can_not_be_had_is_an_error(tmp_path: Path, answer: Answering) -> None:
    """Whoever serves decides what that means."""
    (tmp_path / "run").write_text("not a directory")
    with pytest.raises(OSError, match="run"):
        ControlServer(tmp_path / "run", answer)


def test_an_agent_that_can_not_be_asked_goes_on(tmp_path: Path, answer: Answering) -> None:
    """A host is not left open for the want of a socket; the log says why."""
    (tmp_path / "run").write_text("not a directory")
    with capture_logs() as logged, control_served(tmp_path / "run", answer, structlog.get_logger()):
        assert [entry["event"] for entry in logged] == ["control_not_served"]
    assert str(tmp_path / "run" / SOCKET_NAME) in logged[0]["reason"]


def test_it_is_served_as_long_as_the_context(directory: Path, answer: Answering) -> None:
    """Nothing is logged when all is well."""
    with capture_logs() as logged, control_served(directory, answer, structlog.get_logger()):
        assert isinstance(send(directory / SOCKET_NAME, encode_question(StatusQuery())), StatusAnswer)
    assert logged == []
    assert not (directory / SOCKET_NAME).exists()


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    (
        (b"hello\n", Refusal.MALFORMED, "not a line of JSON"),
        (b"x" * LONGEST_QUESTION, Refusal.MALFORMED, "at most"),
        (encode_question(HitsQuery(interface="eth7")), Refusal.WRONG_USE, "eth7"),
    ),
)
def test_what_cannot_be_answered_is_refused(served: Path, line: bytes, reason: Refusal, message: str) -> None:
    """The client is told why, and the next one is served."""
    found = send(served, line)
    assert isinstance(found, Refusals)
    assert found.reason is reason
    assert message in found.message
    assert isinstance(send(served, encode_question(StatusQuery())), StatusAnswer)


def test_a_question_without_an_end_is_refused(served: Path) -> None:
    """A client that shuts its side in the middle of a line gets a word."""
    with connect(served) as connection:
        connection.sendall(b"{")
        connection.shutdown(socket.SHUT_WR)
        found = decode_answer(StatusQuery(), read(connection))
    assert found == Refusals(reason=Refusal.MALFORMED, message="the query has no end")


def test_a_fault_in_an_answer_is_logged_and_the_server_goes_on(directory: Path, answer: Answering) -> None:
    """The client is told where to look."""
    faults = iter((LookupError("lost"),))

    def fail_once(query: Query, _is_wanted: Wanted = always, /) -> ControlAnswer:
        for fault in faults:
            raise fault
        return answer(query)

    with closing(ControlServer(directory, fail_once)), capture_logs() as logged:
        found = send(directory / SOCKET_NAME, encode_question(StatusQuery()))
        assert isinstance(found, Refusals)
        assert found.reason is Refusal.FAULT
        assert [(entry["event"], entry["client"]) for entry in logged] == [("question_failed", os.getpid())]
        assert isinstance(send(directory / SOCKET_NAME, encode_question(StatusQuery())), StatusAnswer)


def test_too_many_clients_are_turned_away(served: Path) -> None:
    """Clients that say nothing take a few threads and no more, and those that go make room."""
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(served)) for _ in range(MOST_CLIENTS)]
        with connect(served) as surplus:
            assert read(surplus) == b""
        for connection in idle:
            connection.shutdown(socket.SHUT_WR)
            assert b"no end" in read(connection)
    for _ in range(1000):  # a thread ends a moment after its connection
        with connect(served) as connection:
            try:
                connection.sendall(encode_question(StatusQuery()))
                if read(connection):
                    return
            except ConnectionError:
                continue
    pytest.fail("the places of clients that went away were not freed")


def test_orders_of_clients_that_have_gone_lock_nobody_out(directory: Path) -> None:
    """A reload may wait two minutes for its source; its slot is free once its client has gone."""
    arrived, released = threading.Semaphore(0), threading.Event()

    def wait(question: Query, _is_wanted: Wanted = always, /) -> ControlAnswer:
        if isinstance(question, ReloadCommand):
            arrived.release()
            assert released.wait(WAIT_SECONDS)
        return ConfirmAnswer(is_confirmed=False)

    path = directory / SOCKET_NAME
    with closing(ControlServer(directory, wait)):
        for _ in range(2):
            with ExitStack() as stack:
                for _ in range(MOST_CLIENTS):
                    stack.enter_context(connect(path)).sendall(encode_question(ReloadCommand()))
                    assert arrived.acquire(timeout=WAIT_SECONDS)
                with connect(path) as surplus:
                    assert read(surplus) == b""
        with connect(path) as client:
            client.sendall(encode_question(ConfirmCommand()))
            assert b"is_confirmed" in read(client)
        released.set()


def test_a_client_without_a_thread_is_turned_away(served: Path) -> None:
    """As while another user's processes leave none; the server goes on, and has all its places."""
    threading.stack_size(MORE_THAN_MEMORY)
    try:
        for _ in range(MOST_CLIENTS + 1):
            with connect(served) as connection:
                assert read(connection) == b""
    finally:
        threading.stack_size(0)
    assert isinstance(send(served, encode_question(StatusQuery())), StatusAnswer)


def test_a_client_that_never_begins_is_cut_off(directory: Path, answer: Answering) -> None:
    """The first byte has a time of its own, which is shorter."""
    with (
        closing(ControlServer(directory, answer, first_byte_seconds=0.05, longest_seconds=WAIT_SECONDS)),
        connect(directory / SOCKET_NAME) as connection,
    ):
        assert read(connection) == b""


def test_a_client_that_never_ends_is_cut_off(directory: Path, answer: Answering) -> None:
    """A query that arrives drop by drop does not hold a thread."""
    with (
        closing(ControlServer(directory, answer, longest_seconds=0.05)),
        connect(directory / SOCKET_NAME) as connection,
    ):
        connection.sendall(b"{")
        assert read(connection) == b""


@pytest.mark.parametrize(
    ("uid", "group_ids", "is_let_in"),
    (
        (0, {0}, True),
        (990, {990}, True),
        (1000, {1000, 991}, True),
        (1000, {1000}, False),
        (1000, {0}, False),
    ),
)
def test_root_the_agents_user_and_the_sockets_group_may_ask(
    uid: int,
    group_ids: set[int],
    is_let_in: bool,  # noqa: FBT001 - what the table says
) -> None:
    """Nobody else may, whatever the mode of the file says."""
    peer = SocketPeer(pid=1, uid=uid, group_ids=frozenset(group_ids))
    assert may_ask(peer, **AGENT) is is_let_in


@pytest.mark.parametrize(
    ("uid", "may"), ((0, True), (AGENT["own_uid"], True), (1000, False), (AGENT["group_id"], False))
)
def test_root_and_the_agents_user_may_change_something(uid: int, *, may: bool) -> None:
    """Members of the socket's group may not."""
    peer = SocketPeer(pid=1, uid=uid, group_ids=frozenset({AGENT["group_id"]}))
    assert may_change(peer, own_uid=AGENT["own_uid"]) is may


@pytest.mark.parametrize(
    ("error", "refused"),
    (
        (
            DocumentError([PROBLEM]),
            Refusals(reason=Refusal.DOCUMENTS, message="the definitions have errors", problems=(PROBLEM,)),
        ),
        (
            KernelRefusedError("no room", "chain x"),
            Refusals(reason=Refusal.KERNEL, message="chain x: no room"),
        ),
        (SourceUnavailableError("away"), Refusals(reason=Refusal.SOURCE, message="away")),
        (UsageError("no"), Refusals(reason=Refusal.WRONG_USE, message="no")),
        (SgagentError("the agent is busy"), Refusals(reason=Refusal.FAULT, message="the agent is busy")),
    ),
)
def test_what_can_not_be_done_is_told(directory: Path, error: SgagentError, refused: Refusals) -> None:
    """By the reason, as the commands have an exit code for each."""

    def refuse(_question: Query, _is_wanted: Wanted = always, /) -> ControlAnswer:
        raise error

    with closing(ControlServer(directory, refuse)), connect(directory / SOCKET_NAME) as connection:
        connection.sendall(encode_question(ConfirmCommand()))
        assert decode_answer(ConfirmCommand(), read(connection)) == refused


def test_an_order_may_take_longer_than_a_question(directory: Path) -> None:
    """The time of a query is for reading it; then the loop has time of its own."""
    over = threading.Event()

    def last(query: Query, _is_wanted: Wanted = always, /) -> ControlAnswer:
        assert not over.wait(1.2)
        assert isinstance(query, ConfirmCommand)
        return ConfirmAnswer(is_confirmed=False)

    with (
        closing(ControlServer(directory, last, longest_seconds=1.0)),
        connect(directory / SOCKET_NAME) as connection,
    ):
        connection.sendall(encode_question(ConfirmCommand()))
        assert decode_answer(ConfirmCommand(), read(connection)) == ConfirmAnswer(is_confirmed=False)


_CONNECT_WITH_GROUPS = """
import os, socket, sys
os.setgroups(range(5000, 5000 + int(sys.argv[2])))
os.setresgid(4000, 4000, 4000)
os.setresuid(4001, 4001, 4001)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.recv(1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize("count", (0, 1, 2, 255, 256, 257, 1000, os.sysconf("SC_NGROUPS_MAX")))
def test_supplementary_groups_are_seen_however_many(tmp_path: Path, count: int) -> None:
    """``usermod -aG`` gives a supplementary group: a real process with such groups is a member."""
    path = tmp_path / "socket"
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        descriptor = os.open(tmp_path, os.O_PATH)  # the directories above it are not for others to enter
        place = f"/proc/self/fd/{descriptor}/socket"
        command = [sys.executable, "-c", _CONNECT_WITH_GROUPS, place, str(count)]
        with subprocess.Popen(command, pass_fds=[descriptor]) as process:  # noqa: S603 - the command is above
            os.close(descriptor)
            listener.settimeout(WAIT_SECONDS)
            connection = listener.accept()[0]
            with connection:
                peer = peer_of(connection)
        assert process.returncode == 0
    assert (peer.pid, peer.uid) == (process.pid, 4001)
    assert peer.group_ids == {4000, *range(5000, 5000 + count)}


def test_the_kernel_says_who_connected() -> None:
    """Process, user and all groups are those of the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        assert peer_of(ours) == SocketPeer(
            pid=os.getpid(), uid=os.geteuid(), group_ids=frozenset({os.getegid(), *os.getgroups()})
        )


@pytest.mark.parametrize("leave", (socket.socket.close, lambda one: one.shutdown(socket.SHUT_RDWR)))
def test_who_left_is_known_before_an_order(directory: Path, leave: Callable[[socket.socket], None]) -> None:
    """A client that only says that it sends no more still waits for its answer."""
    left, wanted = threading.Event(), list[bool]()

    def hesitate(_question: Query, is_wanted: Wanted = always, /) -> ControlAnswer:
        wanted.append(is_wanted())
        assert left.wait(WAIT_SECONDS)
        wait_until(lambda: wanted[-1] is not is_wanted() or len(wanted) > 2, "the client to go")
        wanted.append(is_wanted())
        raise SgagentError("cancelled")

    with closing(ControlServer(directory, hesitate)), capture_logs() as logged:
        connection = connect(directory / SOCKET_NAME)
        connection.sendall(encode_question(ConfirmCommand()))
        connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: wanted == [True], "the command")
        leave(connection)
        left.set()
        wait_until(lambda: any(line["event"] == "order_withdrawn" for line in logged), "the log")
        connection.close()
    assert wanted == [True, False]
