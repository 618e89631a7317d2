"""Listing of the table in a forked process, which may abort.

libnftables aborts if it can't write a table as JSON, for example because of a comment that is not UTF-8. The
process that owns the table must survive that.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn

from sgagent.dataplane.privileges import end_with_parent

_DONE, _REFUSED = b"+", b"-"
_BY_ITS_OWN_FAULT = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE}


class WorkerDiedError(Exception):
    """Say that the work was too much for the process that did it, by a fault of its own."""


def guarded(work: Callable[[], bytes], refusal: type[Exception]) -> bytes:
    """Return what a forked process returns.

    To be called from a process with one thread.

    Args:
        work: what may end a process.
        refusal: what it may raise; is made again here, of its text.

    Raises:
        WorkerDiedError: it did.
        Exception: the refusal, also where the process was killed or ran out of something.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(work, refusal, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code in _BY_ITS_OWN_FAULT:
        raise WorkerDiedError(signal.Signals(-code).name)
    if code or text[:1] not in (_DONE, _REFUSED):
        raise refusal(f"the process that was to do it has ended with {code}")
    if text[:1] == _REFUSED:
        raise refusal(text[1:].decode())
    return text[1:]


def _work(work: Callable[[], bytes], refusal: type[Exception], writing: int) -> NoReturn:
    """Do the work, write what came of it, and end this process."""
    code = 1
    try:
        end_with_parent()
        try:
            text = _DONE + work()
        except refusal as error:
            text = _REFUSED + str(error).encode()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(text)
        code = 0
    finally:
        os._exit(code)
