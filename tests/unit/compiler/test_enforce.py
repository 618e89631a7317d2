"""What one step does about sessions' marks, in every state that a table can be in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import Enforced, Enforcement, MarkClearance, enforce
from sgagent.compiler.port_chains import FEW
from sgagent.core.conditions import Conditions, ControlGroup, LocalUnit
from sgagent.core.memo import Memo
from sgagent.core.model import TCP, Direction, Mode, Policy, SecurityGroupRule
from sgagent.core.policy import SILENT, FlowLogging, ResolvedPolicy
from sgagent.nft import names
from sgagent.nft.marks import UNCACHED, EnforcementState, MarkLayout, Sessions, decode_state
from sgagent.nft.ruleset import Accept, Chain, Log, Rule, Ruleset, SetMark
from sgagent.nft.transactions import AddTable, Delete
from tests.fakes.table import carry_out
from tests.tracing import session_of, walk, walk_reply
from tests.words import ACCEPT, ADVANCED, DROP, IN, OUT, group, packet, policy_of, resolution, rule, snapshot

LAYOUT = MarkLayout(0xFFFF0000)
SMALLEST = MarkLayout(0x7FFF)
FEW_BITS = MarkLayout(0x7FF)

WEB = rule("web", ACCEPT, TCP, "80", "0.0.0.0/0")
SSH = rule("ssh", ACCEPT, TCP, "22", "0.0.0.0/0")
NARROW = policy_of(group("sg-1", WEB))
WIDE = policy_of(group("sg-1", WEB, SSH))
OTHER = policy_of(group("sg-1", SSH))


class Host:
    """A host that steps follow one another on; keeps the table, and what the agent knows of it."""

    def __init__(self, layout: MarkLayout = LAYOUT) -> None:
        """Start without a table."""
        self.layout = layout
        self.table: Ruleset | None = None
        self.foreign: tuple[str, ...] = ()
        self.enforced: Enforced | None = None
        self.flow_logging = SILENT

    def ask(self, policy: ResolvedPolicy, sessions: Sessions = Sessions.REJUDGE) -> Enforcement:
        """Return what a step would do."""
        return enforce(
            policy,
            self.table,
            self.foreign,
            self.layout,
            enforced=self.enforced,
            sessions=sessions,
            flow_logging=self.flow_logging,
        )

    def step(self, policy: ResolvedPolicy, sessions: Sessions = Sessions.REJUDGE) -> Enforcement:
        """Do a step."""
        found = self.ask(policy, sessions)
        self.table = carry_out(found.plan, self.table)
        self.foreign = ()
        assert self.table == found.compiled.ruleset
        self.enforced = found.enforcing(policy)
        return found

    def restart(self) -> None:
        """Forget everything, as an agent that starts again does."""
        self.enforced = None

    @property
    def state(self) -> EnforcementState | None:
        """Return the state that the table keeps."""
        assert self.table is not None
        return decode_state(self.table.chain_by_name[names.STATE_CHAIN].comment, self.layout)

    @property
    def generation(self) -> int | None:
        """Return the generation in force."""
        assert self.state is not None
        return self.state.generation


class TestFirst:
    """No table stands."""

    def test_all_our_bits_are_cleared(self) -> None:
        """Whoever set them, they would be believed; then the first generation begins."""
        found = Host().step(NARROW)
        assert found.clearance == MarkClearance(mask=LAYOUT.mask)
        assert isinstance(found.plan.operations[0], AddTable)
        assert not found.is_interim

    def test_the_state_is_in_the_table(self) -> None:
        """Generation 1, slots in the order of names."""
        host = Host()
        host.step(NARROW)
        assert host.state == EnforcementState(generation=1, slots=("eth0", None, None))

    def test_few_bits(self) -> None:
        """With fewer than twelve bits nothing is remembered, and no step waits for another."""
        host = Host(FEW_BITS)
        assert not host.step(NARROW).is_interim
        assert host.state == UNCACHED
        again = host.step(NARROW)
        assert not again.plan
        assert again.clearance is None


class TestSecond:
    """The table stands as this agent left it."""

    def test_nothing_changed(self) -> None:
        """The second step does nothing at all."""
        host = Host()
        host.step(NARROW)
        found = host.step(NARROW)
        assert not found.plan
        assert found.clearance is None

    @pytest.mark.parametrize(
        ("before", "after", "sessions", "generation"),
        (
            (NARROW, WIDE, Sessions.REJUDGE, 1),
            (WIDE, NARROW, Sessions.REJUDGE, 2),
            (WIDE, NARROW, Sessions.KEEP, 1),
        ),
        ids=("something is added", "something is taken away", "sessions are kept"),
    )
    def test_a_change(
        self, before: ResolvedPolicy, after: ResolvedPolicy, sessions: Sessions, generation: int
    ) -> None:
        """Only what is taken away has sessions judged again, unless they are kept (§6.3)."""
        host = Host()
        host.step(before)
        found = host.step(after, sessions)
        assert (bool(found.plan), found.clearance, host.generation) == (True, None, generation)

    def test_observing_ends(self) -> None:
        """What was only observed was remembered as allowed: it is judged again in any case (§9.1)."""
        observed = resolution(snapshot(group("sg-1", WEB)), mode=Mode.OBSERVE).policy
        for sessions in Sessions:
            host = Host()
            host.step(observed)
            host.step(NARROW, sessions)
            assert host.generation == 2
            host.step(observed, sessions)
            assert host.generation == 2

    def test_a_new_interface(self) -> None:
        """It takes a free slot, whose bits may be old: the generation goes on, sessions kept or not."""
        both = replace(NARROW, interfaces=(*NARROW.interfaces, replace(NARROW.interfaces[0], name="eth1")))
        for sessions in Sessions:
            host = Host()
            host.step(NARROW)
            host.step(both, sessions)
            keeps = sessions is Sessions.KEEP
            assert host.state == EnforcementState(generation=2, slots=("eth0", "eth1", None), keeps=keeps)

    def test_an_interface_that_goes(self) -> None:
        """Its slot is given up, the others stay where they are, and nothing is judged again."""
        both = replace(NARROW, interfaces=(replace(NARROW.interfaces[0], name="a"), *NARROW.interfaces))
        host = Host()
        host.step(both)
        host.step(NARROW)
        assert host.state == EnforcementState(generation=1, slots=(None, "eth0", None))


class TestRestart:
    """The table stands, and the agent knows nothing of it."""

    def test_the_same_policy(self) -> None:
        """The table is taken up as it is: nothing to do, no session is judged again."""
        host = Host()
        host.step(WIDE)
        host.step(NARROW)
        host.restart()
        found = host.step(NARROW)
        assert not found.plan
        assert host.generation == 2

    @pytest.mark.parametrize(("sessions", "generation"), ((Sessions.REJUDGE, 2), (Sessions.KEEP, 1)))
    def test_another_policy(self, sessions: Sessions, generation: int) -> None:
        """What was enforced is not known, so anything may have been taken away, unless sessions are kept."""
        host = Host()
        host.step(WIDE)
        host.restart()
        host.step(NARROW, sessions)
        assert host.generation == generation

    @pytest.mark.parametrize(("told", "generation"), ((Policy.DROP, 1), (Policy.ACCEPT, 2)))
    def test_another_flow_log(self, told: Policy, generation: int) -> None:
        """Drops that are told judge no session again; for accepts that are, the table judges elsewhere."""
        host = Host()
        host.step(NARROW)
        host.restart()
        host.flow_logging = FlowLogging(verdicts=frozenset({told}))
        assert host.step(NARROW).plan
        assert host.generation == generation

    def test_another_policy_with_another_flow_log(self) -> None:
        """Sessions are judged again."""
        host = Host()
        host.flow_logging = FlowLogging(verdicts=frozenset(Policy))
        host.step(NARROW)
        host.restart()
        host.flow_logging = SILENT
        host.step(WIDE)
        assert host.generation == 2

    def test_a_rule_that_does_more_than_log(self) -> None:
        """Where somebody had marks set beside a log statement, no session is believed."""
        host = Host()
        host.step(NARROW)
        host.restart()
        assert host.table is not None
        leaf = host.table.chain_by_name[names.default_chain(IN, "eth0")]
        forged = Rule((SetMark(keep=0, put=0x410000), Log("default/eth0/ingress", 9469)))
        changed = replace(leaf, rules=(forged, *leaf.rules))
        chains = tuple(changed if chain.name == leaf.name else chain for chain in host.table.chains)
        host.table = replace(host.table, chains=chains)
        host.step(NARROW)
        assert host.generation == 2

    def test_sessions_are_kept_no_longer(self) -> None:
        """Sessions that were kept are judged again by the policy in force, once."""
        host = Host()
        for sessions, generation in (
            (Sessions.REJUDGE, 1),
            (Sessions.KEEP, 1),
            (Sessions.KEEP, 1),
            (Sessions.REJUDGE, 2),
            (Sessions.REJUDGE, 2),
        ):
            host.step(NARROW, sessions)
            assert host.generation == generation
            assert not host.step(NARROW, sessions).plan
            host.restart()

    def test_leaving_observe(self) -> None:
        """Every session is judged again, kept or not, as the table tells that it was only observed (§9.1)."""
        observed = resolution(snapshot(group("sg-1", WEB)), mode=Mode.OBSERVE).policy
        for sessions in Sessions:
            host = Host()
            host.step(observed)
            host.restart()
            host.step(NARROW, sessions)
            assert host.generation == 2


class TestDrift:
    """Somebody changed the table."""

    def test_a_rule_that_accepts_all(self) -> None:
        """It is taken away, and what it let in is judged again."""
        host = Host()
        host.step(NARROW)
        assert host.table is not None
        open_to_all = Chain(name="peers/eth0/ingress/ipv4", rules=(Rule((Accept(),)),))
        host.table = replace(
            host.table,
            chains=tuple(open_to_all if one.name == open_to_all.name else one for one in host.table.chains),
        )
        assert host.step(NARROW).plan
        assert host.generation == 2

    def test_what_is_foreign(self) -> None:
        """An object that is none of ours is removed, and sessions are judged again."""
        host = Host()
        host.step(NARROW)
        host.foreign = ("set evil",)
        found = host.step(NARROW)
        assert Delete("set", "evil") in found.plan.operations
        assert host.generation == 2

    def test_the_table_is_gone(self) -> None:
        """Then nobody judged: marks are cleared, and it begins anew."""
        host = Host()
        host.step(WIDE)
        host.step(NARROW)
        host.table = None
        assert host.step(NARROW).clearance == MarkClearance(mask=LAYOUT.mask)
        assert host.generation == 1


def unreadable() -> Host:
    """Return a host whose table has lost its state."""
    host = Host()
    host.step(WIDE)
    assert host.table is not None
    state = replace(host.table.chain_by_name[names.STATE_CHAIN], comment="?")
    chains = tuple(state if one.name == state.name else one for one in host.table.chains)
    host.table = replace(host.table, chains=chains)
    return host


def without(is_lost: Callable[[Chain], bool], *, is_foreign: bool = True) -> Host:
    """Return a host on which another process has altered a chain until it is none of ours, or removed it."""
    host = Host()
    host.step(WIDE)
    assert host.table is not None
    gone = next(one for one in host.table.chains if is_lost(one))
    host.table = replace(host.table, chains=tuple(one for one in host.table.chains if one != gone))
    host.foreign = (f"chain {gone.name}",) if is_foreign else ()
    return host


def unlisted() -> Host:
    """Return a host whose table can't be listed."""
    host = Host()
    host.step(WIDE)
    host.table, host.foreign = None, ("table sgagent",)
    return host


