"""ICMP errors about sessions, also those that an authentication header hides (§6.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.compiler.compilation import compile_
from sgagent.core.model import TCP
from sgagent.nft import ruleset as nft
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.verify import Outcome
from sgagent.verify.packets import CtDirection
from sgagent.verify.proof import Proof, prove
from sgagent.verify.report import as_json, lines
from sgagent.verify.verified_table import table_of
from tests.words import ACCEPT, group, policy_of, rule

LAYOUT = MarkLayout(0xFFFF0000)
POLICY = policy_of(group("sg-1", rule("web", ACCEPT, TCP, "80", "::/0")), on={"eth0": "sg-1"})
TABLE = compile_(POLICY, LAYOUT, first_state(["eth0"], LAYOUT)).ruleset
RELATED = nft.Match(nft.CT_STATE, (nft.Symbol("related"),))
HIDDEN = nft.Match(nft.META_L4PROTO, (nft.Interval.single(51),))
END = nft.Interval.single(0x20010DB8 << 96 | 0xBEEF)


def with_line(*matches: nft.Match, verdict: nft.Verdict) -> nft.Ruleset:
    """Return the table with a rule before all others that packets meet when they come in."""
    line = nft.Rule((*matches, verdict))
    base = TABLE.chain_by_name["prerouting"]
    changed = {**TABLE.chain_by_name, base.name: replace(base, rules=(line, *base.rules))}
    return replace(TABLE, chains=tuple(changed.values()))


def proof_of(ruleset: nft.Ruleset) -> Proof:
    """Return what comes of a table."""
    return prove(table_of(ruleset), POLICY)


def going(direction: CtDirection) -> nft.Match:
    """Return the match on packets of one direction."""
    return nft.Match(nft.CT_DIRECTION, (nft.Symbol(direction.value),))


@pytest.mark.parametrize("direction", tuple(CtDirection))
@pytest.mark.parametrize("expected", (0, 1))
def test_an_error_behind_an_authentication_header_is_seen(direction: CtDirection, expected: int) -> None:
    """A rule that drops nothing but such errors is refuted, by one with its session."""
    status = nft.Match(nft.CT_STATUS, (nft.Interval.single(expected),), mask=nft.EXPECTED)
    proof = proof_of(with_line(RELATED, going(direction), HIDDEN, status, verdict=nft.Drop()))
    assert proof.counterexample is not None
    packet = proof.counterexample.packet
    assert packet.session is not None
    assert (packet.session.direction, packet.session.is_expected) == (direction, bool(expected))
    shown = as_json(proof, 0.0)["counterexample"]["session"]
    assert (shown["direction"], len(shown["original"]), len(shown["reply"])) == (direction.value, 4, 4)
    assert any(line.startswith("  session") for line in lines(proof, 0.0, "the table"))


def test_a_rule_that_accepts_them_all_is_refuted() -> None:
    """It lets errors about forbidden sessions pass."""
    accepts = with_line(RELATED, going(CtDirection.REPLY), HIDDEN, verdict=nft.Accept())
    assert proof_of(accepts).outcome is Outcome.REFUTED


def test_the_compiled_table_treats_them_as_any_error() -> None:
    """It remembers and counts nothing, as the session is known already."""
    assert proof_of(TABLE).outcome is Outcome.PROVED


@pytest.mark.parametrize("direction", tuple(CtDirection))
def test_an_error_goes_where_its_session_goes(direction: CtDirection) -> None:
    """To any other end it is invalid: no rule for such errors changes anything."""
    to_end = nft.Match(nft.IP6_DADDR, (END,))
    session = nft.ct_tuple(nft.TupleDirection(direction.value), "ip6 daddr")
    of_another = nft.Match(session, (END,), nft.Operator.NOT_EQUAL)
    is_error = RELATED, going(direction), nft.Match(nft.META_L4PROTO, (nft.Interval.single(58),))
    assert proof_of(with_line(*is_error, to_end, of_another, verdict=nft.Drop())).outcome is Outcome.PROVED
    assert proof_of(with_line(*is_error, to_end, verdict=nft.Drop())).outcome is Outcome.REFUTED
