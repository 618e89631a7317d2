"""What other tables do with a packet is read chain by chain, in order, and not guessed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Packet
from sgagent.core.model import CidrBlock, Direction, Family, Policy
from sgagent.nft import ruleset as nft
from sgagent.verify.other_tables import ChainVerdict, Way, final_verdict, verdicts_of_others
from sgagent.verify.verified_table import BaseHook, Unread, VerifiedChain, VerifiedStatement, VerifiedTable

ACCEPT, DROP = Policy.ACCEPT, Policy.DROP


TCP_PORT = nft.Selector("payload", "th dport", nft.KeyType.INET_SERVICE)
ESTABLISHED = (nft.Match(nft.CT_STATE, (nft.Symbol("established"),)), nft.Accept())


def to_port(number: int, verdict: nft.Accept | nft.Drop) -> tuple[VerifiedStatement, ...]:
    """Return a rule about a port."""
    return (nft.Match(TCP_PORT, (nft.Interval(number, number),)), verdict)


class Rules:
    """The tables of others, put together."""

    def __init__(self) -> None:
        """Start without a table."""
        self.chains: dict[str, VerifiedChain] = {}

    def chain(
        self,
        name: str,
        *rules: tuple[VerifiedStatement, ...],
        hook: str = "",
        priority: int = 0,
        drops: bool = False,
    ) -> Rules:
        """Add a chain, like ``inet filter input``, and its rules."""
        base = BaseHook(name=hook, priority=priority, drops=drops) if hook else None
        family = {"ip": Family.IPV4, "ip6": Family.IPV6}.get(name.split(maxsplit=1)[0])
        self.chains[name] = VerifiedChain(name=name, rules=rules, hook=base, family=family)
        return self

    def follow(self, way: Way) -> list[tuple[str, Policy | None]]:
        """Return the chains that see a packet, with their verdicts."""
        return [(one.chain, one.verdict) for one in self.verdicts(way)]

    def verdicts(self, way: Way) -> tuple[ChainVerdict, ...]:
        """Return all that is known of them."""
        return verdicts_of_others(VerifiedTable(chains=self.chains, verdict_maps={}), way)


def way(
    direction: Direction = Direction.INGRESS,
    *,
    number: int = 80,
    family: Family = Family.IPV4,
    decided_by: DecidedBy = DecidedBy.RULE,
    is_dropped: bool = False,
    is_local: bool = True,
) -> Way:
    """Return the way of a TCP packet between this host and a peer."""
    near, far = ("10.0.0.11", "192.0.2.7") if family is Family.IPV4 else ("2001:db8::11", "2001:db8:7::1")
    ends = (far, near) if direction is Direction.INGRESS else (near, far)
    source, destination = (CidrBlock.parse(one).first for one in ends)
    packet = Packet(
        interface="eth0",
        direction=direction,
        family=family,
        source=source,
        destination=destination,
        protocol=6,
        source_port=40_000,
        destination_port=number,
    )
    return Way(packet=packet, decided_by=decided_by, is_dropped=is_dropped, is_local=is_local)


FIREWALL = Rules().chain(
    "inet filter input", ESTABLISHED, to_port(22, nft.Accept()), hook="input", drops=True
)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(("number", "verdict"), ((22, ACCEPT), (80, DROP)))
def test_an_own_firewall_drops_what_no_rule_accepts(family: Family, number: int, verdict: Policy) -> None:
    """By its policy, which stands in no rule."""
    assert FIREWALL.follow(way(number=number, family=family)) == [("inet filter input", verdict)]


def test_a_live_session_is_judged_as_that() -> None:
    """It is established to others as well."""
    assert FIREWALL.follow(way(decided_by=DecidedBy.SESSION)) == [("inet filter input", ACCEPT)]


def test_chains_are_followed_in_the_order_of_the_kernel_up_to_a_drop() -> None:
    """What is behind a drop sees nothing; a jump names the chain in which it was found."""
    rules = (
        Rules()
        .chain("inet a late", hook="input", priority=10)
        .chain("inet b other", to_port(80, nft.Drop()))
        .chain("inet b input", (nft.Jump("inet b other"),), hook="input")
        .chain("inet c early", hook="prerouting", priority=-300)
        .chain("inet c out", hook="output", drops=True)
    )
    assert rules.follow(way()) == [("inet c early", ACCEPT), ("inet b input", DROP)]
    *_, last = rules.verdicts(way())
    assert (last.decided_in, last.is_behind_ours) == ("inet b other", True)
    assert final_verdict(rules.verdicts(way())) is DROP
    assert rules.follow(way(number=81))[-1] == ("inet a late", ACCEPT)


def test_what_sgagent_drops_comes_to_nobody_behind_it() -> None:
    """Inwards that are nearly all, outwards nearly none."""
    rules = (
        Rules()
        .chain("inet f raw", hook="prerouting", priority=-300)
        .chain("inet f input", hook="input")
        .chain("inet f output", hook="output")
        .chain("inet f last", hook="postrouting", priority=400)
    )
    assert [name for name, _ in rules.follow(way(is_dropped=True))] == ["inet f raw"]
    outwards = way(Direction.EGRESS, is_dropped=True)
    assert [name for name, _ in rules.follow(outwards)] == ["inet f output"]
    assert [name for name, _ in rules.follow(replace(outwards, is_dropped=False))] == [
        "inet f output",
        "inet f last",
    ]


def test_our_own_table_is_none_of_others() -> None:
    """Its chains are at the same hooks."""
    rules = Rules().chain("inet sgagent ingress", hook="prerouting", priority=-150, drops=True)
    assert rules.follow(way()) == []
    assert final_verdict(()) is ACCEPT


def test_a_table_of_the_other_family_sees_nothing() -> None:
    """An ``ip6`` table has no part in IPv4."""
    rules = Rules().chain("ip6 f input", hook="input", drops=True).chain("ip f input", hook="input")
    assert rules.follow(way()) == [("ip f input", ACCEPT)]
    assert rules.follow(way(family=Family.IPV6)) == [("ip6 f input", DROP)]


def test_what_is_not_understood_is_said() -> None:
    """Neither accepted nor dropped; what comes behind is read all the same."""
    rules = (
        Rules()
        .chain("ip filter INPUT", (Unread("xt in chain ip filter INPUT"),), hook="input")
        .chain("inet f input", hook="input", priority=5)
    )
    first, second = rules.verdicts(way())
    assert (first.verdict, second.verdict) == (None, ACCEPT)
    assert "xt" in (first.unread or "")
    assert final_verdict((first, second)) is None


@pytest.mark.parametrize(("key", "verdict"), (("iifname", DROP), ("oifname", None)))
def test_a_packet_that_is_forwarded_meets_the_chains_at_forward(key: str, verdict: Policy | None) -> None:
    """A rule about the link on its other side is not guessed."""
    name, selector = ("eth0", nft.META_IIFNAME) if key == "iifname" else ("docker0", nft.META_OIFNAME)
    rules = Rules().chain(
        "inet f forward", (nft.Match(selector, (nft.Symbol(name),)), nft.Drop()), hook="forward"
    )
    assert rules.follow(way(is_local=False)) == [("inet f forward", verdict)]
    assert rules.follow(way()) == []


RARELY = nft.Limit(1, 60)


@pytest.mark.parametrize(
    ("rule", "verdict"),
    (
        ((nft.Match(nft.TCP_FLAGS, (nft.Interval(2, 2),)), nft.Drop()), DROP),
        ((nft.Match(nft.TCP_FLAGS, (nft.Interval(16, 16),), mask=16), nft.Drop()), ACCEPT),
        ((nft.Match(nft.CT_MARK, (nft.Interval(0, 0),)), nft.Drop()), None),
        ((nft.Match(nft.ETHER_DADDR, (nft.Interval(7, 7),)), nft.Drop()), None),
        ((nft.Match(nft.META_SKUID, (nft.Interval(0, 0),)), nft.Drop()), None),
        ((nft.Match(nft.SOCKET_GROUP, (nft.Interval(7, 7),)), nft.Drop()), None),
        ((RARELY, nft.Drop()), None),
        ((RARELY, nft.Log("x", 1)), ACCEPT),
        ((RARELY, nft.Accept()), ACCEPT),
        ((RARELY, RARELY, nft.Drop()), None),
        ((nft.Match(TCP_PORT, (nft.Interval(81, 81),)), RARELY, nft.Drop()), ACCEPT),
    ),
)
def test_what_the_question_does_not_say_is_not_guessed(
    rule: tuple[VerifiedStatement, ...], verdict: Policy | None
) -> None:
    """The first segment of TCP is a SYN; marks, MAC addresses, users and the state of limits are unknown."""
    reads_sender = isinstance(rule[0], nft.Match) and rule[0].selector in (nft.META_SKUID, nft.SOCKET_GROUP)
    asked = way(Direction.EGRESS if reads_sender else Direction.INGRESS)
    assert Rules().chain("inet f c", rule, hook=asked.hooks[-1]).follow(asked) == [("inet f c", verdict)]


def test_a_live_session_has_segments_of_any_kind() -> None:
    """And its entry is confirmed."""
    flags = nft.Match(nft.TCP_FLAGS, (nft.Interval(2, 2),))
    confirmed = nft.Match(nft.CT_STATUS, (nft.Interval(nft.CONFIRMED, nft.CONFIRMED),), mask=nft.CONFIRMED)
    for test, verdict in ((flags, None), (confirmed, DROP)):
        rules = Rules().chain("inet f input", (test, nft.Drop()), hook="input")
        assert rules.follow(way(decided_by=DecidedBy.SESSION)) == [("inet f input", verdict)]