def is_state(chain: Chain) -> bool:
    """Return whether a chain is the one whose comment keeps the state."""
    return chain.name == names.STATE_CHAIN


class TestInterim:
    """The table keeps no state that can be read, or is made anew, with new ranges that are visible late."""

    @pytest.fixture(
        params=(
            (unreadable, False),
            (lambda: without(is_state, is_foreign=False), False),
            (lambda: without(lambda one: one.hook is None and not is_state(one)), True),
            (unlisted, True),
        ),
        ids=(
            "state that can't be read",
            "no state",
            "chain that can't be read",
            "table that can't be listed",
        ),
    )
    def altered(self, request: pytest.FixtureRequest) -> tuple[Host, bool]:
        """Return a host with such a table, and whether one transaction makes it anew."""
        make, is_anew = request.param
        return make(), is_anew

    @pytest.mark.parametrize("sessions", Sessions)
    def test_first_nothing_is_remembered(self, altered: tuple[Host, bool], sessions: Sessions) -> None:
        """Nobody sets a mark while the old ones are cleared, or while a range may let too much pass."""
        host, is_anew = altered
        found = host.step(WIDE, sessions)
        assert (found.plan.is_anew, found.is_interim, found.clearance) == (is_anew, True, None)
        assert host.state == UNCACHED

    def test_then_marks_are_cleared(self, altered: tuple[Host, bool]) -> None:
        """The next step clears all our bits and begins with the first generation, in a table that stands."""
        host, _ = altered
        host.step(WIDE)
        found = host.step(WIDE)
        assert (found.plan.is_anew, found.is_interim) == (False, False)
        assert found.clearance == MarkClearance(mask=LAYOUT.mask)
        assert host.generation == 1
        assert not host.step(WIDE).plan

    def test_few_bits(self, altered: tuple[Host, bool]) -> None:
        """Where nothing can be remembered there is nothing to wait for."""
        host, _ = altered
        host.layout = FEW_BITS
        assert not host.step(WIDE).is_interim
        assert not host.step(WIDE).plan

    def test_another_mask(self) -> None:
        """A state that speaks of other bits says nothing of these."""
        host = Host()
        host.step(WIDE)
        host.layout = SMALLEST
        assert host.step(WIDE).is_interim
        host.step(WIDE)
        assert host.state == EnforcementState(generation=1, slots=("eth0", None, None))

    def test_an_agent_that_dies_between(self) -> None:
        """The interim table says so itself: whoever comes next clears the marks."""
        host = unreadable()
        host.step(WIDE)
        host.restart()
        assert host.step(NARROW).clearance == MarkClearance(mask=LAYOUT.mask)


