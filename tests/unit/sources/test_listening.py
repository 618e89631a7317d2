"""What is heard is noted and told in turns."""

from __future__ import annotations

from sgagent.sources.files.bursts import Bursts
from sgagent.sources.files.listening import ChangeFeed, HeardChange
from sgagent.sources.files.settling import ALONE_SECONDS, BurstState


class Watched:
    """Something in which a file was moved into place, behind a link that is new or not."""

    def __init__(self, *, is_more_watched: bool) -> None:
        """Start with that."""
        self.heard = HeardChange((("web.yaml", BurstState.WHOLE),), is_more_watched)

    def take(self) -> HeardChange:
        """Return it once."""
        heard, self.heard = self.heard, HeardChange()
        return heard

    def arm(self) -> bool:
        """Watch no more than before."""
        return False


def settles(*, is_more_watched: bool) -> bool:
    """Tell whether what was read while a file was moved into place has settled, once it stayed alone."""
    now, told, bursts = [1.0], list[float](), Bursts(lambda: now[0])
    listener = ChangeFeed(
        Watched(is_more_watched=is_more_watched), lambda: told.append(now[0]), bursts, lambda: now[0]
    )
    bursts.begin_reading()
    listener.take_turn(is_asked=False)
    now[0] += ALONE_SECONDS
    listener.take_turn(is_asked=False)
    assert told == [1.0]
    assert listener.due() is None
    return bursts.has_settled()


def test_what_was_read_while_a_file_was_moved_counts() -> None:
    """It has the file or not, and either is whole."""
    assert settles(is_more_watched=False)


def test_what_was_read_before_it_was_watched_does_not_count() -> None:
    """What changed there meanwhile was not heard; it is read again, as the link is told."""
    assert not settles(is_more_watched=True)
