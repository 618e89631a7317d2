"""Have one thread end the wait of another that watches descriptors."""

from __future__ import annotations

import contextlib
import os
import select


class Bell:
    """Something to ring from any thread; a descriptor that is readable once it was rung."""

    def __init__(self) -> None:
        """Open it, silent."""
        self._heard, self._rung = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._heard

    def ring(self) -> None:
        """Ring; what rings already goes on ringing."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._rung, b"\0")

    def silence(self) -> None:
        """Take in that it rang."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._heard, 4096):
                pass

    def wait(self, seconds: float) -> None:
        """Wait for it to ring, and silence it."""
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)
        self.silence()

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self._heard)
        os.close(self._rung)
