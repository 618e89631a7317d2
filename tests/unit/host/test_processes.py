"""Sockets are found by the processes that hold them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from sgagent.host.processes import own_sockets, sockets_of_callers, sockets_of_ssh_servers

CHILD = "from sgagent.host.processes import sockets_of_callers; print(*sockets_of_callers())"


def inode(opened: socket.socket) -> int:
    """Return what the kernel numbers a socket with."""
    return os.fstat(opened.fileno()).st_ino


def test_our_own_sockets() -> None:
    """While they are open."""
    with socket.socket() as opened:
        number = inode(opened)
        assert number in own_sockets()
    assert number not in own_sockets()


def test_the_sockets_of_callers() -> None:
    """A command sees those of the process that called it, through a shell between them; not its own."""
    with socket.socket() as opened:
        command = [sys.executable, "-c", CHILD]
        done = subprocess.run(  # noqa: S603 - this very interpreter
            ["/bin/sh", "-c", '"$@"; true', "sh", *command], capture_output=True, text=True, check=True
        )
        assert str(inode(opened)) in done.stdout.split()
        assert inode(opened) not in sockets_of_callers()


def test_the_sockets_of_ssh_servers(tmp_path: Path) -> None:
    """They are told by the name of the process that holds them."""
    server = tmp_path / "sshd"
    server.write_text("#!/bin/sh\necho ready\nread stop\n")
    server.chmod(0o755)
    with socket.socket() as opened:
        assert inode(opened) not in sockets_of_ssh_servers()
        with subprocess.Popen(  # noqa: S603 - what was just written
            [server], pass_fds=[opened.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert inode(opened) in sockets_of_ssh_servers()
