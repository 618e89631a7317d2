"""The meaning of each statement for one packet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.model import UDP, Family, Policy
from sgagent.nft import ruleset as nft
from sgagent.nft.ruleset import (
    Accept,
    Count,
    Drop,
    Element,
    Goto,
    Interval,
    Jump,
    KeyType,
    Limit,
    Log,
    LookUp,
    Match,
    NamePrefix,
    Operator,
    Return,
    SetMark,
    Symbol,
    VerdictMap,
)
from sgagent.verify.interpreter import run
from sgagent.verify.packets import CtDirection, CtState, Ends, PacketAtHook, SessionAtHook
from sgagent.verify.verified_table import (
    BaseHook,
    Unread,
    UnsupportedStatementError,
    VerifiedChain,
    VerifiedStatement,
    VerifiedTable,
)

ENDS = Ends(source=0x0A000002, destination=0x0A000001, source_port=40_000, destination_port=443)
PACKET = PacketAtHook(
    hook="prerouting",
    interface="eth0",
    family=Family.IPV4,
    source=ENDS.source,
    destination=ENDS.destination,
    protocol=6,
    source_port=40_000,
    destination_port=443,
    session=SessionAtHook(
        direction=CtDirection.ORIGINAL, protocol=6, original=ENDS, reply=ENDS.swapped, mark=0x12
    ),
)
UNTRACKED = replace(PACKET, state=CtState.UNTRACKED, session=None)
PORT_443 = Match(nft.TH_DPORT, (Interval.single(443),))
PORT_80 = Match(nft.TH_DPORT, (Interval.single(80),))

Lines = list[tuple[VerifiedStatement, ...]]


def table(
    lines: Lines,
    *,
    priority: int = -150,
    drops: bool = False,
    maps: tuple[VerdictMap, ...] = (),
    **others: Lines,
) -> VerifiedTable:
    """Return a table with a base chain, and others by name."""
    hook = BaseHook(name="prerouting", priority=priority, drops=drops)
    chains = [VerifiedChain(name="base", rules=tuple(lines), hook=hook)]
    chains += (VerifiedChain(name=name, rules=tuple(some)) for name, some in others.items())
    return VerifiedTable(
        chains={chain.name: chain for chain in chains}, verdict_maps={one.name: one for one in maps}
    )


def verdict(lines: Lines, packet: PacketAtHook = PACKET) -> Policy:
    """Return what becomes of a packet."""
    return run(table(lines), packet).verdict


@pytest.mark.parametrize(
    ("match", "meets"),
    (
        (PORT_443, True),
        (PORT_80, False),
        (replace(PORT_80, operator=Operator.NOT_EQUAL), True),
        (Match(nft.destination_port(UDP), (Interval(0, 65535),)), False),
        (Match(nft.IP6_SADDR, (Interval(0, 1),), Operator.NOT_EQUAL), False),
        (Match(nft.IP_SADDR, (Interval(0x0A000000, 0x0AFFFFFF),)), True),
        (Match(nft.CT_MARK, (Interval.single(0x10),), mask=0xF0), True),
        (Match(nft.CT_MARK, (Interval.single(0x10),)), False),
        (Match(nft.CT_STATE, (Symbol("established"), Symbol("new"))), True),
        (Match(nft.META_NFPROTO, (Symbol("ipv6"),)), False),
        (Match(nft.META_IIFNAME, (NamePrefix("et"),)), True),
        (Match(nft.META_IIFNAME, (NamePrefix("eth0"),)), True),
        (Match(nft.META_IIFNAME, (NamePrefix("eth00"), NamePrefix("th"))), False),
        (Match(nft.META_IIFNAME, (NamePrefix("et"),), Operator.NOT_EQUAL), False),
    ),
)
def test_a_comparison(match: Match, meets: bool) -> None:  # noqa: FBT001 - a parameter of the table above
    """A rule goes on where what is read compares, and breaks where there is nothing to read."""
    assert verdict([(match, Drop())]) is (Policy.DROP if meets else Policy.ACCEPT)


def test_a_base_chain_of_the_other_family_is_not_on_the_path() -> None:
    """The kernel does not call it."""
    drops = table([], drops=True)
    for family, path in ((Family.IPV4, ("base",)), (Family.IPV6, ()), (None, ("base",))):
        chains = {"base": replace(drops.chains["base"], family=family)}
        found = run(replace(drops, chains=chains), PACKET)
        assert (found.path, found.verdict is Policy.DROP) == (path, bool(path))


def test_goto_does_not_return_and_jump_does() -> None:
    """Behind a chain that was gone to comes the base chain's policy, behind one jumped to the next rule."""
    assert run(table([(Goto("empty"),), (Drop(),)], empty=[]), PACKET).verdict is Policy.ACCEPT
    assert run(table([(Jump("empty"),), (Drop(),)], empty=[]), PACKET).verdict is Policy.DROP
    assert run(table([(Goto("empty"),)], empty=[], drops=True), PACKET).verdict is Policy.DROP


def test_return_leaves_a_chain() -> None:
    """It goes back to where the chain was jumped from, over what was gone to in between."""
    inner: Lines = [(Goto("last"),)]
    found = run(table([(Jump("inner"),), (Drop(),)], inner=inner, last=[(Return(),), (Accept(),)]), PACKET)
    assert (found.verdict, found.path) == (Policy.DROP, ("base", "inner", "last"))


