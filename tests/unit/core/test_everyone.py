"""What a change among the rules for everyone means to classes."""

from __future__ import annotations

from sgagent.core.compiling.entries import Entry
from sgagent.core.compiling.everyone import ChangeForEveryone, change_for_everyone
from sgagent.core.model import Family
from tests.words import ports

TCP, UDP = 6, 17


def entry(text: str, protocol: int | None = TCP, *, local: tuple[int, int] | None = None) -> Entry:
    """Return an entry for some ports; for any where the text is empty."""
    return Entry(
        leaf=text,
        peer="",
        family=Family.IPV4,
        addresses=(),
        protocol=protocol,
        ports=ports(text) or None,
        local=local,
    )


SSH, WEB, DNS, ALL = entry("22"), entry("80,443"), entry("53", UDP), entry("", None)


def test_what_came_and_what_went_is_told_with_its_place() -> None:
    """Places are counted before for what went, and after for what came."""
    assert change_for_everyone((SSH, WEB, ALL), (SSH, DNS, ALL)) == ChangeForEveryone((1,), (1,), (WEB, DNS))
    assert change_for_everyone((SSH, ALL), (SSH, WEB, DNS, ALL)) == ChangeForEveryone((), (1, 2), (WEB, DNS))
    assert change_for_everyone((SSH, WEB), (SSH, WEB)) == ChangeForEveryone()


def test_what_moves_among_others_is_not_told() -> None:
    """Nor is what looks further than protocol and port."""
    assert change_for_everyone((SSH, WEB, ALL), (WEB, SSH, ALL)) is None
    assert change_for_everyone((SSH,), (entry("22", local=(1, 2)),)) is None
    assert change_for_everyone((SSH, SSH, WEB), (SSH, WEB)) == ChangeForEveryone((1,), (), (SSH,))


def test_entries_are_touched_where_protocol_and_ports_meet() -> None:
    """No protocol is all of them, no ports are any."""
    change = ChangeForEveryone((), (0, 1), (WEB, DNS))
    touched = [SSH, entry("440-450"), entry("53", UDP), entry("80", UDP), entry("", UDP), entry("", 1), ALL]
    assert [change.touches(one) for one in touched] == [False, True, True, False, True, False, True]
    assert not ChangeForEveryone().touches(ALL)


def test_entries_stand_where_they_stood_among_those_that_stayed() -> None:
    """One behind two of which one went stands behind one now."""
    change = ChangeForEveryone(gone=(1,), came=(3,))
    assert not change.moves((0, 1, 2, 3), (0, 1, 1, 2))
    assert not change.moves((4,), (4,))
    assert not change.moves((4,), (3,))
    assert change.moves((1,), (2,))
    assert change.moves((1, 2), (1,))
