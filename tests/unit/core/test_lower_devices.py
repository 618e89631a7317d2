"""What judges lower devices of bound links, links that may be some, and VRFs (§9.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.agent.manual_override import ModeOverrides
from sgagent.compiler.compilation import compile_
from sgagent.core.binding import Bindings, HandBinding, HostFacts, IpvlanMode, Link, bind
from sgagent.core.expected_links import ExpectedLink, bind_expected
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Resolution, resolve
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.names import UNBOUND_CHAIN
from sgagent.nft.ruleset import Drop, Rule
from sgagent.nft.text import render
from sgagent.verify import Outcome
from sgagent.verify.proof import prove
from sgagent.verify.report import counterexample_as_json, lines
from sgagent.verify.verified_table import table_of
from tests.unit.core.test_link_patterns import DEFINITIONS, hand, judge
from tests.words import PLATFORM

LAYOUT = MarkLayout(0xFFFF0000)
BR0 = Link(name="br0", index=2, kind="bridge")
PORT = Link(name="eth1", index=3, master="br0", master_kind="bridge")
ETH0 = Link(name="eth0", index=4)
OPEN, CLOSED = "-", "*?"


def found(hands: list[HandBinding], *links: Link, is_followed: bool = True) -> Bindings:
    """Return what is bound by hand on a host with these links."""
    bound = bind(DEFINITIONS, hands, HostFacts(links=links), automatically=True)
    return replace(bound, is_followed=is_followed)


def resolution(
    hands: list[HandBinding], *links: Link, is_followed: bool = True, closed: bool = False
) -> Resolution:
    """Return what definitions come to there."""
    bound = found(hands, *links, is_followed=is_followed)
    return resolve(DEFINITIONS, bound, PLATFORM, unbound_closed=closed)


def proof(policy: ResolvedPolicy) -> Outcome:
    """Return what comes of the proof of the compiled table."""
    compiled = compile_(policy, LAYOUT, first_state(policy.remembering, LAYOUT))
    return prove(table_of(compiled.ruleset), policy).outcome


@pytest.mark.parametrize("is_followed", (False, True))
@pytest.mark.parametrize("closed", (False, True))
@pytest.mark.parametrize("bound", ("br0", "br*"))
def test_a_lower_device_is_judged_as_its_master(bound: str, *, closed: bool, is_followed: bool) -> None:
    """However that is bound; the compiled table does so for every packet."""
    policy = resolution([hand(bound)], BR0, PORT, ETH0, is_followed=is_followed, closed=closed).policy
    assert judge(policy, "eth1") == judge(policy, "br0") == bound
    assert judge(policy, "eth0") == ("*" if closed else OPEN)
    assert proof(policy) is Outcome.PROVED


def test_a_link_may_be_a_new_lower_device_until_it_is_identified() -> None:
    """Only while an agent identifies links, and while the bound link is a master."""
    policy = resolution([hand("br0")], BR0, ETH0).policy
    assert (judge(policy, "eth0"), judge(policy, "new0"), judge(policy, "lo")) == (OPEN, CLOSED, OPEN)
    assert judge(resolution([hand("br0")], BR0, is_followed=False).policy, "new0") == OPEN
    assert judge(resolution([hand("eth0")], BR0, ETH0).policy, "new0") == OPEN


def test_frames_that_masters_leave_to_ports_are_dropped_at_identified_links() -> None:
    """Of a link that becomes a port while no agent runs; a table that lets them pass is refuted, no other."""
    policy = resolution([hand("br0")], BR0, ETH0).policy
    table = compile_(policy, LAYOUT, first_state(policy.remembering, LAYOUT)).ruleset
    assert "ether daddr 01:80:c2:00:00:00-01:80:c2:00:00:0f drop" in render(table, persist=False)
    for changed in ((), (Rule((Drop(),)),)):
        chains = (
            replace(one, rules=(*changed, *one.rules[1:])) if one.name == UNBOUND_CHAIN else one
            for one in table.chains
        )
        refuted = prove(table_of(replace(table, chains=tuple(chains))), policy)
        found = refuted.counterexample
        assert found is not None
        assert any("which only ports of masters take" in one for one in lines(refuted, 0.0, "it")) != bool(
            changed
        )
        assert counterexample_as_json(found)["frame_destination"] == (
            None if changed else "01:80:c2:00:00:00"
        )
        assert found.packet.interface in {"eth0", "lo"}


def test_nothing_is_dropped_at_identified_links_where_no_bound_link_is_a_master() -> None:
    """Nor where it only observes, or where no agent will identify new links."""
    for bindings in (([hand("eth0")], ETH0), ([hand("br0", mode=Mode.OBSERVE)], BR0, ETH0)):
        assert not resolution(*bindings).policy.drops_frames_of_ports
    assert not resolution([hand("br0")], BR0, ETH0, is_followed=False).policy.drops_frames_of_ports
    assert not resolution([hand("br0")], BR0, ETH0, closed=True).policy.drops_frames_of_ports


def test_a_link_that_is_not_there_may_become_a_master() -> None:
    """Unless it was seen to be none; a pattern without links is no reason to close others."""
    assert judge(resolution([hand("eth9")], ETH0).policy, "new0") == CLOSED
    assert judge(resolution([hand("br-*")], ETH0).policy, "new0") == OPEN
    for is_plain in (False, True):
        expected = ExpectedLink(interface="eth9", network_interface_id="eni-1", is_plain=is_plain)
        bound = bind_expected(found([], ETH0), [expected], DEFINITIONS, HostFacts(links=(ETH0,)))
        policy = resolve(DEFINITIONS, bound, PLATFORM).policy
        assert judge(policy, "new0") == (OPEN if is_plain else CLOSED)


def test_a_master_in_observe_mode_closes_nothing() -> None:
    """It would drop nothing either (§9.1); switched over, it does."""
    policy = resolution([hand("br0", mode=Mode.OBSERVE)], BR0, PORT).policy
    assert judge(policy, "new0") == OPEN
    assert proof(policy) is Outcome.PROVED
    enforced = ModeOverrides(everywhere=Mode.ENFORCE).over(policy)
    assert judge(enforced, "new0") == CLOSED
    assert proof(enforced) is Outcome.PROVED


def test_a_bound_port_of_a_bound_master_is_judged_as_that() -> None:
    """Packets that show as the port are the bridge's, whatever the port's own rules say."""
    policy = resolution([hand("br0"), hand("eth1")], BR0, PORT).policy
    assert judge(policy, "eth1") == "br0"
    assert proof(policy) is Outcome.PROVED


@pytest.mark.parametrize(("bridges", "expected"), ((("ovs0",), "ovs0"), (("ovs0", "ovs1"), CLOSED)))
def test_a_port_of_open_vswitch(bridges: tuple[str, ...], expected: str) -> None:
    """It is judged as the only bound bridge; where several are, it is closed."""
    links = [Link(name=name, index=number, kind="openvswitch") for number, name in enumerate(bridges, 2)]
    port = Link(name="eth1", index=9, master="ovs-system", master_kind="openvswitch")
    policy = resolution([hand(name) for name in bridges], *links, port, ETH0).policy
    assert (judge(policy, "eth1"), judge(policy, "eth0")) == (expected, OPEN)
    assert proof(policy) is Outcome.PROVED


def test_a_vrf_passes_where_others_are_closed() -> None:
    """Its port is judged, so that what shows as the VRF as well need not be."""
    vrf = Link(name="red", index=5, kind="vrf")
    port = Link(name="eth1", index=3, master="red", master_kind="vrf")
    policy = resolution([hand("eth1")], vrf, port, ETH0, closed=True).policy
    assert (judge(policy, "red"), judge(policy, "eth1"), judge(policy, "eth0")) == (OPEN, "eth1", "*")
    assert proof(policy) is Outcome.PROVED


def test_a_vrf_can_not_be_bound() -> None:
    """The message names its ports as what to bind."""
    (problem,) = resolution([hand("red")], Link(name="red", index=5, kind="vrf")).problems
    assert problem.code == "vrf_bound"


@pytest.mark.parametrize("bound", ("ipv0", "ipv*"))
def test_a_link_under_another_name_is_never_proved(bound: str) -> None:
    """An error names the cause, and no table proves what it can't see."""
    link = Link(name="ipv0", index=5, kind="ipvlan", lower="eth0", ipvlan_mode=IpvlanMode.L3S)
    refused = resolution([hand(bound)], link, ETH0)
    assert [problem.code for problem in refused.problems] == ["other_name"]
    assert proof(refused.policy) is Outcome.UNKNOWN


def test_names_that_nft_can_not_match_are_closed() -> None:
    """A port of such a name can't be told from other links, so it stays closed."""
    policy = resolution([hand("br0")], BR0, replace(PORT, name="@x")).policy
    assert judge(policy, "@x") == CLOSED
