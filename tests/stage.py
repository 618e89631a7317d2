"""Have threads act one at a time, in an order and at times that a test decides: whatever may happen, does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

MOST_STEPS = 20_000

Condition = Callable[[], bool]


class _OverError(BaseException):
    """Ends an actor in the midst of what it does, as the play is over."""


class Actor:
    """Act in a thread of its own whenever it is let, from one pause to the next."""

    def __init__(
        self, name: str, act: Callable[[Actor], None], hold: Callable[[], float], stage: Stage
    ) -> None:
        """Take what to do, which pauses wherever a thread may be kept waiting."""
        self.name = name
        self.ready_at = 0.0
        self.condition: Condition = _always
        self._stage = stage
        self._hold = hold
        self._act = act
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._play, name=name, daemon=True)
        self._thread.start()

    def pause(self, seconds: float | None = None) -> None:
        """Be kept waiting, or take some time; the others act meanwhile."""
        self._wait(_always, self._hold() if seconds is None else seconds)

    def wait_for(self, condition: Condition) -> None:
        """Wait until a condition holds, and go on while it does."""
        self._wait(condition, 0.0)

    def _wait(self, condition: Condition, seconds: float) -> None:
        self.condition = condition
        self.ready_at = self._stage.now + seconds
        self._stage.back.release()
        self._go.acquire()
        if self._stage.is_over:
            raise _OverError

    def go_on(self) -> None:
        """Act until the next pause."""
        self._go.release()
        self._stage.back.acquire()

    def end(self) -> None:
        """End wherever it is, once the play is over."""
        self._go.release()
        self._thread.join()

    def _play(self) -> None:
        self._go.acquire()
        try:
            if not self._stage.is_over:
                self._act(self)
        except _OverError:
            return
        except BaseException as fault:  # noqa: BLE001 - raised again in the test's own thread
            self._stage.fault = fault
        self.condition = _never
        self._stage.back.release()


class Stage:
    """Let actors act until none has anything left to do."""

    def __init__(self, choose: Callable[[Sequence[Actor]], Actor]) -> None:
        """Start at zero, with nobody on it.

        Args:
            choose: of those who could act now.
        """
        self._choose = choose
        self.now = 0.0
        """In seconds."""

        self.back = threading.Semaphore(0)
        self.is_over = False
        self.fault: BaseException | None = None
        self.actors: list[Actor] = []

    def add(self, name: str, act: Callable[[Actor], None], hold: Callable[[], float] = lambda: 0.0) -> None:
        """Have somebody act, who is kept waiting at each pause for as long as ``hold`` says, in seconds."""
        self.actors.append(Actor(name, act, hold, self))

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def play(self, due: Callable[[], Iterator[float]]) -> None:
        """Let those act who can, one at a time; let time pass when nobody can, until nobody ever will.

        Args:
            due: tells the times at which a condition may come to hold by itself.
        """
        for _ in range(MOST_STEPS):
            able = [actor for actor in self.actors if actor.condition()]
            ready = [actor for actor in able if actor.ready_at <= self.now]
            if ready:
                self._choose(ready).go_on()
                if self.fault is not None:
                    raise self.fault
                continue
            later = [time for time in (*due(), *(actor.ready_at for actor in able)) if time > self.now]
            if not later:
                return
            self.now = min(later)
        raise AssertionError("it never comes to rest")


@contextmanager
def stage(choose: Callable[[Sequence[Actor]], Actor]) -> Iterator[Stage]:
    """Give a stage, and end whoever acts on it with the context."""
    made = Stage(choose)
    try:
        yield made
    finally:
        made.is_over = True
        for actor in made.actors:
            actor.end()


def _always() -> bool:
    return True


def _never() -> bool:
    return False
