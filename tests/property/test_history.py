"""What is enforced depends on what is desired and not on how it came about; live sessions follow at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import attrgetter

from hypothesis import given

from sgagent.compiler.base_chains import POSTROUTING, PREROUTING
from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import Enforced, Enforcement, MarkClearance, enforce
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft import names
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import EnforcementState, MarkLayout, decode_state
from sgagent.nft.ruleset import CT_MARK, Accept, Chain, Goto, Match, Rule, Ruleset
from tests.changes import changed
from tests.draws import Draws
from tests.fakes.dataplane import FakeDataplane
from tests.generators import Case, described, random_packets
from tests.strategies import cases, draws, examples, noted_case
from tests.tracer import Session
from tests.tracing import session_of, walk, walk_reply
from tests.words import ACCEPT, resolution

LAYOUT = MarkLayout(0xFFFF0000)
SMALLEST = MarkLayout(0x7FFF)
STEPS = 4


@dataclass
class Host:
    """A data plane, the agent's one memory, and sessions that live on it."""

    layout: MarkLayout = LAYOUT
    dataplane: FakeDataplane = field(default_factory=FakeDataplane)
    enforced: Enforced | None = None
    sessions: list[tuple[Packet, Session]] = field(default_factory=list)

    def step(self, policy: ResolvedPolicy) -> Enforcement:
        """Enforce a policy; another step follows at once where an interface waits for a slot."""
        observed = self.dataplane.observe()
        found = enforce(policy, observed.ruleset, observed.foreign, self.layout, enforced=self.enforced)
        if found.clearance:
            self._clear(found.clearance)
        self.dataplane.apply(found.plan)
        self.dataplane.remove(found.plan)
        self.enforced = found.enforcing(policy)
        is_slot_due = found.is_interim and found.state.generation is not None
        return self.step(policy) if is_slot_due else found

    def _clear(self, clearance: MarkClearance) -> None:
        self.dataplane.marks = [session.mark for _, session in self.sessions]
        self.dataplane.clear_marks(clearance.mask, clearance.tests)
        for (_, session), mark in zip(self.sessions, self.dataplane.marks, strict=True):
            session.mark = mark

    def settle(self, policy: ResolvedPolicy) -> None:
        """Enforce a policy until nothing is left to do."""
        for _ in range(3):
            if not self.step(policy).plan:
                return
        raise AssertionError("the third step still finds something to do")

    @property
    def table(self) -> Ruleset:
        """Return what stands."""
        assert self.dataplane.ruleset is not None
        return self.dataplane.ruleset

    def compiled(self, policy: ResolvedPolicy) -> Ruleset:
        """Return what a policy compiles to, with the state and the names of maps that the table has."""
        maps = self.table.verdict_map_by_name
        renamed = frozenset(names.first_map(name) for name in maps if names.first_map(name) != name)
        return compile_(policy, self.layout, self.state, renamed=renamed).ruleset

    @property
    def state(self) -> EnforcementState:
        """Return the state that the table keeps."""
        found = decode_state(self.table.chain_by_name[names.STATE_CHAIN].comment, self.layout)
        assert found is not None
        return found

    def judge_sessions(self, policy: ResolvedPolicy, draws: Draws) -> None:
        """Let a packet of each live session come by, either way, and hold its fate to the specification."""
        for opener, session in self.sessions:
            look = draws.choice((walk, walk_reply))
            allowed = evaluate(policy, opener).verdict is ACCEPT
            assert look(self.table, opener, session).accepted is allowed, described(opener)

    def open_sessions(self, policy: ResolvedPolicy, draws: Draws, number: int) -> None:
        """Open new sessions, allowed or not."""
        for opener in random_packets(draws, policy, number):
            session = session_of(opener)
            if session is not None:
                walk(self.table, opener, session)
                self.sessions.append((opener, session))


def history(draws: Draws, case: Case) -> list[ResolvedPolicy]:
    """Return policies that follow one another by small changes of definitions and bindings."""
    on = {hand.interface: ",".join(hand.security_group_ids) for hand in case.bindings}
    definitions: Snapshot = case.snapshot
    policies = [resolution(definitions, on=on).policy]
    while len(policies) < STEPS:
        definitions = changed(draws, definitions)
        bound = {link: on[link] for link in sorted(draws.sample(list(on), draws.randint(1, len(on))))}
        found = resolution(definitions, on=bound if draws.chance(30) else on)
        if not found.errors:
            policies.append(found.policy)
    return policies


@examples(50)
@given(cases(interfaces=("eth0", "eth1", "eth2", "eth3"), most_rules=8), draws())
def test_any_history_ends_where_the_last_policy_leads(case: Case, draws: Draws) -> None:
    """After each step the table is what policy and state make it, and a second step does nothing.

    Each session lives only if the policy in force would let it be opened (§6.3). That holds over changes that
    judge nothing again, over interfaces that come and go, and over restarts.
    """
    host = Host()
    for policy in history(draws, case):
        if draws.chance(20):
            host.enforced = None
        host.step(policy)
        assert host.table == host.compiled(policy)
        host.judge_sessions(policy, draws)
        host.open_sessions(policy, draws, 15)
        host.judge_sessions(policy, draws)
        again = host.step(policy)
        assert not again.plan
        assert again.clearance is None


