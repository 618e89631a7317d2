"""Which links patterns mean, and what judges a link that has just come (§12.5)."""

from __future__ import annotations

import pytest

from sgagent.agent.manual_override import ModeOverrides
from sgagent.core.binding import HandBinding, HostFacts, Link, bind
from sgagent.core.expected_links import ExpectedLink, bind_expected
from sgagent.core.explanation import choose_interface
from sgagent.core.link_patterns import LinkPattern
from sgagent.core.model import Mode, SourceCheck
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Resolution, resolve
from tests.unit.core.test_binding import MAC_1, bound, link, pairs
from tests.words import PLATFORM, blocks, group, interface, snapshot

DEFINITIONS = snapshot(group("sg-1"), group("sg-2"), interface("eni-1", ["sg-1"], ["10.0.0.1"]))
OPEN, CLOSED = "-", "*?"


def hand(text: str, *exclude: str, mode: Mode | None = None, check: SourceCheck | None = None) -> HandBinding:
    """Return what ``[[interface]]`` says."""
    return HandBinding(
        interface=text, exclude=exclude, security_group_ids=("sg-1",), mode=mode, source_check=check
    )


def resolution(hands: list[HandBinding], *links: str | Link, closed: bool = False) -> Resolution:
    """Return what they come to on a host with these links."""
    there = tuple(link(one) if isinstance(one, str) else one for one in links)
    found = bind(DEFINITIONS, hands, HostFacts(links=there), automatically=True)
    return resolve(DEFINITIONS, found, PLATFORM, unbound_closed=closed)


def judge(policy: ResolvedPolicy, name: str) -> str:
    """Return the name of what judges a link."""
    found = policy.judge(name)
    return OPEN if found is None else found.name


@pytest.mark.parametrize(
    ("text", "exclude", "name", "matches"),
    (
        ("br-*", (), "br-", True),
        ("br-*", (), "br-a", True),
        ("br-*", (), "br", False),
        ("br-*", (), "xbr-a", False),
        ("br-*", ("br-lan",), "br-lan", False),
        ("br-*", ("br-lan",), "br-lan2", True),
        ("br-*", ("br-l*", "wg*"), "br-lan2", False),
        ("br-*", ("br-l*", "wg*"), "br-", True),
        ("eth[01]*", (), "eth0", False),
        ("a.*", (), "ab", False),
        ("A*", (), "ab", False),
        ("a*", (), "a\n", True),
        ("abcdefghijklmn*", (), "abcdefghijklmno", True),
    ),
)
def test_names(text: str, exclude: tuple[str, ...], name: str, matches: bool) -> None:  # noqa: FBT001 - a parameter
    """Only the sign at the end is special, and letters count as they are."""
    assert LinkPattern(text=text, exclude=exclude).matches(name) is matches


@pytest.mark.parametrize(
    ("hands", "links", "judges"),
    (
        # Every name of the prefix is meant: the kernel knows at once.
        ([hand("br-*")], ["br-a"], {"br-a": "br-*", "br-new": "br-*", "br": OPEN, "lo": OPEN}),
        ([hand("br-*", "br-lan")], [], {"br-lan": OPEN, "br-lan2": "br-*"}),
        ([hand("br-*", "br-l*")], [], {"br-lan": OPEN, "br-a": "br-*"}),
        # An exact name comes before a pattern, whether there is such a link or not.
        ([hand("br-*"), hand("br-a")], [], {"br-a": "br-a", "br-b": "br-*"}),
        # The longest prefix decides between patterns of which one excludes the other.
        (
            [hand("br-*", "br-lan*"), hand("br-lan*", "br-lanx*")],
            [],
            {"br-a": "br-*", "br-lan": "br-lan*", "br-lan0": "br-lan*", "br-lanx0": OPEN},
        ),
        ([hand("br-*"), hand("wg*")], [], {"br-a": "br-*", "wg0": "wg*", "eth0": OPEN}),
        # Loopback is never meant.
        ([hand("l*")], [link("lo", is_loopback=True), "l1"], {"lo": OPEN, "l1": "l*"}),
        ([hand("l*")], [link("l0", is_loopback=True)], {"l0": OPEN, "l1": "l*"}),
    ),
)
def test_who_judges_a_link(hands: list[HandBinding], links: list[str | Link], judges: dict[str, str]) -> None:
    """The agent knows the links that there are; of others, the kernel compares how their names begin."""
    policy = resolution(hands, *links).policy
    assert {name: judge(policy, name) for name in judges} == judges