class TestWrap:
    """Generations are used again (design: marks that carry one are cleared before)."""

    def worn(self) -> Host:
        """Return a host in its last generation."""
        host = Host(SMALLEST)
        host.step(WIDE)
        for _ in range(3):
            host.step(NARROW)
            host.restart()
            host.step(WIDE)
        assert host.generation == SMALLEST.last_generation == 7
        return host

    def test_the_first_comes_again(self) -> None:
        """Only marks of that very generation are cleared, before the plan is applied."""
        host = self.worn()
        found = host.step(NARROW)
        assert host.generation == 1
        assert found.clearance == MarkClearance(
            mask=SMALLEST.generation_mask, tests=(SMALLEST.of_generation(1),)
        )

    def test_so_do_all_others(self) -> None:
        """With the second one, marks of all but the first are cleared, and then none until the last."""
        host = self.worn()
        host.step(NARROW)
        host.restart()
        found = host.step(WIDE)
        assert host.generation == 2
        assert found.clearance == MarkClearance(
            mask=SMALLEST.generation_mask, tests=SMALLEST.of_other_generations(1)
        )
        for policy in (NARROW, OTHER) * 3:
            found = host.step(policy)
            assert (found.clearance is None) is (host.generation != 1)
        assert host.generation == 1

    def test_a_step_that_stays_clears_nothing(self) -> None:
        """Without a new generation no mark is touched."""
        host = self.worn()
        host.step(NARROW)
        assert host.step(WIDE).clearance is None


