"""Which classes a change of entries can reach."""

from __future__ import annotations

from dataclasses import replace

from sgagent.compiler.class_chains import MOST_FOR_EVERYONE, DirtyClasses, dirty_classes
from sgagent.compiler.decision_list import Entry
from sgagent.core.clauses import DecidedBy
from sgagent.core.model import Family, Policy
from tests.words import ports

TCP, UDP = 6, 17
EVERYONE = ((0, Family.IPV4.last_address),)


def entry(
    text: str, protocol: int | None = TCP, *, peer: str = "", local: tuple[int, int] | None = None
) -> Entry:
    """Return an entry for some ports; for any where the text is empty, and for everyone without a peer."""
    return Entry(
        decided_by=DecidedBy.RULE,
        policy=Policy.ACCEPT,
        leaf=text,
        peer=peer,
        family=Family.IPV4,
        addresses=((1, 1),) if peer else EVERYONE,
        protocols=None if protocol is None else (protocol,),
        ports=ports(text),
        local=local,
    )


SSH, WEB, DNS = entry("22", peer="a"), entry("80,443", peer="b"), entry("53", UDP, peer="c")
ALL, ALL_TCP = entry("", None, peer="d"), entry("", peer="e")
LISTED = (SSH, WEB, DNS, ALL, ALL_TCP)


def test_what_changes_reaches_the_classes_of_its_own_peer() -> None:
    """Whether it comes, goes, or says something else."""
    assert dirty_classes(LISTED, LISTED) == DirtyClasses(frozenset(), is_for_everyone=False)
    assert dirty_classes(LISTED, LISTED[1:]) == DirtyClasses(frozenset("a"), is_for_everyone=False)
    assert dirty_classes((SSH, ALL), LISTED[:-1]) == DirtyClasses(frozenset("bc"), is_for_everyone=False)
    assert dirty_classes((SSH, ALL), (entry("23", peer="a"), ALL)) == DirtyClasses(
        frozenset("a"), is_for_everyone=False
    )


def test_what_is_for_everyone_reaches_what_meets_it() -> None:
    """No protocol is all of them, no ports are any."""
    for text, protocol, peers in (("400-450", TCP, "bde"), ("53", UDP, "cd"), ("", UDP, "cd"), ("", 1, "d")):
        one = entry(text, protocol)
        assert dirty_classes(LISTED, (one, *LISTED)) == DirtyClasses(frozenset(peers), is_for_everyone=True)
        assert dirty_classes((*LISTED, one), LISTED) == DirtyClasses(frozenset(peers), is_for_everyone=True)
    assert dirty_classes((entry("22"), *LISTED), (entry("80"), *LISTED)) == DirtyClasses(
        frozenset("abde"), is_for_everyone=True
    )


def test_other_addresses_reach_the_classes_of_their_peer() -> None:
    """If they become those of everyone, all classes that the entry meets."""
    moved = replace(SSH, addresses=((2, 2),))
    assert dirty_classes(LISTED, (moved, *LISTED[1:])) == DirtyClasses(frozenset("a"), is_for_everyone=False)
    wide = replace(SSH, addresses=EVERYONE)
    assert dirty_classes(LISTED, (wide, *LISTED[1:])) == DirtyClasses(frozenset("ade"), is_for_everyone=True)


def test_what_stands_elsewhere_may_reach_anything() -> None:
    """So may what is for everyone and looks further than protocol and port."""
    assert dirty_classes((SSH, WEB, ALL), (WEB, SSH, ALL)) is None
    assert dirty_classes((SSH, WEB, DNS), (ALL, WEB, SSH)) is None
    assert dirty_classes((SSH,), (entry("80", local=(1, 2)), SSH)) is None


def test_many_changes_for_everyone_are_taken_to_reach_anything() -> None:
    """To hold each of very many against all entries would take longer than to make all classes again."""
    many = [entry(str(port)) for port in range(1, MOST_FOR_EVERYONE + 2)]
    assert dirty_classes(LISTED, (*many[1:], *LISTED)) is not None
    assert dirty_classes(LISTED, (*many, *LISTED)) is None
