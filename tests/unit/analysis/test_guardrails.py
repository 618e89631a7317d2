"""The check of guardrails: what each kind demands, of whom, and what breaks it (§13.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.analysis.guardrails import find_violations
from sgagent.core.clauses import DecidedBy
from sgagent.core.conditions import Conditions, LocalUser
from sgagent.core.evaluate import evaluate
from sgagent.core.guardrails import Guardrail, GuardrailKind, Violation, named, resolve_guardrails
from sgagent.core.model import (
    ALL_PROTOCOLS,
    TCP,
    Direction,
    Mode,
    PortListReference,
    PrefixList,
    Protocol,
    SecurityGroup,
    Snapshot,
)
from sgagent.core.policy import Exemption
from sgagent.core.resolve import Exemptions
from tests.words import (
    ACCEPT,
    ADVANCED,
    DROP,
    IN,
    OUT,
    block,
    group,
    interface,
    peers,
    ports,
    resolution,
    rule,
    snapshot,
)

NEVER, ALWAYS, ONLY = GuardrailKind.NEVER, GuardrailKind.ALWAYS, GuardrailKind.ONLY


def rail(
    kind: GuardrailKind,
    far: str = "any",
    *,
    near: str = "",
    port: str = "5432",
    protocol: Protocol = TCP,
    apart: str = "",
    direction: Direction = IN,
) -> Guardrail:
    """Return a statement about TCP port 5432, unless said."""
    return Guardrail(
        guardrail_id="g",
        reason="a reason",
        kind=kind,
        direction=direction,
        far_ends=peers(far),
        near_ends=peers(near) if near else None,
        protocols=(protocol,),
        ports=PortListReference(port) if port.startswith("prl-") else ports(port),
        exceptions=peers(apart) if apart else (),
    )


def violations(
    statement: Guardrail,
    definitions: Snapshot,
    on: dict[str, str] | None = None,
    mode: Mode = Mode.ENFORCE,
    exemptions: Exemptions | None = None,
) -> tuple[Violation, ...]:
    """Return what breaks a statement; its packets are decided as it says."""
    found = resolution(definitions, on=on, mode=mode, exemptions=exemptions or Exemptions())
    assert not found.errors
    broken = find_violations(resolve_guardrails((statement,), definitions)[0], found.policy)
    for one in broken:
        decision = evaluate(found.policy, one.packet)
        assert (decision.verdict, decision.decided_by) == (one.verdict, one.decided_by)
        assert decision.rule == one.rule
    return broken


def db(*rules: tuple[str, str]) -> SecurityGroup:
    """Return the group of a database that accepts TCP ports from far ends."""
    return group("sg-db", *(rule(f"r{at}", ACCEPT, TCP, port, far) for at, (port, far) in enumerate(rules)))


APP = group("sg-app", members=["10.0.0.7"])


def is_kept(statement: Guardrail, *rules: tuple[str, str]) -> bool:
    """Return whether a database with these rules keeps a statement."""
    return not violations(statement, snapshot(db(*rules), APP), {"eth0": "sg-db"})


def test_never_is_broken_by_a_rule_that_accepts() -> None:
    """The violation names the interface, the rule and a packet."""
    (found,) = violations(rail(NEVER), snapshot(db(("5000-6000", "198.51.100.0/24")), APP), {"eth0": "sg-db"})
    assert found.interface == "eth0"
    assert found.rule is not None
    assert found.rule.rule_id == "r0"
    assert (found.packet.protocol, found.packet.destination_port) == (6, 5432)
    assert block("198.51.100.0/24").first <= found.packet.source <= block("198.51.100.0/24").last


def test_never_is_kept_by_rules_for_others() -> None:
    """Other ports, and who is excepted."""
    assert is_kept(rail(NEVER, apart="sg-app,10.1.0.0/16"), ("443", "0.0.0.0/0"), ("5432", "sg-app"))
    assert is_kept(rail(NEVER, apart="sg-app,10.1.0.0/16"), ("5432", "10.1.2.0/24"))
    assert not is_kept(rail(NEVER, apart="sg-app,10.1.0.0/16"), ("5432", "10.0.0.0/15"))


def test_never_is_kept_by_a_drop_before() -> None:
    """What counts is what decides, not what is written."""
    accept = rule("r1", ACCEPT, TCP, "1-65535", "0.0.0.0/0", priority=2)
    for drops, keeps in (("5432", True), ("5433", False)):
        drop = rule("r0", DROP, TCP, drops, "0.0.0.0/0", priority=1)
        assert violations(rail(NEVER), snapshot(group("sg-db", accept, drop))) == () or not keeps


def test_a_drop_of_some_source_ports_or_near_ends_covers_not_all() -> None:
    """What it leaves is accepted behind it."""
    accept = rule("r1", ACCEPT, TCP, "5432", "0.0.0.0/0", priority=2)
    for drop in (
        rule("r0", DROP, TCP, "5432", "0.0.0.0/0", source_ports="1024-65535"),
        rule("r0", DROP, TCP, "5432", "0.0.0.0/0", local="10.0.0.0/8"),
        rule("r0", DROP, TCP, "5432", "0.0.0.0/1"),
    ):
        (found,) = violations(rail(NEVER), snapshot(group("sg-db", drop, accept)))
        assert found.rule is not None
        assert found.rule.rule_id == "r1"


def test_never_speaks_of_both_families() -> None:
    """Any is IPv4 and IPv6."""
    assert not is_kept(rail(NEVER), ("5432", "::/0"))


def test_never_is_broken_by_inner_access_and_defaults() -> None:
    """Not only by rules: fellow members, and what leaves a basic group."""
    (found,) = violations(rail(NEVER), snapshot(group("sg-db", members=["10.0.0.5"])))
    assert (found.decided_by, found.rule) == (DecidedBy.INNER, None)
    (found,) = violations(rail(NEVER, direction=OUT, port="25"), snapshot(group("sg-db")))
    assert (found.decided_by, found.rule) == (DecidedBy.DEFAULT, None)
    assert (
        violations(rail(NEVER, direction=OUT, port="25"), snapshot(group("sg-db", group_type=ADVANCED))) == ()
    )


def test_the_failsafe_list_and_dhcp_are_beyond_it() -> None:
    """No policy can change those."""
    failsafe = Exemption(direction=IN, peer=block("192.0.2.0/24"), protocol=TCP, ports=ports("5432"))
    drawn = Exemptions(failsafe=(failsafe,))
    assert violations(rail(NEVER), snapshot(db()), exemptions=drawn) == ()
    answers = rule("r0", ACCEPT, Protocol(17), "68", "0.0.0.0/0", source_ports="67")
    assert violations(rail(NEVER, protocol=Protocol(17), port="68"), snapshot(group("sg-db", answers))) == ()


def test_always_is_broken_where_anything_drops() -> None:
    """By a rule, or by the default."""
    office = rail(ALWAYS, "192.0.2.0/24", port="22")
    assert is_kept(office, ("22", "192.0.2.0/24"))
    assert is_kept(office, ("1-65535", "192.0.2.0/25"), ("22", "192.0.2.128/25"))
    assert not is_kept(office, ("22", "192.0.2.0/25"))
    drop = rule("r0", DROP, TCP, "22", "192.0.2.9/32")
    accept = rule("r1", ACCEPT, TCP, "22", "192.0.2.0/24")
    (found,) = violations(office, snapshot(group("sg-db", drop, accept)))
    assert found.rule is not None
    assert (found.rule.rule_id, found.packet.source) == ("r0", block("192.0.2.9/32").first)


def test_always_is_broken_on_an_interface_without_a_group() -> None:
    """Every bound interface is meant."""
    (found,) = violations(rail(ALWAYS), snapshot(db(("5432", "any"))), {"eth0": "sg-db", "eth1": ""})
    assert found.interface == "eth1"


def test_only_is_broken_by_anybody_else() -> None:
    """Of its protocol and ports alone."""
    only = rail(ONLY, "sg-app,10.1.0.0/16")
    assert is_kept(only, ("5432", "sg-app"), ("443", "0.0.0.0/0"))
    assert is_kept(only)
    assert not is_kept(only, ("5432", "sg-app"), ("5000-6000", "10.2.0.0/16"))
    assert is_kept(rail(ONLY, "sg-app", apart="10.2.0.0/16"), ("5432", "10.2.0.0/16"))


def test_a_group_as_near_end_is_the_interfaces_attached_to_it() -> None:
    """Whatever addresses they have; other interfaces are not meant."""
    statement = rail(NEVER, near="sg-db")
    web = group("sg-web", rule("w", ACCEPT, TCP, "1-65535", "0.0.0.0/0"))
    members = interface("eni-1", ["sg-db"], ["10.0.0.5"])
    definitions = snapshot(group("sg-db", inner=DROP), web, members)
    assert violations(statement, definitions, {"eth0": "sg-db", "eth1": "sg-web"}) == ()
    found = violations(statement, definitions, {"eth0": "sg-db", "eth1": "sg-db,sg-web"})
    assert [one.interface for one in found] == ["eth1"]


def test_an_address_as_near_end_is_that_address_on_every_interface() -> None:
    """Rules for other near ends keep the statement."""
    statement = rail(NEVER, near="10.0.0.5")
    for local, keeps in (("10.0.0.4/32", True), ("10.0.0.4/31", False)):
        accept = rule("r", ACCEPT, TCP, "5432", "0.0.0.0/0", local=local)
        assert (violations(statement, snapshot(group("sg-db", accept))) == ()) is keeps


def test_an_unknown_object_is_everybody_in_never() -> None:
    """A list that is not there narrows what may be accepted."""
    assert not is_kept(rail(NEVER, "pl-unknown"), ("5432", "198.51.100.0/24"))
    assert not is_kept(rail(NEVER, near="sg-unknown"), ("5432", "198.51.100.0/24"))
    assert not is_kept(rail(NEVER, port="prl-unknown"), ("443", "198.51.100.0/24"))


def test_an_empty_object_is_nobody() -> None:
    """Empty is not unknown (§5.3)."""
    definitions = snapshot(
        db(("5432", "any")), PrefixList(prefix_list_id="pl-x", family=block("::/0").family)
    )
    assert violations(rail(NEVER, "pl-x"), definitions) == ()


@pytest.mark.parametrize("statement", (rail(ONLY, "sg-unknown"), rail(NEVER, apart="sg-unknown")))
def test_an_unknown_object_is_nobody_in_only_and_except(statement: Guardrail) -> None:
    """Nobody is let through by it."""
    assert not is_kept(statement, ("5432", "10.0.0.7/32"))


def test_an_unknown_object_is_an_error_in_always() -> None:
    """In the others it is a warning."""
    definitions = snapshot(db())
    for statement, severity in ((rail(ALWAYS, "pl-x"), "error"), (rail(NEVER, "pl-x"), "warning")):
        _, (problem,) = resolve_guardrails((statement,), definitions)
        assert (problem.severity.value, problem.value) == (severity, "pl-x")


def test_every_protocol_is_meant_by_all() -> None:
    """Those that nobody names, too."""
    accept = rule("r", ACCEPT, Protocol(253), "", "0.0.0.0/0")
    statement = rail(NEVER, protocol=ALL_PROTOCOLS, port="")
    (found,) = violations(statement, snapshot(group("sg-db", accept)))
    assert (found.packet.protocol, found.packet.destination_port) == (253, None)


def test_a_violation_says_whether_its_interface_is_observed() -> None:
    """There it is only reported."""
    (found,) = violations(rail(NEVER), snapshot(db(("5432", "any"))), mode=Mode.OBSERVE)
    assert found.mode is Mode.OBSERVE


def test_a_statement_is_written_on_one_line() -> None:
    """In the words of its file."""
    assert str(rail(NEVER, near="sg-db", apart="sg-app")) == (
        "never ingress from any to sg-db, tcp 5432/5432, except sg-app"
    )
    assert str(rail(ONLY, "pl-x", port="", direction=OUT)) == "only egress to pl-x, tcp"


def test_a_rule_for_a_user_breaks_never_and_fulfils_no_always() -> None:
    """The packet is of a socket of the user, or of somebody else's (§13.3)."""
    conditions = Conditions(local=LocalUser(name="deploy", number=1000))
    outwards = rule("r-out", ACCEPT, TCP, "5432", "any", direction=OUT)
    rest = rule("r-rest", DROP, ALL_PROTOCOLS, "", "any", priority=2, direction=OUT)
    definitions = snapshot(group("sg-1", replace(outwards, conditions=conditions), rest))
    (broken,) = violations(rail(NEVER, direction=OUT), definitions, {"eth0": "sg-1"})
    assert broken.packet.user == 1000
    assert named(broken).packet.user == 1000
    (broken,) = violations(rail(ALWAYS, direction=OUT), definitions, {"eth0": "sg-1"})
    assert broken.packet.user is None
    assert not violations(rail(NEVER, port="22", direction=OUT), definitions, {"eth0": "sg-1"})
