"""What becomes of packets that the kernel tells of."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sgagent.agent.flowlog.flow import Flow, FlowEnd, FlowRecord, FlowsLeftOut, sentence
from sgagent.agent.flowlog.flowlog import RECKONED_SECONDS, FlowLog, Loss
from sgagent.compiler.compilation import compile_
from sgagent.core.addresses import AddressSet
from sgagent.core.clauses import DecidedBy
from sgagent.core.conditions import Conditions, LocalUnit
from sgagent.core.counter_keys import CounterKey, DefaultCounter
from sgagent.core.model import TCP, Direction, Mode, Policy, Snapshot
from sgagent.core.policy import FlowLogging, ResolvedPolicy
from sgagent.core.resolve import Exemptions, closed_interface
from sgagent.dataplane.nflog import LoggedPacket
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.ports import CounterValue
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.unit.agent.flowlog.flows import DEFAULT, ipv4, logged, ports
from tests.words import ACCEPT, DROP, OUT, blocks, group, policy_of, resolution, rule, rule_counter, snapshot

LAYOUT = MarkLayout(0xFFFF0000)
WEB = group(
    "sg-1",
    rule("web", ACCEPT, TCP, "80", "0.0.0.0/0"),
    rule("no-ssh", DROP, TCP, "22", "203.0.113.0/24", priority=5),
)
POLICY = policy_of(WEB)
SYN = ipv4("203.0.113.9", "10.0.0.11", 6, ports(40_000, 3306))


@dataclass(slots=True)
class Paper:
    """A writer in memory, which may be out of ink."""

    entries: list[FlowRecord] = field(default_factory=list)
    is_full: bool = False

    def write(self, entries: Sequence[FlowRecord]) -> None:
        """Take entries."""
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.entries += entries


class Told:
    """A flow log that follows a table, and what the kernel tells it."""

    def __init__(self, policy: ResolvedPolicy = POLICY, definitions: Snapshot | None = None) -> None:
        """Follow the table of a policy."""
        self.clock, self.log, self.paper = FakeClock(), FakeLog(), Paper()
        self.flow_log = FlowLog(
            self.clock, self.log, logging=FlowLogging(verdicts=frozenset(Policy)), writer=self.paper
        )
        self.sequence = 0
        self.follow(policy, definitions)

    def follow(self, policy: ResolvedPolicy, definitions: Snapshot | None = None) -> None:
        """Let it know of another table."""
        state = first_state([interface.name for interface in policy.interfaces], LAYOUT)
        counters = compile_(policy, LAYOUT, state).counters
        totals = {key: CounterValue(packets=0, bytes=0) for key in counters.values()}
        self.flow_log.follow(policy, counters, definitions, lambda: totals)

    def packet(
        self, head: bytes = SYN, prefix: str = DEFAULT, *, is_leaving: bool = False, lost: int = 0
    ) -> LoggedPacket:
        """Return the next packet."""
        self.sequence += lost + 1
        return logged(head, self.sequence - 1, prefix=prefix, is_leaving=is_leaving)

    def tell(self, *packets: LoggedPacket) -> tuple[Flow, ...]:
        """Take in packets, and return the drops that are remembered."""
        self.flow_log.add(packets)
        return self.flow_log.drops

    def reckon(self, totals: Mapping[CounterKey, CounterValue]) -> None:
        """Let it know of newer totals, a while after those before."""
        self.clock.pass_seconds(RECKONED_SECONDS)
        self.flow_log.reckon(totals)

    def fault(self) -> str | None:
        """Return what the status says."""
        return self.flow_log.fault

    def lost(self) -> Mapping[Loss, int]:
        """Return what was lost, and where."""
        _, lost = self.flow_log.tally()
        return {loss: count for loss, count in lost.items() if count}


def test_a_drop_has_its_ends_and_what_decided() -> None:
    """By the default, or by a rule with its group and priority."""
    told = Told()
    first, second = told.tell(told.packet(), told.packet(prefix="rule/eth0/no-ssh"))
    assert (first.interface, first.direction, first.verdict) == ("eth0", Direction.INGRESS, Policy.DROP)
    assert (first.decided_by, first.rule_id, first.mode) == (DecidedBy.DEFAULT, None, Mode.ENFORCE)
    assert first.source == FlowEnd(address="203.0.113.9", port=40_000)
    assert (first.destination.address, first.destination.port, first.bytes) == ("10.0.0.11", 3306, 40)
    assert (second.decided_by, second.rule_id) == (DecidedBy.RULE, "no-ssh")
    assert (second.security_group_id, second.priority) == ("sg-1", 5)
    assert (first.number, second.number, first.seen_at) == (1, 2, 1_000.0)


def test_a_drop_names_whose_sockets_its_rule_is_for() -> None:
    """In the line, in its sentence, and where the kernel did not log it (§13.3)."""
    unit = LocalUnit(name="nginx.service")
    no_web = rule("no-web", DROP, TCP, "443", "0.0.0.0/0", direction=OUT)
    told = Told(policy_of(group("sg-1", replace(no_web, conditions=Conditions(local=unit)))))
    (flow,) = told.tell(told.packet(prefix="rule/eth0/no-web", is_leaving=True))
    assert flow.local == "unit nginx.service"
    assert sentence(flow).startswith("dropped on eth0 egress by rule no-web of sg-1 for unit nginx.service:")
    key = replace(BY_RULE, rule_id="no-web", direction=OUT)
    for packets in (1, 6, 6):
        told.reckon({key: CounterValue(packets=packets, bytes=60 * packets)})
    assert [found.local for found in told.flow_log.left_out()] == ["unit nginx.service"]


def test_what_is_accepted_is_written_and_not_remembered() -> None:
    """So that drops are not crowded out."""
    told = Told()
    assert told.tell(told.packet(prefix="rule/eth0/web")) == ()
    (flow,) = told.paper.entries
    assert isinstance(flow, Flow)
    assert (flow.verdict, flow.rule_id) == (Policy.ACCEPT, "web")
    logged, _ = told.flow_log.tally()
    assert logged == {Policy.ACCEPT: 1}


def test_an_answer_is_told_of_as_its_session() -> None:
    """A session that is judged again may be cut at a packet of either direction (§6.3)."""
    told = Told()
    answer = ipv4("10.0.0.11", "203.0.113.9", 6, ports(3306, 40_000))
    (flow,) = told.tell(told.packet(answer, is_leaving=True))
    assert flow.is_reply
    assert (flow.source.address, flow.source.port) == ("203.0.113.9", 40_000)
    assert (flow.destination.address, flow.destination.port) == ("10.0.0.11", 3306)


def test_a_message_of_icmp_is_told_of_as_it_is() -> None:
    """Its type says which way it goes."""
    told = Told()
    unreachable = ipv4("10.0.0.11", "203.0.113.9", 1, b"\x03\x03\x00\x00")
    (flow,) = told.tell(told.packet(unreachable, is_leaving=True))
    assert (flow.source.address, flow.icmp_type, flow.is_reply) == ("10.0.0.11", 3, True)


def test_ends_have_the_names_of_the_definitions() -> None:
    """The near end of an interface that is bound by hand has its groups."""
    told = Told(definitions=snapshot(WEB, group("sg-ops", members=("203.0.113.9",))))
    (flow,) = told.tell(told.packet())
    assert flow.source.security_group_ids == ("sg-ops",)
    assert flow.destination.security_group_ids == ("sg-1",)


def test_a_spoofed_source_has_no_name_of_the_interface() -> None:
    """It is dropped because the interface does not have it (§12.6); its destination has no other name."""
    (judge,) = POLICY.interfaces
    checked = replace(judge, own_addresses=AddressSet.of(blocks("10.0.0.11")), network_interface_id="eni-1")
    told = Told(ResolvedPolicy(interfaces=(checked,)), snapshot(WEB))
    out = ipv4("172.17.0.2", "203.0.113.9", 6, ports(40_000, 443))
    claimed = ipv4("10.0.0.11", "10.0.0.12", 6, ports(40_000, 443))
    leaving, entering = told.tell(
        told.packet(out, "spoofed/eth0/egress", is_leaving=True), told.packet(claimed, "spoofed/eth0/ingress")
    )
    assert (leaving.decided_by, entering.decided_by) == (DecidedBy.SPOOFED, DecidedBy.SPOOFED)
    assert leaving.source == FlowEnd(address="172.17.0.2", port=40_000)
    assert entering.destination.network_interface_id == "eni-1"


def test_observing_tells_of_what_would_be_dropped() -> None:
    """As a drop that was not carried out (§9.1)."""
    told = Told(resolution(snapshot(WEB), mode=Mode.OBSERVE).policy)
    (flow,) = told.tell(told.packet())
    assert (flow.verdict, flow.mode) == (Policy.DROP, Mode.OBSERVE)


def test_links_that_are_judged_together_keep_their_names() -> None:
    """Where nothing is bound, the kernel says which link it was; here the loopback's number is known."""
    closed = ResolvedPolicy(unbound=closed_interface("*", Exemptions(), Mode.ENFORCE))
    told = Told(closed)
    counters = compile_(closed, LAYOUT, first_state([], LAYOUT)).counters
    prefix = next(name for name, key in counters.items() if isinstance(key, DefaultCounter))
    (flow,) = told.tell(logged(SYN, 0, prefix=prefix, link_index=1))
    assert flow.interface == "lo"


