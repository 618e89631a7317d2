"""A file system of FUSE that hangs when a test says so: no call that touches it returns until it goes on.

The kernel's protocol is that of ``linux/fuse.h``. There is one directory with regular files; all that a
reader of documents asks for is answered, and anything else is refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_DETACH = 2

_IN = struct.Struct("<IIQQIIII")
"""Length, operation, number, node, user, group, process, and padding."""

_OUT = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_ROOT = 1
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_INIT, _OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = 26, 27, 28, 29, 36, 42
_UNANSWERED = (_FORGET, _INTERRUPT, _BATCH_FORGET)


@dataclass(eq=False)
class HangingFiles:
    """The files, and whether their server answers."""

    mount_point: Path
    files: dict[str, bytes] = field(default_factory=dict)
    is_hung: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _is_over: bool = False
    _times: dict[str, int] = field(default_factory=dict)

    def write(self, name: str, text: str) -> None:
        """Replace a file; nobody is told, as by a server of NFS."""
        self.files[name] = text.encode()
        self._times[name] = self._times.get(name, 0) + 1

    def hang(self) -> None:
        """Answer nothing from now on."""
        self.is_hung = True

    def go_on(self) -> None:
        """Answer the pending requests, and all others."""
        with self._changed:
            self.is_hung = False
            self._changed.notify_all()

    def close(self) -> None:
        """Unmount, and end whoever waits with an error."""
        _LIBC.umount2(os.fsencode(self.mount_point), _DETACH)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def serve(self, device: int) -> None:
        """Answer the kernel until it unmounts, or the test ends."""
        poll = select.poll()
        poll.register(device, select.POLLIN)
        while not self._is_over:
            if not poll.poll(100):
                continue
            try:
                request = os.read(device, 1 << 17)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.EBADF):
                    break
                continue
            with self._changed:
                self._changed.wait_for(lambda: not self.is_hung or self._is_over)
            _, operation, number, node, *_ = _IN.unpack_from(request)
            if operation in _UNANSWERED:
                continue
            error_number, content = self._answer(operation, node, request[_IN.size :])
            with contextlib.suppress(OSError):  # who asked was killed
                os.write(device, _OUT.pack(_OUT.size + len(content), -error_number, number) + content)
        os.close(device)  # which ends with an error whoever waits

    def _answer(self, operation: int, node: int, request: bytes) -> tuple[int, bytes]:
        names = sorted(self.files)
        if operation == _INIT:
            return 0, struct.pack("<IIIIHHIIHHI28x", 7, 31, 1 << 16, 0, 12, 10, 1 << 16, 1, 16, 0, 0)
        if operation == _LOOKUP:
            name = request.rstrip(b"\0").decode()
            if name not in self.files:
                return errno.ENOENT, b""
            found = names.index(name) + _ROOT + 1
            return 0, struct.pack("<QQQQII", found, 0, 0, 0, 0, 0) + self._attributes(found)
        if operation == _GETATTR:
            return 0, struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if operation in (_OPEN, _OPENDIR):
            return 0, struct.pack("<QII", 0, 1, 0)  # without the page cache
        if operation in (_RELEASE, _RELEASEDIR):
            return 0, b""
        if operation == _STATFS:
            return 0, bytes(80)
        if operation not in (_READ, _READDIR):
            return errno.ENOSYS, b""
        _, offset, size = struct.unpack_from("<QQI", request)
        if operation == _READ:
            return 0, self.files[names[node - _ROOT - 1]][offset : offset + size]
        return 0, b"".join(_entry(place, name) for place, name in enumerate(names) if place >= offset)[:size]

    def _attributes(self, node: int) -> bytes:
        names = sorted(self.files)
        if node == _ROOT:
            mode, size, changed = stat.S_IFDIR | 0o755, 0, sum(self._times.values())
        else:
            name = names[node - _ROOT - 1]
            mode, size, changed = stat.S_IFREG | 0o644, len(self.files[name]), self._times[name]
        return _ATTRIBUTES.pack(node, size, 1, changed, changed, changed, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _entry(place: int, name: str) -> bytes:
    text = name.encode()
    entry = struct.pack("<QQII", place + _ROOT + 1, place + 1, len(text), stat.S_IFREG >> 12) + text
    return entry + bytes(-len(entry) % 8)


def why_not() -> str:
    """Return why there can be no such file system here; empty if there can."""
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "there is no /dev/fuse"


@contextlib.contextmanager
def hanging_files(mount_point: Path, **files: str) -> Iterator[HangingFiles]:
    """Mount a file system with some files, whose names get ``.yaml``, until the context is left."""
    made = HangingFiles(mount_point)
    for name, text in files.items():
        made.write(f"{name}.yaml", text)
    with mounted(made):
        yield made


@contextlib.contextmanager
def mounted(files: HangingFiles) -> Iterator[None]:
    """Mount the files."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    thread = threading.Thread(target=files.serve, args=[device], daemon=True)
    thread.start()
    if _LIBC.mount(b"hanging", os.fsencode(files.mount_point), b"fuse.hanging", 0, options):
        os.close(device)
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(files.mount_point))
    try:
        yield
    finally:
        files.close()
        thread.join()