@pytest.mark.parametrize(
    ("links", "chosen"), ((["br-a", "br-lan"], "br-a"), (["eth0"], "br-*"), ([], "br-*"))
)
def test_the_only_link_of_a_pattern_is_explained_where_sources_are_checked(
    links: list[str], chosen: str
) -> None:
    """It is bound by itself then; the pattern beside it is no second interface."""
    policy = resolution([hand("br-*", "br-lan", check=SourceCheck.ON)], *links).policy
    assert choose_interface(policy, None, links) == chosen


@pytest.mark.parametrize(
    ("links", "chosen"),
    ((["br-a", "br-lan", "eth0", "lo"], "br-a"), (["br-a", "br-b"], "br-*"), (["eth0"], "br-*")),
)
def test_the_only_link_of_a_pattern_is_explained(links: list[str], chosen: str) -> None:
    """Where nobody says which one; of several, or of none, it is the pattern."""
    policy = resolution([hand("br-*", "br-lan")], *links).policy
    assert choose_interface(policy, None, links) == chosen
    assert choose_interface(policy, "br-x", links) == "br-x"


def test_unbound_interfaces_are_closed_beside_patterns() -> None:
    """What is excluded is judged as a link is to which nothing is bound."""
    policy = resolution([hand("br-*", "br-lan")], "br-a", closed=True).policy
    names = ("br-lan", "br-a", "br-b", "eth0", "lo")
    assert [judge(policy, name) for name in names] == ["*", "br-*", "br-*", "*", OPEN]


@pytest.mark.parametrize(
    ("one", "other"),
    (
        (hand("br-*"), hand("b*")),
        (hand("br-*"), hand("br-*", "br-lan")),
        (hand("br-*", "br-lan"), hand("br-lan*")),
        (hand("br-*", "br-lanx*"), hand("br-lan*")),
    ),
)
def test_two_patterns_that_can_match_one_link_are_an_error(one: HandBinding, other: HandBinding) -> None:
    """Whether there is such a link or not, and in whatever order they stand."""
    for hands in ([one, other], [other, one]):
        (problem,) = resolution(hands).problems
        assert problem.code in ("several_patterns", "interface_bound_twice")


def test_where_a_pattern_observes_nothing_is_closed() -> None:
    """Observe mode drops nothing (§9.1), also where sources are checked."""
    checked = hand("br-*", mode=Mode.OBSERVE, check=SourceCheck.ON)
    assert judge(resolution([checked]).policy, "br-a") == OPEN
    observed = resolution([hand("br-*", mode=Mode.OBSERVE)]).policy.judge("br-a")
    assert observed is not None
    assert (observed.name, observed.mode) == ("br-*", Mode.OBSERVE)


def test_where_sources_are_checked_each_link_has_its_own_judge() -> None:
    """Which sources are right depends on the link's addresses, so a link is closed until they are known."""
    links = link("br-a", "10.0.0.1"), link("br-b", "10.0.0.2")
    policy = resolution([hand("br-*", check=SourceCheck.ON)], *links).policy
    assert [judge(policy, name) for name in ("br-a", "br-b", "br-c")] == ["br-a", "br-b", CLOSED]
    own = [one.own_addresses and one.own_addresses.ipv4 for one in policy.interfaces]
    assert own == [((0x0A000001, 0x0A000001),), ((0x0A000002, 0x0A000002),)]


def test_many_links_of_a_pattern_change_nothing() -> None:
    """The cost of a packet, and of the table, is that of one interface."""
    few = resolution([hand("br-*", "br-lan")]).policy
    assert resolution([hand("br-*", "br-lan")], *(f"br-{n}" for n in range(100))).policy == few


def test_a_port_of_a_bridge_is_an_error_that_names_the_master() -> None:
    """Its packets show as the bridge's (§9.4)."""
    found = resolution([hand("veth*")], link("veth1", port_of=("docker0", "bridge")), "veth2")
    assert [(one.code, "docker0" in one.message) for one in found.problems] == [("port_of_master", True)]