def test_packets_of_the_table_before_are_still_known() -> None:
    """They were on their way; those of a table before that one are not."""
    told = Told()
    late = [told.packet(prefix="rule/eth0/no-ssh") for _ in range(2)]
    told.follow(policy_of(group("sg-1")))
    assert [flow.rule_id for flow in told.tell(late[0])] == ["no-ssh"]
    told.follow(policy_of(group("sg-2")))
    assert len(told.tell(late[1])) == 1
    assert told.lost() == {Loss.UNREADABLE: 1}


def test_a_gap_in_the_numbers_is_what_was_lost() -> None:
    """The kernel counts what it was to tell; the numbers go round."""
    told = Told()
    told.tell(told.packet(), told.packet(lost=3), told.packet())
    assert told.lost() == {Loss.OVERRUN: 3}
    told.sequence = (1 << 32) - 1
    told.flow_log.add([logged(SYN, 5)])
    told.flow_log.add([logged(SYN, (1 << 32) - 1), logged(SYN, 0)])
    assert told.lost()[Loss.OVERRUN] == 3


def test_what_is_no_packet_is_counted() -> None:
    """It has no ends that could be told."""
    told = Told()
    assert told.tell(told.packet(b""), told.packet(prefix="rule/eth0/evil")) == ()
    assert told.lost() == {Loss.UNREADABLE: 2}


