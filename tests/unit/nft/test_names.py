"""Names that the kernel and nft take, whatever the ids are."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, strategies as st

from sgagent.core.counter_keys import DefaultCounter, InnerCounter, SpoofedCounter, is_of_drops
from sgagent.core.model import Direction, Family, Policy
from sgagent.nft import names

_GRAMMAR = re.compile(r"[A-Za-z][A-Za-z0-9/\\_.-]*")

hostile = st.one_of(
    st.text(max_size=400),
    st.text(alphabet="ab/x.-_ \n\\{};\"'", max_size=30),
    st.from_regex(r"x/[a-z-]{0,5}/[0-9a-f]{16}", fullmatch=True),
)
links = st.text(min_size=1, max_size=15).filter(lambda name: "/" not in name)
"""No link's name holds a slash."""


def is_name(text: str) -> bool:
    """Tell whether nft reads the text as one unquoted name, and the kernel takes its length."""
    return _GRAMMAR.fullmatch(text) is not None and len(text.encode()) <= 255


def all_names(link: str, text: str) -> list[str]:
    """Return a name of every kind."""
    made = [names.inner_chain(link), names.rule_chain(link, text)]
    for direction in Direction:
        made += [
            names.entry_chain(direction, link),
            names.live_session_chain(direction, link),
            names.invalid_chain(direction, link),
            names.accept_chain(direction, link),
            names.default_chain(direction, link),
            names.step_chain("platform", direction, link),
            names.step_chain("failsafe", direction, link),
        ]
        for family in Family:
            one = names.class_chain(direction, link, family, (text,))
            both = names.class_chain(direction, link, family, (text, "pl-1"))
            made += [
                names.peers_chain(direction, link, family),
                names.of_family("not-tcp", direction, link, family),
                names.of_family("networks", direction, link, family),
                names.everyone_chain(direction, link, family),
                names.cell_chain(direction, link, family, text),
                one,
                both,
                f"protocols/{one}",
                f"ports/{one}",
                f"ports/{both}",
            ]
    return made


@given(st.one_of(hostile, links), hostile)
@example("", "")
@example("*", "x")
@example("a" * 300, "ü" * 300)
@example("\ud800", "\udfff")
def test_every_name_is_one(link: str, text: str) -> None:
    """Whatever the id, a name is a letter with letters, digits and harmless signs behind it."""
    for name in all_names(link, text):
        assert is_name(name), name


@given(links, hostile)
@example("eth0", "inner")
@example("x", "x/x/2d711642b726b044")
def test_names_of_different_things_differ(link: str, text: str) -> None:
    """Of all names that are made for one link and one id, no two are the same."""
    made = all_names(link, text)
    if text != "pl-1":
        assert len(set(made)) == len(made)


@given(hostile, hostile)
@example("x/a/0123456789abcdef", "x")
@example("a/b", "a.b")
@example("a b", "a-b")
@example("A", "a")
@example("", "other")
def test_parts_of_different_ids_differ(one: str, other: str) -> None:
    """Two ids never meet in one part of a name; neither what needs a digest nor what looks like one."""
    assert (names.part(one) == names.part(other)) is (one == other)


@given(links, hostile, links, hostile)
@example("x", "a", "a", "x/a")
@example("eth0", "a/b", "eth0", "a.b")
def test_names_of_rules_tell_link_and_rule(link: str, text: str, other: str, other_text: str) -> None:
    """A leaf belongs to one rule on one link."""
    same = names.rule_chain(link, text) == names.rule_chain(other, other_text)
    assert same is ((link, text) == (other, other_text))


@given(links, hostile)
def test_the_prefix_of_a_log_fits_and_tells_the_leaf(link: str, text: str) -> None:
    """The kernel takes 127 bytes of printable ASCII, and no two leaves share one."""
    leaf = names.rule_chain(link, text)
    prefix = names.log_prefix(leaf)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9/._-]{0,126}", prefix)
    assert prefix == leaf or prefix == f"x/{names.digest(leaf)}"


@pytest.mark.parametrize(
    "text",
    ("sgr-bp1", "eth0", "eth0.100", "10.0.0.1", "10.0.0.0/8", "1000000000000001/sg-x", "pl-office", "6"),
)
def test_a_harmless_id_stays_as_it_is(text: str) -> None:
    """A person finds an ordinary id again."""
    assert names.part(text) == text


@pytest.mark.parametrize(
    ("text", "stem"),
    (
        ("2001:db8::/64", "2001-db8-64"),
        ("a b", "a-b"),
        ("", "other"),
        ("*", "other"),
        ("..", "other"),
        ("x", "x"),
        ("x/y", "x-y"),
        ("a//b", "a-b"),
        ("-a", "a"),
        ("a" * 81, "a" * 24),
    ),
)
def test_any_other_id_is_a_stem_and_a_digest(text: str, stem: str) -> None:
    """What a person may recognise, and what makes it unique."""
    assert names.part(text) == f"x/{stem}/{names.digest(text)}"
    assert re.fullmatch(r"[0-9a-f]{16}", names.digest(text))


def test_which_counters_are_of_drops() -> None:
    """A default's by its verdict; what only observing would have dropped passed."""
    accepts, drops = (
        DefaultCounter(interface="eth0", direction=Direction.INGRESS, verdict=verdict)
        for verdict in (Policy.ACCEPT, Policy.DROP)
    )
    assert [is_of_drops(key) for key in (accepts, drops)] == [False, True]
    assert is_of_drops(SpoofedCounter(interface="eth0", direction=Direction.INGRESS))
    assert not is_of_drops(InnerCounter(interface="eth0"))


def test_either_name_of_a_map_of_addresses_leads_to_its_first() -> None:
    """The map takes them in turns."""
    first = names.peers_chain(Direction.INGRESS, "eth0", Family.IPV4)
    assert names.first_map(first) == names.first_map(names.second_map(first)) == first
