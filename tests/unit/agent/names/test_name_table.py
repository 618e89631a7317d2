"""The table of names: what of the answers counts, for how long, and when to ask again (§12.3)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address

import pytest

from sgagent.agent.names.name_table import DnsAnswer, NameLookUp, NameState, NameTable
from sgagent.core.binding import NO_FACTS, HostFacts, Link
from sgagent.core.model import CidrBlock, Family
from tests.words import blocks

NAME = "mirror.example.org"
A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
MINUTE, HOUR = 60.0, 3600.0
KEEP = 24 * HOUR
NOW = 1_000.0


def table(most_addresses: int = 64, most_unused: int = 1_000) -> NameTable:
    """Return a table that wants one name."""
    made = NameTable(keep_seconds=KEEP, most_addresses=most_addresses, most_unused=most_unused)
    made.want(frozenset({NAME}), NOW)
    return made


def said(*addresses: str, ttl: float = MINUTE, name: str = NAME, fault: str | None = None) -> NameLookUp:
    """Return a look-up that found addresses, and none of the family of which none is given."""
    of = {family: [b for b in blocks(*addresses) if b.family is family] for family in Family}
    return NameLookUp(name, {family: DnsAnswer(frozenset(found), ttl) for family, found in of.items()}, fault)


def failed(name: str = NAME, fault: str = "no answer from 192.0.2.53") -> NameLookUp:
    """Return a look-up that failed."""
    return NameLookUp(name, {}, fault)


def counting(of: NameTable, now: float, facts: HostFacts = NO_FACTS) -> list[str] | None:
    """Return the addresses that the name stands for; None where it is unknown."""
    found = of.resolved(now, facts).addresses.get(NAME)
    if found is None:
        return None
    return [str(CidrBlock.around(f, first, f.bits)) for f in Family for first, _ in found.ranges(f)]


def state(of: NameTable, now: float) -> NameState:
    """Return what the table says of the name."""
    (status,) = of.report(now)
    return status.state


def is_due(of: NameTable, now: float) -> bool:
    """Return whether to ask for the name."""
    return list(of.due(now)) == [NAME]


def warnings(of: NameTable, now: float, facts: HostFacts = NO_FACTS) -> list[str]:
    """Return the codes of the warnings of the name."""
    return [one.code for one in of.resolved(now, facts).warnings_of([NAME])]


def test_a_name_is_unknown_until_a_server_answers() -> None:
    """Failures change nothing; it is due at once."""
    names = table()
    assert is_due(names, NOW)
    assert (counting(names, NOW), state(names, NOW)) == (None, NameState.UNRESOLVED)
    names.take(failed(), NOW)
    assert (counting(names, NOW), state(names, NOW)) == (None, NameState.UNRESOLVED)
    names.take(said(A, "2001:db8::1"), NOW)
    assert (counting(names, NOW), state(names, NOW)) == ([A, "2001:db8::1"], NameState.RESOLVED)


@pytest.mark.parametrize(
    ("ttl", "asked_after"), ((0.0, 5.0), (4.0, 5.0), (60.0, 60.0), (3_600.0, 3_600.0), (86_400.0, 3_600.0))
)
def test_a_name_is_due_when_its_answer_no_longer_holds(ttl: float, asked_after: float) -> None:
    """After its TTL, at least 5 seconds and at most an hour."""
    names = table()
    names.take(said(A, ttl=ttl), NOW)
    assert not is_due(names, NOW + asked_after - 0.1)
    assert is_due(names, NOW + asked_after)


def test_a_name_that_is_asked_for_is_not_due_again_meanwhile() -> None:
    """However long that takes: asked again and again, it would fill the queue while servers are silent."""
    names = table()
    names.begin(NAME)
    assert not is_due(names, NOW + 86_400.0)
    names.want(frozenset(), NOW)
    names.want(frozenset({NAME}), NOW)
    assert not is_due(names, NOW)
    names.take(failed(), NOW)
    assert is_due(names, NOW + 5.0)


def test_failures_are_asked_again_ever_more_rarely() -> None:
    """From 5 seconds to a minute; an answer begins anew."""
    names, now, delays = table(), NOW, []
    for _ in range(6):
        names.take(failed(), now)
        delays.append(next(d for d in range(1, 100) if is_due(names, now + d)))
        now += delays[-1]
    assert delays == [5, 10, 20, 40, 60, 60]
    names.take(said(A), now)
    names.take(failed(), now)
    assert is_due(names, now + 5)


def test_an_address_counts_ten_minutes_beyond_the_last_answer_that_had_it() -> None:
    """Rotating answers cut no session."""
    names = table()
    names.take(said(A), NOW)
    names.take(said(B), NOW + MINUTE)
    gone_at = NOW + MINUTE + 10 * MINUTE
    assert counting(names, gone_at - 0.1) == [A, B]
    assert counting(names, gone_at) == [B]
    assert names.next_change(NOW + MINUTE) == gone_at


def test_an_address_that_comes_back_stays() -> None:
    """It leaves ten minutes after the answer that had it last."""
    names, now = table(), NOW
    for _ in range(30):
        names.take(said(A), now)
        names.take(said(B), now + 30)
        now += MINUTE
        assert counting(names, now) == [A, B]


def test_an_answer_that_changes_every_second_never_has_more_than_the_limit() -> None:
    """The newest stay, and a warning says that others left."""
    names = table()
    for second in range(300):
        names.take(said(f"198.51.{second // 250}.{second % 250}", ttl=0), NOW + second)
    found = counting(names, NOW + 299) or []
    assert found == [f"198.51.{second // 250}.{second % 250}" for second in range(236, 300)]
    assert warnings(names, NOW + 299) == ["many_addresses_of_name"]


@pytest.mark.one_python
def test_answers_that_rotate_fill_neither_memory_nor_the_file() -> None:
    """Of 200 new addresses every five seconds a few are remembered, and the last 64 count."""
    names = table()
    for number in range(100):
        found = (f"2001:db8:{number + 1:x}::{last + 1:x}" for last in range(200))
        names.take(said(*found, ttl=0), NOW + 5 * number)
    assert counting(names, NOW + 500) == [f"2001:db8:64::{last + 1:x}" for last in range(64)]
    assert len(json.dumps(names.as_json(NOW + 500, NOW + 500))) < 600 * len('"2001:db8:64::c8": 1000.0, ')


def test_of_200_addresses_the_same_64_count_however_they_are_ordered() -> None:
    """An answer in another order changes nothing."""
    names, many = table(), [f"198.51.100.{last}" for last in range(200)]
    names.take(said(*many), NOW)
    first = counting(names, NOW)
    assert first is not None
    assert len(first) == 64
    names.take(said(*many[::-1]), NOW + MINUTE)
    assert counting(names, NOW + MINUTE) == first


@pytest.mark.one_python
def test_what_is_remembered_of_a_name_is_bounded() -> None:
    """However many addresses a server makes up."""
    names = table()
    for turn in range(20):
        names.take(said(*(f"198.51.{100 + turn % 2}.{last}" for last in range(200)), ttl=0), NOW + turn)
        names.take(
            said(*(f"10.{turn}.{last // 250}.{last % 250}" for last in range(1_000)), ttl=0), NOW + turn
        )
    assert len(kept(names, NOW, 0.0)) < 20 * (4 * 64 + 64)
    assert len(counting(names, NOW + 20) or ()) == 64


def test_silence_changes_nothing_for_a_day_and_then_empties() -> None:
    """And says so; the next answer brings all back."""
    names = table()
    names.take(said(A), NOW)
    for minute in range(1, 24 * 60):
        names.take(failed(), NOW + minute * MINUTE)
    assert (counting(names, NOW + KEEP - 0.1), state(names, NOW + KEEP - 0.1)) == ([A], NameState.STALE)
    assert warnings(names, NOW + KEEP - 0.1) == []
    assert names.next_change(NOW) == NOW + KEEP
    assert (counting(names, NOW + KEEP), state(names, NOW + KEEP)) == ([], NameState.EXPIRED)
    assert warnings(names, NOW + KEEP) == ["name_expired"]
    names.take(said(B), NOW + KEEP)
    assert (counting(names, NOW + KEEP), state(names, NOW + KEEP)) == ([B], NameState.RESOLVED)


@pytest.mark.parametrize("addresses", ((), (B,)))
def test_an_empty_answer_is_an_answer(addresses: Iterable[str]) -> None:
    """What was there leaves ten minutes later; the name stays known."""
    names = table()
    names.take(said(A), NOW)
    names.take(said(*addresses), NOW + MINUTE)
    assert counting(names, NOW + 2 * MINUTE) == [A, *addresses]
    assert counting(names, NOW + 12 * MINUTE) == [*addresses]
    never = table()
    never.take(said(), NOW)
    assert (counting(never, NOW), state(never, NOW)) == ([], NameState.EMPTY)


def test_each_family_fails_by_itself() -> None:
    """A server that breaks on AAAA takes no IPv4 address away."""
    names = table()
    names.take(said(A, "2001:db8::1"), NOW)
    only_ipv4 = NameLookUp(NAME, {Family.IPV4: DnsAnswer(frozenset(blocks(B)), MINUTE)}, "AAAA: SERVFAIL")
    names.take(only_ipv4, NOW + MINUTE)
    assert counting(names, NOW + 11 * MINUTE) == [B, "2001:db8::1"]
    (status,) = names.report(NOW)
    assert status.fault == "AAAA: SERVFAIL"


MULTICAST = str(IPv4Address(224 << 24 | 1))
OWN = HostFacts(links=(Link(name="eth0", index=2, addresses=blocks("10.0.0.11", "2001:db8::11")),))


@pytest.mark.parametrize(
    "lie",
    (
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "169.254.169.254",
        "fe80::1",
        MULTICAST,
        "ff02::1",
        "0.0.0.0",  # noqa: S104 - an address in an answer, nothing is bound
        "0.1.2.3",
        "::",
        "255.255.255.255",
        "::ffff:127.0.0.1",
        "::ffff:192.0.2.9",
        "10.0.0.11",
        "2001:db8::11",
    ),
)
def test_addresses_of_the_hosts_inside_are_ignored(lie: str) -> None:
    """Beside others and alone, with a warning."""
    names = table()
    names.take(said(lie, A), NOW)
    assert counting(names, NOW, OWN) == [A]
    (warning,) = names.resolved(NOW, OWN).warnings_of([NAME])
    assert warning.code == "name_of_inside"
    assert str(ip_address(lie)) in warning.message  # Pythons write mapped addresses differently
    names.take(said(lie), NOW + HOUR)
    assert counting(names, NOW + HOUR, OWN) == []


def test_an_address_that_becomes_the_hosts_own_is_ignored_from_then_on() -> None:
    """Whatever was known before."""
    names = table()
    names.take(said("10.0.0.11", A), NOW)
    assert counting(names, NOW) == ["10.0.0.11", A]
    assert counting(names, NOW, OWN) == [A]


def kept(of: NameTable, now: float, wall: float) -> str:
    """Return what a file holds."""
    return json.dumps(of.as_json(now, wall))


def test_a_restart_keeps_addresses_and_their_age() -> None:
    """Another boot's monotonic clock begins anew; the wall clock tells what passed."""
    names = table()
    names.take(said(A), NOW)
    names.take(said(B), NOW + MINUTE)
    text = kept(names, NOW + MINUTE, 5_000_000.0)
    after = table()
    after.take_json(json.loads(text), 7.0, 5_000_000.0 + MINUTE)
    assert counting(after, 7.0) == [A, B]
    assert is_due(after, 7.0)
    assert counting(after, 7.0 + 9 * MINUTE - 0.1) == [A, B]
    assert counting(after, 7.0 + 9 * MINUTE) == [B]
    assert counting(after, 7.0 + KEEP - MINUTE - 0.1) == [B]
    assert counting(after, 7.0 + KEEP - MINUTE) == []