BY_DEFAULT = DefaultCounter(interface="eth0", direction=Direction.INGRESS, verdict=Policy.DROP)
BY_RULE = rule_counter("no-ssh", Policy.DROP)


def totals(default: int, by_rule: int = 0) -> Mapping[CounterKey, CounterValue]:
    """Return what was counted."""
    return {
        key: CounterValue(packets=packets, bytes=60 * packets)
        for key, packets in ((BY_DEFAULT, default), (BY_RULE, by_rule))
    }


def test_what_was_counted_and_not_told_of_is_left_out() -> None:
    """It is said once it can't be on its way any more, for each that decided, and written down."""
    told = Told()
    told.reckon(totals(1_000))
    told.tell(told.packet())
    told.reckon(totals(1_011))
    assert told.flow_log.left_out() == ()
    told.reckon(totals(1_011))
    told.reckon(totals(1_011, 5))
    (found,) = told.flow_log.left_out()
    assert (found.left_out, found.decided_by, found.interface) == (10, DecidedBy.DEFAULT, "eth0")
    told.reckon(totals(1_011, 5))
    assert {found.rule_id: found.left_out for found in told.flow_log.left_out()} == {None: 10, "no-ssh": 5}
    assert told.lost() == {Loss.LIMITED: 15}
    told.flow_log.add()
    written = [entry for entry in told.paper.entries if isinstance(entry, FlowsLeftOut)]
    assert [entry.left_out for entry in written] == [10, 5]


def test_a_rule_that_is_new_is_accounted_for_from_its_begin() -> None:
    """A flood may meet it at once, before its counter is read for the first time."""
    told = Told(policy_of(group("sg-1")))
    told.reckon(totals(1_000))
    told.follow(POLICY)
    told.tell(told.packet(prefix="rule/eth0/no-ssh"))
    for _ in range(3):
        told.reckon(totals(1_000, 500))
    assert {found.rule_id: found.left_out for found in told.flow_log.left_out()} == {"no-ssh": 499}


def test_what_is_told_before_the_first_reading_was_not_left_out() -> None:
    """Nor is what the kernel counted while no agent ran."""
    told = Told()
    told.tell(*(told.packet() for _ in range(5)))
    told.reckon(totals(3))
    for _ in range(3):
        told.reckon(totals(5))
    assert told.flow_log.left_out() == ()


def test_what_comes_late_was_not_left_out() -> None:
    """The kernel gathers packets for a moment; the counters may be read before it tells of them."""
    told = Told()
    told.reckon(totals(0))
    told.reckon(totals(1))
    told.tell(told.packet())
    for _ in range(3):
        told.reckon(totals(1))
    assert told.flow_log.left_out() == ()
    assert told.lost() == {}


def test_totals_that_come_thick_and_fast_are_not_all_looked_at() -> None:
    """As many as somebody scrapes the metrics: what they count may still be on its way."""
    told = Told()
    told.reckon(totals(0))
    for _ in range(3):
        told.flow_log.reckon(totals(9))
    assert told.flow_log.left_out() == ()


def test_what_was_lost_on_the_way_is_not_limited_too() -> None:
    """Each is counted once; the total of a leaf does not tell where."""
    told = Told()
    told.reckon(totals(0))
    told.tell(told.packet(lost=4))
    for _ in range(3):
        told.reckon(totals(10))
    assert told.lost() == {Loss.OVERRUN: 4, Loss.LIMITED: 5}


def test_flows_that_can_not_be_written_are_remembered_and_counted() -> None:
    """It is said once, and once that it is over."""
    told = Told()
    told.paper.is_full = True
    told.tell(told.packet())
    assert len(told.tell(told.packet())) == 2
    assert told.log.events() == ["flow_log_not_written"]
    assert told.log.keys_of("flow_log_not_written") == {"reason": "No space left on device"}
    assert told.lost() == {Loss.NOT_WRITTEN: 2}
    assert told.fault() == "the flow log is not written: No space left on device"
    told.paper.is_full = False
    told.tell(told.packet())
    assert told.fault() is None
    assert told.log.events() == ["flow_log_not_written", "flow_log_written_again"]
    assert len(told.paper.entries) == 1


def test_a_flood_takes_no_more_memory_than_it_may() -> None:
    """However many rules drop, and however long nothing can be written; the newest are kept."""
    told = Told()
    for _ in range(60):
        told.tell(*(told.packet() for _ in range(100)))
    assert [flow.number for flow in told.flow_log.drops] == list(range(4_001, 6_001))