def bound(*links: str) -> ResolvedPolicy:
    """Return the policy of links of one group."""
    return policy_of(group("sg-1", WEB), on=dict.fromkeys(links, "sg-1"))


class TestSlotsThatChangeHands:
    """Entries may have the bit of having been opened elsewhere than at the interface before (§6.4)."""

    FIRST, SECOND = bound("eth0", "eth1", "eth2"), bound("eth1", "eth2", "eth3")

    def test_one_that_is_given_up_is_free_for_a_step(self) -> None:
        """Until that step the table sets its bit, so sessions of who waits for it are evaluated uncached."""
        host = Host()
        host.step(self.FIRST)
        found = host.step(self.SECOND)
        assert host.state == EnforcementState(generation=1, slots=(None, "eth1", "eth2"))
        assert (found.is_interim, found.clearance) == (True, None)

    @pytest.mark.parametrize("is_known", (True, False))
    def test_then_the_bit_is_cleared(self, *, is_known: bool) -> None:
        """Of all entries that have it, before it means something else; their generation stays theirs."""
        host = Host()
        host.step(self.FIRST)
        host.step(self.SECOND)
        if not is_known:
            host.restart()
        found = host.step(self.SECOND)
        assert host.state == EnforcementState(generation=2, slots=("eth3", "eth1", "eth2"))
        assert found.clearance is not None
        bits = [LAYOUT.elsewhere_bit(0, opened) for opened in Direction]
        assert {(bit, bit) for bit in bits} <= {*found.clearance.tests}
        assert found.clearance.mask & ~LAYOUT.generation_mask == sum(bits)
        assert found.forgets_generations is not is_known
        again = host.step(self.SECOND)
        assert not again.plan
        assert again.clearance is None
        assert not again.is_interim

    def test_a_fourth_interface_waits_for_none(self) -> None:
        """No slot is free, and no step has to follow."""
        host = Host()
        assert not host.step(bound("eth0", "eth1", "eth2", "eth3")).is_interim
        assert not host.step(bound("eth0", "eth1", "eth2", "eth3")).plan

    def test_what_is_newly_bound_knows_no_entry(self) -> None:
        """Those of before were opened over it or not: its slot was free, and no entry has the bit."""
        host = Host()
        host.step(bound("eth0"))
        opener = packet(IN, "192.0.2.9", TCP, 22, link="eth1")
        session = session_of(opener)
        assert session is not None
        assert host.table is not None
        assert walk(host.table, opener, session).accepted
        assert session.mark == sum(LAYOUT.elsewhere_bit(0, opened) for opened in Direction)
        host.step(bound("eth0", "eth1"))
        assert not walk_reply(host.table, opener, session).accepted
        host.step(policy_of(group("sg-1", WEB, SSH), on={"eth0": "sg-1", "eth1": "sg-1"}))
        assert walk_reply(host.table, opener, session).accepted


