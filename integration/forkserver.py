"""Start sgagent as a fork of a process that has imported it already.

Python's own start and the imports take most of the processor time of a command or a daemon: 0.9 s of a
daemon's start. A fork has done them. All else is the program's own: arguments, standard files, the network
namespace, privilege separation, exit code.

What a fork cannot show is the program file, the environment and the ``execve`` between the two stages of the
daemon. Whatever is about those starts the program itself: :attr:`integration.service.Service.is_forked`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import cast

from integration.namespaces import Namespace, set_network_namespace

_ROOT = Path(__file__).parent.parent
_OWN_NETWORK = Path("/proc/thread-self/ns/net")
_LONGEST_REQUEST = 1 << 16
_DESCRIPTORS = 5
"""The namespace, standard input, output and error, and the socket that hears of the end."""

_BEYOND_ALL = 1 << 20
"""No descriptor has this number."""

_LEFT_OUT = ("sgagent.__main__", "sgagent.sources.aliyun")
"""What would run, and what imports the cloud's SDK."""

_CONFIGURATION = (
    '[source]\npath = "groups.d"\n[state]\ndirectory = "state"\n[enforcement]\nmode = "observe"\n'
)
_DOCUMENT = b"""version: 1
security_groups:
  - security_group_id: sg-1
    type: basic
    rules: [{direction: ingress, policy: accept, protocol: all, authorization_object: 192.0.2.0/24}]
network_interfaces: [{network_interface_id: eni-1, addresses: [192.0.2.1], security_group_ids: [sg-1]}]
"""

_ABSENT = cast("ModuleType", None)


