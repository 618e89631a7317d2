"""Patterns against every short name, and the compiled dispatch against the policy (§12.5)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import given, settings, strategies as st

from sgagent.compiler.compilation import compile_
from sgagent.core.binding import HandBinding, HostFacts, Link, bind
from sgagent.core.link_patterns import LinkPattern, is_pattern
from sgagent.core.model import Direction
from sgagent.core.policy import LOOPBACK, ResolvedPolicy
from sgagent.core.resolve import resolve
from sgagent.nft import names
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.ruleset import Accept, Goto, LookUp, Match, Ruleset, Symbol, Verdict
from sgagent.verify import Outcome
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import table_of
from tests.unit.core.test_binding import link
from tests.words import PLATFORM, group, snapshot

NAMES = tuple("".join(signs) for length in range(1, 6) for signs in product("lo", repeat=length))
LAYOUT = MarkLayout(0xFFFF0000)
DEFINITIONS = snapshot(group("sg-1"))
PATTERNS = st.text("lo", min_size=1, max_size=3).map("{}*".format)


@st.composite
def drawn_patterns(draw: st.DrawFn) -> LinkPattern:
    """Draw a pattern that may mean some link, with exceptions."""
    exclude = draw(st.sets(PATTERNS | st.sampled_from(NAMES), max_size=3))
    return LinkPattern(text=draw(PATTERNS), exclude=tuple(sorted(exclude)))


@given(drawn_patterns(), drawn_patterns())
def test_patterns_overlap_where_a_name_is_meant_by_both(one: LinkPattern, other: LinkPattern) -> None:
    """One that is excluded by its very name counts, too: a longer one is meant by both."""
    nameless = [replace(each, exclude=tuple(filter(is_pattern, each.exclude))) for each in (one, other)]
    meant = [name for name in NAMES if all(each.matches(name) for each in nameless)]
    assert one.overlaps(other) is other.overlaps(one) is bool(meant)


def draw_link(draw: st.DrawFn, name: str, others: tuple[str, ...]) -> Link:
    """Draw a link: it may be a bridge, a VRF, and a port of another link or of one that is not listed."""
    made = replace(
        link(name, is_loopback=name == LOOPBACK), kind=draw(st.sampled_from((None, "bridge", "vrf")))
    )
    master = draw(st.none() | st.sampled_from((*others, "gone")))
    if made.is_loopback or master in (None, name, LOOPBACK):
        return made
    return replace(made, master=master, master_kind=draw(st.sampled_from(("bridge", "vrf", None))))


@st.composite
def policies(draw: st.DrawFn) -> tuple[ResolvedPolicy, tuple[str, ...]]:
    """Draw the policy of a host with patterns, and its links."""
    hands = [
        HandBinding(interface=text, exclude=tuple(sorted(exclude)), security_group_ids=("sg-1",))
        for text, exclude in draw(
            st.dictionaries(
                PATTERNS | st.sampled_from(NAMES),
                st.sets(PATTERNS | st.sampled_from(NAMES), max_size=3),
                min_size=1,
                max_size=4,
            )
        ).items()
        if text != LOOPBACK
    ]
    links = tuple(draw(st.sets(st.sampled_from(NAMES), max_size=5)))
    facts = HostFacts(links=tuple(draw_link(draw, name, links) for name in links))
    bound = replace(bind(DEFINITIONS, hands, facts, automatically=True), is_followed=draw(st.booleans()))
    found = resolve(DEFINITIONS, bound, PLATFORM, unbound_closed=draw(st.booleans()))
    return found.policy, links


def dispatched(table: Ruleset, hook: str, name: str) -> Verdict | None:
    """Return where the base chain sends the packets of a link."""
    for rule in table.chain_by_name[hook].rules:
        match rule.statements:
            case (LookUp(_, verdict_map),):
                elements = table.verdict_map_by_name[verdict_map].elements
                found = [one.verdict for one in elements if one.key == (Symbol(name),)]
                if found:
                    return found[0]
            case (Match() as match, verdict) if match.has_word(name):
                return verdict  # type: ignore[return-value] # the last statement of such a rule
            case (Goto() as verdict,):
                return verdict
    return None


@given(policies())
def test_a_link_is_judged_by_what_means_it_or_closed(drawn: tuple[ResolvedPolicy, tuple[str, ...]]) -> None:
    """The compiled table sends every name where the policy says: to what means it, or where all is closed."""
    policy, links = drawn
    table = compile_(policy, LAYOUT, first_state([one.name for one in policy.bound], LAYOUT)).ruleset
    bound = {one.name for one in policy.interfaces}
    for name in NAMES:
        judge = policy.judge(name)
        if name == LOOPBACK:
            assert judge is None
        elif name in policy.lower_devices:
            assert judge is policy.judge(policy.lower_devices[name]) is not None
        elif name not in bound:
            meant = policy.meant(name)
            assert judge is meant or (name not in links and judge is policy.guard)
        if policy.patterns:
            for hook, direction in (("prerouting", Direction.INGRESS), ("postrouting", Direction.EGRESS)):
                found = dispatched(table, hook, name)
                passing = (None, Accept(), Goto(names.ELSEWHERE_CHAIN), Goto(names.UNBOUND_CHAIN))
                judging = (Goto(names.entry_chain(direction, judge.name)),) if judge else passing
                assert found in judging


@settings(max_examples=settings().max_examples // 4)  # a proof compares hundreds of cells for each link
@given(policies())
def test_the_verifier_proves_tables_with_patterns(drawn: tuple[ResolvedPolicy, tuple[str, ...]]) -> None:
    """For every name, those included that nobody has yet."""
    policy, _ = drawn
    table = compile_(policy, LAYOUT, first_state([one.name for one in policy.bound], LAYOUT)).ruleset
    assert prove(table_of(table), policy).outcome is Outcome.PROVED
