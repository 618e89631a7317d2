"""The proof of limits by source: the meter has to be the one that the rule demands (§13.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sgagent.compiler.compilation import compile_
from sgagent.core.conditions import Conditions, SourceLimit
from sgagent.core.model import TCP, Mode, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft import ruleset as nft
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.verify import Outcome
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import table_of
from tests.words import ACCEPT, group, policy_of, rule

LIMIT = SourceLimit(rate=10, seconds=60, burst=20)
LEAF, OVER, WITHIN = "rule/eth0/r-ssh", "over_limit/eth0/r-ssh", "within/eth0/r-ssh"


def limited(limit: SourceLimit | None = LIMIT) -> ResolvedPolicy:
    """Return a policy with a rule that has a limit."""
    one = replace(rule("r-ssh", ACCEPT, TCP, "22", "any"), conditions=Conditions(limit=limit))
    return policy_of(group("sg-1", one), on={"eth0": "sg-1"})


def compiled(policy: ResolvedPolicy, mask: int = 0xFFFF0000) -> nft.Ruleset:
    """Return its table."""
    layout = MarkLayout(mask)
    return compile_(policy, layout, first_state(("eth0",), layout)).ruleset


def outcome(table: nft.Ruleset, policy: ResolvedPolicy | None = None) -> Outcome:
    """Return what comes of the proof that a table enforces a policy."""
    return prove(table_of(table), policy or limited()).outcome


def with_rules(
    name: str, change: Callable[[list[nft.Rule]], list[nft.Rule]], mask: int = 0xFFFF0000
) -> nft.Ruleset:
    """Return the table with other rules in a chain."""
    table = compiled(limited(), mask)
    chains = (
        replace(one, rules=tuple(change(list(one.rules)))) if one.name == name else one
        for one in table.chains
    )
    return replace(table, chains=tuple(chains))


def with_meters(**fields: object) -> nft.Ruleset:
    """Return the table with other meters."""

    def change(one: nft.Rule) -> nft.Rule:
        statements = (replace(s, **fields) if isinstance(s, nft.Meter) else s for s in one.statements)  # type: ignore[arg-type] # the caller names fields
        return nft.Rule(tuple(statements))

    return with_rules(LEAF, lambda rules: list(map(change, rules)))


def with_sets(**fields: object) -> nft.Ruleset:
    """Return the table with other sets of buckets."""
    table = compiled(limited())
    return replace(table, meter_sets=tuple(replace(one, **fields) for one in table.meter_sets))  # type: ignore[arg-type] # the same


def without_flags(one: nft.Rule) -> nft.Rule:
    """Return a rule that compares no flags of TCP."""
    is_flags = (isinstance(s, nft.Match) and s.selector == nft.TCP_FLAGS for s in one.statements)
    return nft.Rule(tuple(s for s, drops in zip(one.statements, is_flags, strict=True) if not drops))


MASKS = (0xFFFF0000, 0x1)
"""With slots, and without (§6.4)."""


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("mode", tuple(Mode))
def test_a_compiled_limit_is_proved(mode: Mode, mask: int) -> None:
    """In both modes: where a link is only observed, nothing is dropped (§9.1)."""
    policy = limited().with_judges(lambda judge: replace(judge, mode=mode))
    assert outcome(compiled(policy, mask), policy) is Outcome.PROVED


@pytest.mark.parametrize(
    "altered",
    (
        with_meters(rate=11),
        with_meters(seconds=1),
        with_meters(burst=21),
        with_meters(selector=nft.IP_DADDR),
        with_sets(size=64),
        with_sets(timeout=121),
        with_rules(LEAF, lambda rules: rules[:1] + rules[2:]),  # a session that nobody answers uses it up
        with_rules(LEAF, lambda rules: rules[1:]),  # a live session uses it up
        with_rules(LEAF, lambda rules: rules[:2] + rules[3:]),  # so does one behind authentication headers
        with_rules(LEAF, lambda rules: rules[:3] + rules[4:]),  # each segment uses it up
        with_rules(LEAF, lambda rules: [*rules[:3], without_flags(rules[3]), *rules[4:]]),  # no SYN does
        with_rules(LEAF, lambda rules: rules[:4] + rules[5:]),  # IPv4 has no limit
        with_rules(LEAF, lambda rules: rules[:5] + rules[6:]),  # IPv6 has none
        with_rules(LEAF, lambda rules: rules[:4] + rules[6:] + rules[4:6]),  # it is never asked
        with_rules(LEAF, lambda rules: [*rules[:5], rules[4], *rules[5:]]),  # a packet is counted twice
        with_rules("prerouting", lambda rules: rules[:1] + rules[2:]),  # a SYN passes by the mark
        with_rules(
            OVER, lambda rules: [nft.Rule((*rules[0].statements[:-1], nft.Goto("accept/eth0/ingress")))]
        ),
        with_rules(OVER, lambda _: [nft.Rule((nft.Drop(),))]),  # nothing is counted
        with_rules(WITHIN, lambda rules: [nft.Rule((*rules[0].statements[:-1], nft.Drop()))]),
        compiled(limited(None)),
        compiled(limited(replace(LIMIT, rate=9))),
    ),
)
def test_any_other_limit_is_refuted(altered: nft.Ruleset) -> None:
    """Rate, burst, key, bounds, whom it is about and what becomes of the others: all are demanded."""
    assert outcome(altered) is Outcome.REFUTED


def test_a_bucket_of_another_limit_is_refuted_by_name() -> None:
    """It counts for its source in the place of the rule's limit."""
    said = "10.0.0.3 with limit rate over 10000/second burst 5000 packets"
    found = prove(table_of(with_sets(strange_bucket=said)), limited())
    assert found.outcome is Outcome.REFUTED
    assert found.counterexample is not None
    assert f"in it {said}" in found.counterexample.found.counters[0]