@dataclass(slots=True)
class ForkedProgram:
    """A program that runs, with the methods of :class:`subprocess.Popen` that tests use."""

    pid: int
    returncode: int | None
    _ended: socket.socket = field(repr=False)
    """The server writes the exit status there."""

    def poll(self) -> int | None:
        """Return the exit status if the program has ended; it is negative for a signal."""
        with contextlib.suppress(TimeoutError):
            self._receive(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit status of the program once it has ended.

        Raises:
            subprocess.TimeoutExpired: it did not within the time.
        """
        try:
            return self._receive(timeout)
        except TimeoutError:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout) from None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended between the two
                os.kill(self.pid, number)

    def _receive(self, seconds: float) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._ended, selectors.EVENT_READ)
                if not selector.select(seconds):
                    raise TimeoutError
            self.returncode = _receive_number(self._ended)
            self._ended.close()
        return self.returncode


def start(
    arguments: Sequence[str],
    namespace: Namespace | None,
    *,
    output: int,
    errors: int,
    directory: Path | None = None,
    environment: dict[str, str] | None = None,
    user: int | None = None,
) -> ForkedProgram:
    """Start the program, as ``sgagent`` with the arguments.

    Args:
        arguments: of the program.
        namespace: the network namespace that it runs in; None for the test's own.
        output: the descriptor of its standard output.
        errors: that of its standard error.
        directory: in which it is run; None for the test's own.
        environment: what is added to the test's own.
        user: who runs it, alone in the group of the same number; None for the test's own.
    """
    request = {
        "arguments": list(arguments),
        "directory": str(directory or Path.cwd()),
        "environment": dict(os.environ) | (environment or {}),
        "user": user,
    }
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with (
        theirs,
        (namespace.path if namespace else _OWN_NETWORK).open() as target,
        Path(os.devnull).open() as nothing,
    ):
        descriptors = [target.fileno(), nothing.fileno(), output, errors, theirs.fileno()]
        socket.send_fds(_server(), [json.dumps(request).encode()], descriptors)
    return ForkedProgram(_receive_number(ours), None, ours)


def run(
    arguments: Sequence[str],
    namespace: Namespace | None = None,
    *,
    seconds: float,
    directory: Path | None = None,
    user: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end, and return its exit code and output.

    Raises:
        subprocess.TimeoutExpired: it did not end in time; it is killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        program = start(
            arguments,
            namespace,
            output=output.fileno(),
            errors=errors.fileno(),
            directory=directory,
            user=user,
        )
        try:
            status = program.wait(seconds)
        except BaseException:
            program.send_signal(signal.SIGKILL)
            raise
        written = []
        for file in (output, errors):
            file.seek(0)
            written.append(file.read().decode())
    return subprocess.CompletedProcess(tuple(arguments), status, *written)


def _receive_number(ended: socket.socket) -> int:
    content = ended.recv(64)
    if not content:
        raise RuntimeError("the fork server has ended")
    return int(content)


@functools.cache
def _server() -> socket.socket:
    """Start the server; return the socket for requests.

    It ends with this process, and so do the programs that it has started.
    """
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            (sys.executable, "-m", "integration.forkserver", str(theirs.fileno())),
            env=dict(os.environ) | {"PYTHONPATH": str(_ROOT)},
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )
    atexit.register(_end, ours, process)
    return ours


def _end(requests: socket.socket, process: subprocess.Popen[bytes]) -> None:
    requests.close()
    process.wait()


def main(number: int) -> int:
    """Serve the requests of the socket with a number; in a fork, be the program."""
    _import_program()
    with socket.socket(fileno=number) as requests:
        requests.set_inheritable(False)
        asked = _serve(requests)
    if asked is None:
        return 0
    codes = [1]
    atexit.register(_leave, codes)  # before all that the program registers, so that it is called last
    codes[0] = _be_program(asked)
    return codes[0]


def _leave(codes: Sequence[int]) -> None:
    """End without destroying imported modules, which a fork would have to copy for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(codes[0])


def _import_program() -> None:
    """Import modules that commands may need and let no fork look through them for garbage."""
    sys.modules.setdefault("rich", _ABSENT)  # as the daemon does
    for module in pkgutil.walk_packages([str(_ROOT / "sgagent")], "sgagent."):
        if not module.name.startswith(_LEFT_OUT):
            import_module(module.name)
    _use_once()
    if threading.active_count() != 1:
        raise RuntimeError("a fork would have lost threads")
    gc.collect()
    gc.freeze()


def _use_once() -> None:
    """Have the models of documents be made, and pyroute2 and the YAML reader be imported."""
    from sgagent.documents import DocumentFile, Limits, parse_documents  # noqa: PLC0415 - as the program's main
    from sgagent.host.links import NetlinkHost  # noqa: PLC0415 - likewise
    from sgagent.settings import parse_settings  # noqa: PLC0415 - likewise

    parse_settings(_CONFIGURATION, "sgagent.toml")
    parse_documents([DocumentFile("policy.yaml", _DOCUMENT)], Limits())
    NetlinkHost().facts()


@dataclass(frozen=True, slots=True)
class _Asked:
    """The program that a fork should become."""

    arguments: list[str]
    directory: str
    environment: dict[str, str]
    user: int | None
    descriptors: list[int]


def _serve(requests: socket.socket) -> _Asked | None:
    """Fork for each request; return it in the fork, and None once nobody is there to ask."""
    running: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    selector.unregister(key.fd)
                    _report_end(key.fd, *running.pop(key.fd))
                    continue
                content, received, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, _DESCRIPTORS)
                if not content:
                    _kill(running)
                    return None
                asked = _Asked(**json.loads(content), descriptors=received)
                pid = os.fork()
                if pid == 0:
                    return asked
                *theirs, ended = received
                for descriptor in theirs:
                    os.close(descriptor)
                pidfd = os.pidfd_open(pid)
                running[pidfd] = pid, socket.socket(fileno=ended)
                running[pidfd][1].send(str(pid).encode())
                selector.register(pidfd, selectors.EVENT_READ)


def _report_end(pidfd: int, pid: int, ended: socket.socket) -> None:
    os.close(pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with ended, contextlib.suppress(BrokenPipeError):  # who asked may have lost interest
        ended.send(str(status).encode())


def _kill(running: dict[int, tuple[int, socket.socket]]) -> None:
    for pid, _ in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _be_program(asked: _Asked) -> int:
    """Be the program: ``sgagent run`` in its second stage, with an applier, any other from its beginning."""
    from sgagent.cli.main import main as sgagent  # noqa: PLC0415 - only the fork needs it
    from sgagent.dataplane.privsep import drop_privilege, fork_applier  # noqa: PLC0415 - likewise

    namespace, *standard = asked.descriptors[:4]
    set_network_namespace(namespace)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    os.closerange(3, _BEYOND_ALL)
    os.chdir(asked.directory)
    if asked.user is not None:
        os.setgroups([])
        os.setgid(asked.user)
        os.setuid(asked.user)
    os.environ.clear()
    os.environ.update(asked.environment)
    sys.argv = ["sgagent", *asked.arguments]
    if "run" in asked.arguments:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as the first stage does
        applier = fork_applier(owned=True)
        drop_privilege(applier, os.environ)
        applier.channel.detach()
        applier.notices.detach()
    return sgagent()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