def test_a_named_counter_counts_where_the_rule_gets_to_it() -> None:
    """What stands before the comparison that fails counts, what stands behind it does not."""
    found = run(table([(Count("before"), PORT_80, Count("behind")), (Count("next"), Accept())]), PACKET)
    assert found.counters == ("before", "next")


def test_log_and_limit_decide_nothing() -> None:
    """They are passed."""
    assert verdict([(Limit(1, 1), Log("x", 1)), (Drop(),)]) is Policy.DROP


def test_the_mark_is_changed_and_read_again() -> None:
    """Later rules see it changed."""
    changed = Match(nft.CT_MARK, (Interval.single(0x32),))
    found = run(table([(SetMark(keep=0xFF, put=0x20),), (changed, Drop())]), PACKET)
    assert (found.mark, found.verdict) == (0x32, Policy.DROP)


def test_a_mark_without_a_session() -> None:
    """A rule that reads it first breaks; to set a constant does nothing."""
    assert verdict([(SetMark(keep=0xFF, put=0x20), Drop())], UNTRACKED) is Policy.ACCEPT
    found = run(table([(SetMark(keep=0x20, put=0x20), Drop())]), UNTRACKED)
    assert (found.mark, found.verdict) == (None, Policy.DROP)


def test_a_look_up() -> None:
    """A hit is a verdict, a miss goes on with the next rule; the path names the map."""
    key_types = (KeyType.INET_PROTO, KeyType.INET_SERVICE)
    element = Element((Interval.single(6), Interval(400, 500)), Goto("empty"))
    ports = VerdictMap(name="ports", key_types=key_types, is_interval=True, elements=(element,))
    look_up = LookUp((nft.META_L4PROTO, nft.TH_DPORT), "ports")
    lines: Lines = [(look_up,), (Drop(),)]
    found = run(table(lines, maps=(ports,), empty=[]), PACKET)
    assert (found.verdict, found.path) == (Policy.ACCEPT, ("base", "ports", "empty"))
    other = replace(PACKET, destination_port=80)
    assert run(table(lines, maps=(ports,), empty=[]), other).verdict is Policy.DROP


def test_a_packet_too_short_for_ports() -> None:
    """No comparison of ports holds, not even that they are others."""
    short = replace(UNTRACKED, source_port=None, destination_port=None)
    assert verdict([(replace(PORT_80, operator=Operator.NOT_EQUAL), Drop())], short) is Policy.ACCEPT


def test_before_conntrack_every_packet_is_invalid() -> None:
    """A base chain at priority -200 or below sees neither session nor mark."""
    invalid = Match(nft.CT_STATE, (Symbol("invalid"),))
    mark = Match(nft.CT_MARK, (Interval(0, 0xFFFFFFFF),))
    for priority, meets in ((-200, True), (-199, False)):
        found = run(table([(invalid, Drop())], priority=priority), PACKET)
        assert found.verdict is (Policy.DROP if meets else Policy.ACCEPT)
        found = run(table([(mark, Drop())], priority=priority), PACKET)
        assert found.verdict is (Policy.ACCEPT if meets else Policy.DROP)


def test_behind_nat_the_header_has_the_inner_end() -> None:
    """A base chain at prerouting that is called behind DNAT reads where the packet is sent on to."""
    assert PACKET.session is not None
    reply = replace(ENDS.swapped, source=0xC0000207, source_port=8443)
    packet = replace(PACKET, session=replace(PACKET.session, reply=reply))
    inner = Match(nft.IP_DADDR, (Interval.single(0xC0000207),))
    port = Match(nft.TH_DPORT, (Interval.single(8443),))
    for priority, expected in ((-150, Policy.ACCEPT), (0, Policy.DROP)):
        assert run(table([(inner, port, Drop())], priority=priority), packet).verdict is expected


def test_a_dormant_table_does_nothing() -> None:
    """The kernel leaves its base chains out."""
    dormant = replace(table([(Drop(),)]), is_dormant=True)
    assert run(dormant, PACKET).verdict is Policy.ACCEPT


def test_what_is_not_understood_is_refused() -> None:
    """Nothing is guessed about a packet that meets it."""
    unread = Unread("osf in chain base")
    with pytest.raises(UnsupportedStatementError, match="osf in chain base"):
        verdict([(unread, Accept())])
    assert table([(unread,)]).unsupported == ("osf in chain base",)
    assert table([], unused=[(unread,)]).unsupported == ()


def test_chains_of_a_hook_are_called_by_priority() -> None:
    """What one accepts goes on to the next; what one drops is gone."""
    hooks = {"first": -160, "second": -150}
    rules: dict[str, Lines] = {"first": [(Count("a"), Accept())], "second": [(Count("b"), Drop())]}
    chains = {
        name: VerifiedChain(
            name=name, rules=tuple(rules[name]), hook=BaseHook(name="prerouting", priority=hooks[name])
        )
        for name in ("second", "first")
    }
    found = run(VerifiedTable(chains=chains, verdict_maps={}), PACKET)
    assert (found.counters, found.verdict) == (("a", "b"), Policy.DROP)
