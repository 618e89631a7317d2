"""Sockets are found by the processes that hold them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from sgagent.host.processes import own_sockets, sockets_of_agents, sockets_of_logins, sockets_of_ssh_servers

CHILD = "from sgagent.host.processes import sockets_of_logins; print(*sockets_of_logins())"


def inode(opened: socket.socket) -> int:
    """Return what the kernel numbers a socket with."""
    return os.fstat(opened.fileno()).st_ino


def test_our_own_sockets() -> None:
    """While they are open."""
    with socket.socket() as opened:
        number = inode(opened)
        assert number in own_sockets()
    assert number not in own_sockets()


def seen_by_a_command() -> list[str]:
    """Return the sockets that a command sees which this process calls, through a shell."""
    command = ["/bin/sh", "-c", '"$@"; true', "sh", sys.executable, "-c", CHILD]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own words
    return done.stdout.split()


def test_the_sockets_of_logins() -> None:
    """A command sees those of a caller that shows a terminal to somebody, not of whatever else called it."""
    with socket.socket() as opened:
        before = seen_by_a_command()
        far, near = os.openpty()
        try:
            seen = seen_by_a_command()
        finally:
            os.close(far)
            os.close(near)
        assert str(inode(opened)) not in before
        assert str(inode(opened)) in seen
        assert inode(opened) not in sockets_of_logins()


def test_the_sockets_of_agents(tmp_path: Path) -> None:
    """They are those of the process that has an applier for a child, not the applier's."""
    applier = tmp_path / "sgagent-applier"
    applier.write_text("#!/bin/sh\necho ready\nread stop\n")
    applier.chmod(0o755)
    near, far = socket.socketpair()
    with near, far:
        assert inode(near) not in sockets_of_agents()
        with subprocess.Popen(  # noqa: S603 - what was just written
            [applier], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert inode(near) in sockets_of_agents()
            process.communicate()


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
