"""Start of a program of this package in a process of its own, with a channel to it."""

from __future__ import annotations

import socket
import subprocess
import sys


def start_program(statements: str, *options: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Return the channel to a new process, and the process.

    Args:
        statements: Python, whose ``sys.argv[1]`` is the descriptor of the channel.
        options: of the interpreter, which is isolated in any case.

    Raises:
        OSError: it can't be started.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603 - this program's own interpreter and modules
                [sys.executable, "-I", *options, "-c", statements, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        except OSError:
            ours.close()
            raise
    return ours, process