class TestOlderTable:
    """Somebody loads the table that he saved: marks of later generations are about."""

    @pytest.fixture
    def host(self) -> Host:
        """Return a host in whose second generation a session was allowed, back in the first."""
        host = Host()
        host.step(WIDE)
        saved = host.table
        for policy in (NARROW, WIDE):
            host.step(policy)
        assert host.generation == 2
        host.table = saved
        return host

    @pytest.mark.parametrize("first", (NARROW, WIDE), ids=("at once", "later"))
    def test_a_starting_agent_clears_marks_of_later_ones(self, host: Host, first: ResolvedPolicy) -> None:
        """It does so before the second generation comes again; marks of the first are the table's own."""
        host.restart()
        if first is WIDE:
            host.step(WIDE)
        found = host.step(NARROW)
        assert host.generation == 2
        assert found.clearance is not None
        assert any(test.is_met_by(LAYOUT.generation_bits(2)) for test in found.clearance.tests)
        assert not any(test.is_met_by(LAYOUT.generation_bits(1)) for test in found.clearance.tests)

    @pytest.mark.parametrize("comment", (None, "mask 0xffff0000 generation 1023 slots eth0 / /"))
    def test_an_agent_that_knows_better_believes_no_mark(self, host: Host, comment: str | None) -> None:
        """Nobody knows which generation the rules of such a table put into marks."""
        if comment is not None:
            assert host.table is not None
            state = replace(host.table.chain_by_name[names.STATE_CHAIN], comment=comment)
            chains = [one for one in host.table.chains if one.name != names.STATE_CHAIN]
            host.table = replace(host.table, chains=tuple(sorted([*chains, state], key=lambda one: one.name)))
        assert host.step(NARROW).is_interim
        assert host.state == UNCACHED
        assert host.step(NARROW).clearance == MarkClearance(mask=LAYOUT.mask)
        assert not host.step(NARROW).plan


