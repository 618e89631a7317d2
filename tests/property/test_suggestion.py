"""Whatever was seen, and whatever the definitions are, a suggestion holds what it states."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sgagent.core.model import (
    CidrBlock,
    Direction,
    Family,
    GroupType,
    NetworkInterface,
    Policy,
    PrefixList,
    SecurityGroup,
    Snapshot,
)
from sgagent.documents import Limits
from sgagent.suggest.conversations import Conversation, Traffic
from sgagent.suggest.far_ends import Measures, Widening
from sgagent.suggest.outcome import suggest

_NUMBERS = st.integers(1, 12)
_PORTED = st.tuples(st.sampled_from((6, 17)), st.sampled_from((22, 53, 80, 443)))
_ASKED = st.one_of(_PORTED, st.sampled_from(((47, None), (132, None))))


def _address(family: Family, number: int) -> int:
    """Return one of few addresses: of members, of a list, and of nobody."""
    base = 0x0A000000 if family is Family.IPV4 else 0x20010DB8 << 96
    return base + number


@st.composite
def _snapshots(draw: st.DrawFn) -> Snapshot:
    kind = draw(st.sampled_from(GroupType))
    names = draw(st.lists(st.sampled_from(("sg-a", "sg-b", "sg-c")), unique=True))
    vpcs = st.sampled_from((None, "vpc-1", "vpc-2"))
    groups = tuple(
        SecurityGroup(security_group_id=name, group_type=kind, vpc_id=draw(vpcs)) for name in sorted(names)
    )
    interfaces = []
    for number in range(1, draw(st.integers(0, 5)) + 1):
        blocks = tuple(
            CidrBlock.around(family, _address(family, number), family.bits)
            for family in draw(st.lists(st.sampled_from(Family), min_size=1, unique=True))
        )
        had = sorted(draw(st.sets(st.sampled_from(names)))) if names else []
        vpcs_of = {group.vpc_id for group in groups if group.security_group_id in had} - {None}
        if len(vpcs_of) < 2:
            interfaces.append(
                NetworkInterface(
                    network_interface_id=f"eni-{number}", addresses=blocks, security_group_ids=tuple(had)
                )
            )
    entries = tuple(CidrBlock.around(Family.IPV4, _address(Family.IPV4, last), 32) for last in (8, 9, 10, 11))
    lists = (PrefixList(prefix_list_id="pl-x", family=Family.IPV4, entries=entries),)
    return Snapshot(
        version="", security_groups=groups, network_interfaces=tuple(interfaces), prefix_lists=lists
    )


@st.composite
def _traffic(draw: st.DrawFn) -> Traffic:
    traffic = Traffic()
    for _ in range(draw(st.integers(0, 25))):
        family = draw(st.sampled_from(Family))
        protocol, port = draw(st.one_of(_ASKED, st.just((1 if family is Family.IPV4 else 58, None))))
        conversation = Conversation(
            site=draw(st.sampled_from(("web/eth0", "app/eth0", "eni-1"))),
            direction=draw(st.sampled_from(Direction)),
            family=family,
            protocol=protocol,
            port=port,
            near=_address(family, draw(_NUMBERS)),
            far=_address(family, draw(_NUMBERS)),
        )
        tally = traffic.tally(conversation, is_refused=draw(st.integers(0, 5)) == 0)
        for _ in range(draw(st.integers(1, 3))):
            client = None if port is None else draw(st.sampled_from((1000, 40_000, 50_000)))
            tally.count(draw(st.integers(0, 1_000)), client, 60)
    return traffic


@st.composite
def _measures(draw: st.DrawFn) -> Measures:
    return Measures(
        least_sessions=draw(st.integers(1, 3)),
        group_from=draw(st.integers(1, 4)),
        network_from=draw(st.integers(1, 4)),
        everyone_from=draw(st.integers(1, 4)),
        widenings=frozenset(draw(st.sets(st.sampled_from(Widening)))),
        networks=draw(st.sampled_from(((), (CidrBlock.parse("10.0.0.0/29"),)))),
    )


_DIRECTIONS = st.sampled_from((tuple(Direction), (Direction.INGRESS,), (Direction.EGRESS,)))


@given(_traffic(), _snapshots(), _measures(), _DIRECTIONS)
def test_every_suggestion_is_proved(
    traffic: Traffic, snapshot: Snapshot, measures: Measures, directions: tuple[Direction, ...]
) -> None:
    """The proof within raises where a session is dropped, or more is admitted than is stated."""
    found = suggest(traffic, snapshot, measures, Limits(), directions=directions)
    widened = {one.widening for rule in found.rules for one in rule.widened}
    assert widened <= measures.widenings
    accepting = [one for one in found.rules if one.rule.policy is Policy.ACCEPT]
    assert all(one.evidence.sessions for one in accepting)
