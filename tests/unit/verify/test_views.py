"""Views read from a packet what the interpreter reads, and decide about the packet that it stands for."""

from __future__ import annotations

import pytest
from hypothesis import given

from sgagent.core.model import Family
from sgagent.nft import ruleset as nft
from sgagent.verify.interpreter import run
from sgagent.verify.packets import CtDirection, Headers, PacketAtHook, Ports, opener_of, phase_of
from sgagent.verify.verified_table import VerifiedTable, table_of
from sgagent.verify.views import (
    FAR_END,
    HOP_LIMIT,
    ICMP_TYPE,
    NEAR_END,
    PORT,
    PROTOCOL,
    SOURCE_PORT,
    Read,
    Settled,
    Special,
    View,
    views_of,
)
from tests.draws import Draws
from tests.strategies import draws, examples

HOOKS = ("prerouting", "postrouting")
PRIORITIES = {"prerouting": (-300, -150, 0), "postrouting": (0, 300)}
MARK = 0x00410007
READABLE = [one for one in nft.SELECTORS if one not in (nft.META_IIFNAME, nft.META_OIFNAME)]


def any_view(draws: Draws) -> View:
    """Draw a view."""
    family = draws.choice(tuple(Family))
    return draws.choice(list(views_of(draws.choice(HOOKS), "eth0", family)))


def any_values(draws: Draws, view: View) -> dict[str, int]:
    """Draw values of all dimensions, and a far end."""
    return {
        dimension: draws.randint(*draws.choice(ranges)) if draws.chance(70) else ranges[0][0]
        for dimension, ranges in view.box.items()
    } | {FAR_END: draws.number(4)}


def asks(selector: nft.Selector, value: int | str, priority: int, hook: str) -> VerifiedTable:
    """Return a table that counts a packet in which a selector reads a value."""
    wanted = nft.Symbol(value) if isinstance(value, str) else nft.Interval.single(value)
    mask = nft.EXPECTED | nft.CONFIRMED if selector == nft.CT_STATUS else None
    rule = nft.Rule((nft.Match(selector, (wanted,), mask=mask), nft.Goto("hit")))
    base = nft.Chain(name="base", hook=nft.Hook(name=hook, hook_priority=priority), rules=(rule,))
    return table_of(nft.Ruleset(chains=(base, nft.Chain(name="hit", rules=(nft.Rule((nft.Accept(),)),)))))


def reads(selector: nft.Selector, value: int | str, priority: int, packet: PacketAtHook) -> bool:
    """Return whether the interpreter reads the value."""
    return "hit" in run(asks(selector, value, priority, packet.hook), packet).path


@examples(300)
@given(draws())
def test_a_view_reads_what_the_interpreter_reads(draws: Draws) -> None:
    """Whatever the field and the phase, both read the same number, or both read nothing."""
    view = any_view(draws)
    values = any_values(draws, view)
    packet = view.packet(values, MARK)
    for priority in PRIORITIES[view.hook]:
        for selector in READABLE:
            match view.read(selector, phase_of(view.hook, priority)):
                case Settled(value):
                    assert reads(selector, value, priority, packet), (selector, packet)
                case Special.FAR_END:
                    assert reads(selector, values[FAR_END], priority, packet), (selector, packet)
                case Special.MARK:
                    assert reads(selector, MARK, priority, packet), (selector, packet)
                case Special.NOTHING:
                    assert reads_nothing(selector, priority, packet), (selector, packet)
                case Read(dimension, needs):
                    meets = all(
                        any(first <= values[one] <= last for first, last in ranges) for one, ranges in needs
                    )
                    if meets:
                        assert reads(selector, values[dimension], priority, packet), (selector, packet)
                    else:
                        assert reads_nothing(selector, priority, packet), (selector, packet)


def test_an_icmp_error_about_a_ping_has_ends_of_its_own() -> None:
    """NAT's other tuple is that of the ping, also where error and ping are of one protocol."""
    errors = [one for one in views_of("postrouting", "eth0", Family.IPV4) if one.headers is Headers.ERROR]
    (view,) = (one for one in errors if one.ports is Ports.OTHER and one.direction is CtDirection.REPLY)
    source = view.read(nft.IP_SADDR, phase_of("postrouting", 0))
    assert isinstance(source, Read)
    values = {dimension: ranges[0][0] for dimension, ranges in view.box.items()}
    packet = view.packet(values | {PROTOCOL: 1, source.dimension: 0x0A000001, FAR_END: 0}, MARK)
    assert packet.session is not None
    assert packet.session.protocol == packet.protocol
    assert reads(nft.IP_SADDR, 0x0A000001, 0, packet)


def reads_nothing(selector: nft.Selector, priority: int, packet: PacketAtHook) -> bool:
    """Return whether the kernel breaks off a rule that asks for the field, whatever the value."""
    mask = nft.EXPECTED | nft.CONFIRMED if selector == nft.CT_STATUS else None
    every = nft.Match(selector, (nft.Interval(0, (1 << 128) - 1),), mask=mask)
    if selector.key_type in nft.SYMBOLS:
        every = nft.Match(selector, tuple(map(nft.Symbol, nft.SYMBOLS[selector.key_type])))
    base = nft.Chain(
        name="base",
        hook=nft.Hook(name=packet.hook, hook_priority=priority),
        rules=(nft.Rule((every, nft.Goto("hit"))),),
    )
    table = table_of(nft.Ruleset(chains=(base, nft.Chain(name="hit", rules=(nft.Rule((nft.Accept(),)),)))))
    return "hit" not in run(table, packet).path


@examples(300)
@given(draws())
def test_the_policy_is_asked_by_the_dimensions_that_its_clauses_name(draws: Draws) -> None:
    """Far end, near end, protocol and ports of the packet that the policy decides about are the view's."""
    view = any_view(draws)
    values = any_values(draws, view)
    opener = opener_of(view.packet(values, MARK))
    ports = (values[SOURCE_PORT], values[PORT]) if view.ports is Ports.PORTED else (None, None)
    assert (opener.peer, opener.local) == (values[FAR_END], values[NEAR_END])
    assert (opener.source_port, opener.destination_port) == ports
    assert (opener.protocol, opener.direction) == (values[PROTOCOL], view.opened)
    assert opener.tracking.value == ("new" if view.direction else view.state.value)
    if view.direction is None and opener.icmp_type is not None:
        assert (opener.icmp_type, opener.hop_limit) == (values[ICMP_TYPE], values[HOP_LIMIT])


@pytest.mark.parametrize("hook", HOOKS)
def test_each_link_is_read_where_it_is_known(hook: str) -> None:
    """What comes in has the link that it comes in by, what goes out the one that it goes out by."""
    view = next(views_of(hook, "eth0", Family.IPV4))
    selector = nft.META_IIFNAME if hook == "prerouting" else nft.META_OIFNAME
    assert view.read(selector, phase_of(hook, 300)) == Settled("eth0")