def test_a_limit_that_nobody_demands_is_refuted() -> None:
    """It drops what the policy accepts."""
    assert outcome(compiled(limited()), limited(None)) is Outcome.REFUTED


def test_a_set_that_is_not_there_leaves_it_open() -> None:
    """Nothing is guessed of what can't be read."""
    found = prove(table_of(replace(compiled(limited()), meter_sets=())), limited())
    assert found.outcome is Outcome.UNKNOWN
    assert all(one.startswith("set limit/") for one in found.unsupported)


def test_a_counterexample_says_what_was_found() -> None:
    """The packet, and the meter that it met."""
    found = prove(table_of(with_meters(rate=11)), limited()).counterexample
    assert found is not None
    assert found.expected.verdict is Policy.ACCEPT
    assert "within 11 in 60 s" in found.found.counters[0]


def with_test(mask: int, *matches: nft.Match) -> nft.Ruleset:
    """Return the table with other matches on sessions that nobody has answered, and that use nothing up."""
    return with_rules(
        LEAF,
        lambda rules: [
            rules[0],
            *(nft.Rule((*matches, *one.statements[-2:])) for one in rules[1:4]),
            *rules[4:],
        ],
        mask,
    )


def status(bit: int, value: int, operator: nft.Operator = nft.Operator.EQUAL) -> nft.Match:
    """Return the match on a bit of the status of sessions."""
    return nft.Match(nft.CT_STATUS, (nft.Interval.single(value),), operator, mask=bit)


def mark(bit: int, value: int = 0) -> nft.Match:
    """Return the match on a bit of the mark of sessions."""
    return nft.Match(nft.CT_MARK, (nft.Interval.single(value),), mask=bit)


CONFIRMED = status(nft.CONFIRMED, nft.CONFIRMED)
HERE = mark(1 << 22)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "altered",
    (
        status(nft.CONFIRMED, 0),
        status(nft.CONFIRMED, nft.CONFIRMED, nft.Operator.NOT_EQUAL),
        status(nft.EXPECTED, nft.EXPECTED),
        status(nft.EXPECTED, 0),
        status(nft.EXPECTED | nft.CONFIRMED, nft.CONFIRMED | nft.EXPECTED),
    ),
)
def test_another_test_of_the_status_is_refuted(mask: int, altered: nft.Match) -> None:
    """Only what an earlier packet opened uses nothing up."""
    matches = (altered, HERE) if mask == MASKS[0] else (altered,)
    assert outcome(with_test(mask, *matches)) is Outcome.REFUTED


@pytest.mark.parametrize(
    "matches", ((CONFIRMED,), (HERE,), (CONFIRMED, mark(1 << 23)), (CONFIRMED, mark(1 << 22, 1 << 22)))
)
def test_another_test_of_the_mark_is_refuted(matches: tuple[nft.Match, ...]) -> None:
    """What was opened over another link opens a session here (§6.4)."""
    assert outcome(with_test(MASKS[0], *matches)) is Outcome.REFUTED
    assert outcome(with_test(MASKS[0], HERE, CONFIRMED)) is Outcome.PROVED


@pytest.mark.parametrize("mask", (0x2, 0x108, None))
def test_other_bits_of_the_status_are_not_understood(mask: int | None) -> None:
    """Whether somebody answered, or NAT is set up, is in no packet that is looked at."""
    match = nft.Match(nft.CT_STATUS, (nft.Interval.single(8),), mask=mask)
    assert outcome(with_test(MASKS[1], match)) is Outcome.UNKNOWN


def test_the_status_in_a_map_is_not_understood() -> None:
    """A key has all its bits."""
    found = nft.LookUp((nft.CT_STATUS,), "by-status")
    one = nft.VerdictMap(
        name="by-status",
        key_types=(nft.KeyType.CT_STATUS,),
        elements=(nft.Element((nft.Interval.single(0x188),), nft.Goto(WITHIN)),),
    )
    table = with_rules(LEAF, lambda rules: [rules[0], nft.Rule((found,)), *rules[1:]])
    assert outcome(replace(table, verdict_maps=(*table.verdict_maps, one))) is Outcome.UNKNOWN


def test_a_counterexample_says_that_the_session_was_there() -> None:
    """So that a person can send it: after the packet that opened it."""
    found = prove(table_of(with_rules(LEAF, lambda rules: rules[:1] + rules[2:])), limited()).counterexample
    assert found is not None
    assert found.packet.session is not None
    assert found.packet.session.is_confirmed