def test_an_interface_that_comes_back_brings_nobody_back() -> None:
    """What its groups lost while it was not bound is lost: its slot is used anew."""
    host = Host()
    host.step(WIDE)
    assert host.table is not None
    ssh = packet(IN, "10.0.0.9", TCP, 22)
    session = session_of(ssh)
    assert walk(host.table, ssh, session).accepted
    for policy in (ResolvedPolicy(), NARROW):
        host.step(policy)
    assert not walk(host.table, ssh, session).accepted


def test_a_revoked_session_dies_both_ways_and_the_other_lives() -> None:
    """From the first step to the second: SSH is cut, HTTP goes on without being judged late (§6.3)."""
    host = Host()
    host.step(WIDE)
    assert host.table is not None
    ssh, http = packet(IN, "10.0.0.9", TCP, 22), packet(IN, "10.0.0.9", TCP, 80)
    of_ssh, of_http = session_of(ssh), session_of(http)
    assert walk(host.table, ssh, of_ssh).accepted
    assert walk(host.table, http, of_http).accepted
    host.step(NARROW)
    for look in (walk, walk_reply, walk):
        assert not look(host.table, ssh, of_ssh).accepted
        assert look(host.table, http, of_http).accepted


def test_what_a_memo_holds_of_counters_follows_mode_and_flow_log() -> None:
    """A table that is compiled with the memo of another mode, or of another log, is as without it."""
    memo = Memo()
    policy = policy_of(group("sg-1", rule("r", DROP, TCP, "22", "192.0.2.0/24")), on={"eth0": "sg-1"})
    for mode in Mode:
        found = policy.with_judges(partial(replace, mode=mode))
        for flow_logging in (SILENT, FlowLogging(verdicts=frozenset(Policy)), SILENT):
            compiled = compile_(found, LAYOUT, UNCACHED, flow_logging, memo)
            assert compiled == compile_(found, LAYOUT, UNCACHED, flow_logging)


@pytest.mark.parametrize("count", (FEW, FEW + 1))
def test_many_ports_are_looked_up_and_few_are_compared(count: int) -> None:
    """Sets are dear to make in bulk, so few ports take none."""
    ports = ",".join(f"{2 * port}" for port in range(100, 100 + count))
    policy = policy_of(group("sg-1", rule("r", ACCEPT, TCP, ports, "192.0.2.0/24")), on={"eth0": "sg-1"})
    maps = compile_(policy, LAYOUT, UNCACHED, most_lines=0).ruleset.verdict_maps
    assert any(one.name.startswith("ports/") for one in maps) is (count > FEW)


def test_the_second_name_of_the_map_for_answers_is_found_again() -> None:
    """Where rules for units have the answers of sessions judged apart; a restart changes nothing then."""
    conditions = Conditions(local=LocalUnit(name="x.service", group=ControlGroup("/x.service", 7)))

    def policy(members: Sequence[tuple[str, ...]], *more: SecurityGroupRule) -> ResolvedPolicy:
        rules = [
            rule(f"r-{number}", ACCEPT, TCP, str(1000 + number), f"sg-m{number % 3}", direction=OUT)
            for number in range(14)
        ]
        unit = rule("r-unit", ACCEPT, TCP, "443", "sg-m0", direction=OUT)
        groups = [group(f"sg-m{number}", members=some) for number, some in enumerate(members)]
        mine = group("sg-1", *rules, replace(unit, conditions=conditions), *more, group_type=ADVANCED)
        return policy_of(mine, *groups, on={"eth0": "sg-1"})

    before = policy((("10.0.0.5", "10.0.0.6"), ("10.1.0.5",), ("10.2.0.5",)))
    after = policy(
        (("10.0.0.5",), ("10.1.0.5", "10.1.0.6"), ("10.2.0.5",)),
        rule("r-new", DROP, TCP, "1000", "sg-m1", direction=OUT),
    )
    layout = MarkLayout(0xFFFF0000)
    first = enforce(before, None, (), layout)
    table = carry_out(first.plan, None)
    second = enforce(after, table, (), layout, enforced=first.enforcing(before))
    table = carry_out(second.plan, table)
    assert table is not None
    assert f"{names.PEERS}eth0/answers/egress/ipv4/2" in table.verdict_map_by_name
    assert not enforce(after, table, (), layout).plan
