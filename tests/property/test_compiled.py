"""The compiled table decides as the specification does."""

from __future__ import annotations

from sgagent.core.compiler import compile_
from sgagent.core.marks import MarkLayout, first_state
from sgagent.core.model import ALL_PROTOCOLS
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.ruleset import Ruleset
from tests.tracing import walk
from tests.words import ACCEPT, IN, group, packet, policy_of, rule

LAYOUT = MarkLayout(0xFFFF0000)


def compiled(policy: ResolvedPolicy) -> Ruleset:
    """Return the table of a host that starts anew."""
    state = first_state([interface.name for interface in policy.interfaces], LAYOUT)
    return compile_(policy, LAYOUT, state).ruleset


def test_a_part_of_ipv6_does_not_open_the_rest() -> None:
    """A rule for ``::/96``, whose numbers are those of all of IPv4, lets nobody else of IPv6 in."""
    table = compiled(policy_of(group("sg-1", rule("r1", ACCEPT, ALL_PROTOCOLS, "", "::/96"))))
    assert walk(table, packet(IN, "::7", 47)).accepted
    assert not walk(table, packet(IN, "2001:db8::7", 47)).accepted