def test_a_name_that_nft_cannot_match_stays_closed() -> None:
    """Such a link is never let through by its name."""
    found = resolution([hand("a*", check=SourceCheck.ON)], 'a"c', "abc")
    assert [one.code for one in found.problems] == ["unmatched_name"]
    assert [judge(found.policy, name) for name in ('a"c', "abc")] == [CLOSED, "abc"]


def test_a_pattern_comes_before_what_documents_name() -> None:
    """What is bound by hand wins."""
    found = bound([interface("eni-1", ["sg-1"], mac=MAC_1)], [link("br-a", mac=MAC_1)], hand("br-*"))
    assert (pairs(found), found.problems) == ([], ())
    expected = ExpectedLink(interface="br-a", network_interface_id="eni-1")
    assert bind_expected(found, [expected], DEFINITIONS, HostFacts()).bindings == ()


def test_many_links_may_share_a_network_interface() -> None:
    """Each is judged by its groups; one that the definitions lack is an error also while no link is there."""
    by_id = HandBinding(interface="ens*", network_interface_id="eni-1")
    found = resolution([by_id], "ens5", "ens6")
    (pattern,) = found.policy.patterns
    assert (pattern.judge.network_interface_id, pattern.judge.security_group_ids) == ("eni-1", ("sg-1",))
    assert judge(found.policy, "ens6") == judge(found.policy, "ens7") == "ens*"
    unknown = HandBinding(interface="ens*", network_interface_id="eni-9")
    assert [one.code for one in resolution([unknown]).problems] == ["unknown_network_interface"]


def test_a_mode_by_hand_is_of_the_pattern_or_of_one_link() -> None:
    """A link with a mode of its own has a judge of its own, also one that is not there now."""
    policy = resolution([hand("br-*"), hand("a*", check=SourceCheck.ON)], "br-a", "a1").policy
    modes = {"br-a": Mode.OBSERVE, "a*": Mode.OBSERVE}
    switched = ModeOverrides(by_interface=modes).over(policy)
    found = {name: switched.judge(name) for name in ("br-a", "br-b", "a1", "ax")}
    assert {name: one and (one.name, one.mode) for name, one in found.items()} == {
        "br-a": ("br-a", Mode.OBSERVE),
        "br-b": ("br-*", Mode.ENFORCE),
        "a1": ("a1", Mode.OBSERVE),
        "ax": None,
    }
    observed = resolution([hand("a*", mode=Mode.OBSERVE, check=SourceCheck.ON)], "ab").policy
    back = ModeOverrides(by_interface={"a*": Mode.ENFORCE}).over(observed)
    assert [judge(back, name) for name in ("ab", "abc", "b")] == ["ab", CLOSED, OPEN]


def test_a_mode_by_hand_of_a_pattern_that_is_gone_makes_no_judge() -> None:
    """Another pattern may match its text as if that were the name of a link."""
    policy = resolution([hand("b*")], "br-a").policy
    switched = ModeOverrides(by_interface=dict.fromkeys(("br-*", CLOSED, "*"), Mode.OBSERVE)).over(policy)
    assert switched.interfaces == policy.interfaces


def test_a_mode_by_hand_of_a_pattern_reaches_links_with_judges_of_their_own() -> None:
    """Those whose sources are checked; not one that is bound by its name."""
    links = link("br-a", "10.0.0.1"), link("br-b", "10.0.0.2")
    policy = resolution([hand("br-*", check=SourceCheck.ON), hand("br-b")], *links).policy
    switched = ModeOverrides(by_interface={"br-*": Mode.OBSERVE}).over(policy)
    assert [one.mode for one in switched.interfaces] == [Mode.OBSERVE, Mode.ENFORCE]


def test_a_link_that_is_called_like_a_pattern_lends_it_no_addresses() -> None:
    """The pattern speaks of other links, and their sources are checked by their own addresses (§12.6)."""
    called_so = Link(name="ens*", index=9, addresses=blocks("192.0.2.9"))
    found = bind(
        DEFINITIONS, [hand("ens*", check=SourceCheck.ON)], HostFacts(links=(called_so,)), automatically=False
    )
    assert [binding.link_addresses for binding in found.patterns.values()] == [()]