@pytest.mark.parametrize("wall", (0.0, 4_999_999.0))
def test_a_clock_that_went_back_makes_nothing_younger(wall: float) -> None:
    """However often the host boots: the time that each agent ran counts."""
    names, now = table(), NOW
    names.take(said(A), now)
    for _ in range(24):
        assert counting(names, now) == [A]
        now += HOUR
        text = kept(names, now, 5_000_000.0)
        names, now = table(), 3.0
        names.take_json(json.loads(text), now, wall)
    assert counting(names, now) == []


def test_a_clock_far_ahead_empties_and_the_next_answer_brings_back() -> None:
    """It errs on the side of what is closed."""
    names = table()
    names.take(said(A), NOW)
    after = table()
    after.take_json(json.loads(kept(names, NOW, 5_000_000.0)), 3.0, 9e9)
    assert (counting(after, 3.0), state(after, 3.0)) == ([], NameState.EXPIRED)
    after.take(said(A), 4.0)
    assert counting(after, 4.0) == [A]


def test_a_name_that_no_rule_names_is_remembered_and_not_asked_for() -> None:
    """Should the rule come back; for a day, and so many."""
    names = table(most_unused=1)
    names.take(said(A), NOW)
    names.take(said(B, name="other.example.org"), NOW + 1)
    names.want(frozenset(), NOW + MINUTE)
    assert list(names.due(NOW + HOUR)) == []
    assert names.resolved(NOW + HOUR, NO_FACTS).addresses.keys() == {"other.example.org"}
    names.want(frozenset(), NOW + 1 + KEEP)
    assert names.resolved(NOW + KEEP, NO_FACTS).addresses == {}


@pytest.mark.parametrize(
    "value",
    (
        {},
        {"saved_at": 1.0, "now": 1.0, "names": [{"name": NAME, "answers": [], "leaving": {"x": 1.0}}]},
        {"saved_at": 1.0, "now": 1.0, "names": 3},
    ),
)
def test_a_damaged_table_is_refused(value: object) -> None:
    """As whole."""
    with pytest.raises(ValueError, match=r"."):
        table().take_json(value, NOW, 2.0)