@examples(20)
@given(cases(interfaces=("eth0", "eth1"), most_rules=8), draws())
def test_the_way_there_only_shows_in_the_state(case: Case, draws: Draws) -> None:
    """Going straight to the last policy, by way of all, of none, or of each twice: the same table."""
    policies = history(draws, case)
    last = policies[-1]
    ways = (
        [last],
        policies,
        [*policies[::-1], last],
        [one for policy in policies for one in (policy, policy)],
        [one for policy in policies for one in (policy, ResolvedPolicy())] + [last],
    )
    tables = []
    for way in ways:
        host = Host()
        for policy in way:
            host.step(policy)
        assert host.table == host.compiled(last)
        table = compile_(last, LAYOUT, host.state).ruleset
        chains = tuple(chain for chain in table.chains if not _remembers(chain))
        tables.append(replace(table, chains=chains))
    assert all(table == tables[0] for table in tables)


_KEEPERS = (names.STATE_CHAIN, PREROUTING.name, POSTROUTING.name)
"""The base chains are among them where one link is bound."""


def _remembers(chain: Chain) -> bool:
    """Return whether a chain depends on the generation or on slots, as a limited rule's does."""
    leading = ("ingress", "egress", "tracked", "accept", names.ELSEWHERE_CHAIN)
    statements = (statement for rule in chain.rules for statement in rule.statements)
    asks = any(isinstance(one, Match) and one.selector == CT_MARK for one in statements)
    return asks or chain.name in _KEEPERS or chain.name.split("/")[0] in leading


@examples(40)
@given(cases(interfaces=("eth0", "eth1"), most_rules=8), draws())
def test_generations_that_wrap_revive_nobody(case: Case, draws: Draws) -> None:
    """Sessions asleep since a generation long ago are not taken for allowed when its number comes again."""
    host = Host(layout=SMALLEST)
    policies = history(draws, case)
    bound = [one.name for one in policies[0].interfaces]
    worn = EnforcementState(
        generation=SMALLEST.last_generation - 1, slots=(bound[0], bound[1] if bound[1:] else None, None)
    )
    host.dataplane.apply(make_plan(compile_(policies[0], SMALLEST, worn).ruleset, None))
    ours = [SMALLEST.generation_bits(generation) | 0x3F for generation in (1, 2, 3, 4, 5)]
    for opener in random_packets(draws, policies[0], 40):
        session = session_of(opener, mark=draws.choice(ours) | 0xABC8000)
        if session is not None:
            host.sessions.append((opener, session))
    for policy in (*policies[:2], *policies):
        host.enforced = None
        host.step(policy)
        awake = host.sessions
        host.sessions = draws.sample(awake, len(awake) // 4)
        host.judge_sessions(policy, draws)
        host.sessions = awake
        assert all(session.mark & ~SMALLEST.mask == 0xABC8000 for _, session in awake)
    host.judge_sessions(policies[-1], draws)


def open_a_leaf(table: Ruleset) -> Ruleset | None:
    """Return the table after somebody let a rule accept all."""
    leaf = next((chain for chain in table.chains if chain.name.startswith("default/")), None)
    if leaf is None:
        return table
    return with_chain(table, replace(leaf, rules=(Rule((Accept(),)),)))


def forget_the_state(table: Ruleset) -> Ruleset | None:
    """Return the table after somebody replaced the chain that keeps the state."""
    return with_chain(table, Chain(name=names.STATE_CHAIN, comment="mine now"))


def lead_to_the_state(table: Ruleset) -> Ruleset | None:
    """Return the table after somebody added a chain that leads to the one that keeps the state."""
    added = Chain(name="evil", rules=(Rule((Goto(names.STATE_CHAIN),)),))
    return replace(table, chains=tuple(sorted((*table.chains, added), key=attrgetter("name"))))


def empty_all(table: Ruleset) -> Ruleset | None:
    """Return the table after somebody emptied every chain."""
    return replace(table, chains=tuple(replace(chain, rules=()) for chain in table.chains))


def remove_all(_: Ruleset) -> Ruleset | None:
    """Return no table, as after ``nft flush ruleset``."""
    return None


def with_chain(table: Ruleset, chain: Chain) -> Ruleset:
    """Return the table with one chain replaced."""
    return replace(table, chains=tuple(chain if one.name == chain.name else one for one in table.chains))


DRIFTS: tuple[Callable[[Ruleset], Ruleset | None], ...] = (
    open_a_leaf,
    forget_the_state,
    lead_to_the_state,
    empty_all,
    remove_all,
)


@examples(40)
@given(cases(interfaces=("eth0", "eth1"), most_rules=8), draws())
def test_what_others_do_to_the_table_is_undone(case: Case, draws: Draws) -> None:
    """Whatever was changed, the next step repairs it, and what slipped in meanwhile is judged again."""
    host = Host()
    for policy in history(draws, case)[:2]:
        host.settle(policy)
        host.open_sessions(policy, draws, 10)
        host.dataplane.ruleset = draws.choice(DRIFTS)(host.table)
        if host.dataplane.ruleset is not None:
            host.open_sessions(policy, draws, 10)
        host.step(policy)
        host.judge_sessions(policy, draws)
        host.settle(policy)
        host.judge_sessions(policy, draws)
        assert host.table == host.compiled(policy)


@examples(20)
@given(draws())
def test_strangers_follow_one_another(draws: Draws) -> None:
    """Policies that have nothing in common replace one another in one transaction each."""
    host = Host()
    for _ in range(3):
        links = tuple(sorted(draws.sample(("eth0", "eth1", "wan", "br-0", "x"), draws.randint(1, 4))))
        policy = noted_case(draws, interfaces=links, most_rules=8).policy
        host.step(policy)
        host.judge_sessions(policy, draws)
        host.open_sessions(policy, draws, 20)
        assert not host.step(policy).plan
