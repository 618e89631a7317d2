"""Names of the DNS, resolved to what it answered (§12.3)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from sgagent.core.addresses import NO_ADDRESSES, AddressSet
from sgagent.core.endpoints import Endpoint, exempt
from sgagent.core.errors import Severity
from sgagent.core.memo import Memo
from sgagent.core.model import (
    TCP,
    UDP,
    CidrBlock,
    Direction,
    GroupType,
    NameReference,
    PortSet,
    SecurityGroupRule,
)
from sgagent.core.resolve import Exemptions, Resolution, Scope, resolve
from sgagent.core.resolved_rules import KnownNames
from tests.words import ACCEPT, IN, OUT, blocks, by_hand, group, packet, rule, snapshot, verdict

MIRROR = "mirror.example.org"
MIRRORS = AddressSet.of(blocks("192.0.2.80", "2001:db8::80"))
SERVERS = exempt(Endpoint.at("192.0.2.53", 53, protocol) for protocol in (UDP, TCP))


def naming(*others: CidrBlock, name: str = MIRROR) -> SecurityGroupRule:
    """Return an accept rule on egress to a name."""
    return replace(
        rule("r-mirror", ACCEPT, TCP, "443", "10.0.0.1", direction=OUT),
        authorization_objects=(*others, NameReference(name)),
    )


def with_names(
    names: KnownNames | None, *rules: SecurityGroupRule, memo: Memo | None = None, at: datetime | None = None
) -> Resolution:
    """Return what rules of an advanced group come to."""
    definitions = snapshot(group("sg-1", *rules, group_type=GroupType.ADVANCED))
    exemptions = Exemptions(name_servers=SERVERS)
    return resolve(
        definitions, by_hand(definitions, {"eth0": "sg-1"}), exemptions, names=names, memo=memo, at=at
    )


def leaves(found: Resolution, address: str, port: int = 443) -> bool:
    """Return whether a session may be opened to an address."""
    return verdict(found.policy, packet(OUT, address, TCP, port)) is ACCEPT


def test_a_name_stands_for_the_addresses_that_the_dns_has() -> None:
    """Of both families, and for nothing else."""
    found = with_names({MIRROR: MIRRORS}, naming())
    assert leaves(found, "192.0.2.80")
    assert leaves(found, "2001:db8::80")
    assert not leaves(found, "192.0.2.81")
    assert (found.problems, found.unknown_objects, found.dns_names) == ((), 0, frozenset({MIRROR}))


def test_an_unresolved_name_is_an_unknown_object() -> None:
    """It matches nothing, with a warning; other objects of the list do."""
    block = CidrBlock.parse("10.0.0.0/8")
    found = with_names({"other.example.org": MIRRORS}, naming(block))
    assert leaves(found, "10.0.0.9")
    assert not leaves(found, "192.0.2.80")
    (warning,) = found.problems
    assert (warning.severity, warning.code) == (Severity.WARNING, "unresolved_name")
    assert warning.value == f"dns:{MIRROR}"
    assert "this object of the rule matches nothing" in warning.message
    assert found.unknown_objects == 1


def test_a_name_without_addresses_is_known_and_empty() -> None:
    """The DNS answered that there are none."""
    found = with_names({MIRROR: NO_ADDRESSES}, naming())
    assert not leaves(found, "192.0.2.80")
    assert (found.problems, found.unknown_objects) == ((), 0)


def test_where_nobody_asked_a_name_is_no_problem() -> None:
    """As where only the documents are looked at."""
    found = with_names(None, naming())
    assert not leaves(found, "192.0.2.80")
    assert (found.problems, found.dns_names) == ((), frozenset({MIRROR}))


def test_names_that_nobody_asks_for_are_no_problem() -> None:
    """Those of groups that are bound on other hosts, and of rules that have ended."""
    ended = replace(naming(), expires=datetime(2026, 1, 1, tzinfo=UTC))
    definitions = snapshot(group("sg-1", ended), group("sg-2", replace(naming(), rule_id="r-elsewhere")))
    bound = by_hand(definitions, {"eth0": "sg-1"})
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert not resolve(definitions, bound, Exemptions(), names={}, at=now).problems
    (problem,) = resolve(definitions, bound, Exemptions(), names={}, at=now, scope=Scope.EVERYTHING).problems
    assert problem.code == "unresolved_name"


def test_name_servers_are_fail_safe_only_while_a_rule_names_a_name() -> None:
    """On egress, at UDP and TCP, whatever else is allowed."""
    dns = replace(packet(OUT, "192.0.2.53", UDP, 53))
    assert verdict(with_names({}, naming()).policy, dns) is ACCEPT
    assert verdict(with_names({}, naming()).policy, packet(OUT, "192.0.2.53", TCP, 53)) is ACCEPT
    assert verdict(with_names({}, naming()).policy, packet(IN, "192.0.2.53", UDP, 53)) is not ACCEPT
    plain = rule("r-plain", ACCEPT, TCP, "443", "10.0.0.1", direction=OUT)
    assert verdict(with_names({}, plain).policy, dns) is not ACCEPT
    ended = replace(naming(), expires=datetime(2026, 1, 1, tzinfo=UTC))
    found = with_names({}, ended, at=datetime(2026, 1, 2, tzinfo=UTC))
    assert (verdict(found.policy, dns) is not ACCEPT, found.dns_names) == (True, frozenset())


def test_an_entry_of_the_fail_safe_list_is_not_given_twice() -> None:
    """Where the configuration lists a name server already."""
    definitions = snapshot(group("sg-1", naming()))
    exemptions = Exemptions(failsafe=SERVERS, name_servers=SERVERS)
    found = resolve(definitions, by_hand(definitions, {"eth0": "sg-1"}), exemptions, names={})
    (judge,) = found.policy.interfaces
    assert judge.egress.failsafe == SERVERS
    assert judge.toward(Direction.INGRESS).failsafe == ()


def test_an_equal_answer_resolves_to_the_very_objects() -> None:
    """So that nothing is compiled again; another answer changes the rule that names it alone."""
    memo = Memo()
    other = rule("r-other", ACCEPT, TCP, "22", "10.0.0.2", direction=OUT)
    rules = (naming(), other)
    first = with_names({MIRROR: MIRRORS}, *rules, memo=memo).policy.interfaces[0].egress
    equal = AddressSet(MIRRORS.ipv4, MIRRORS.ipv6)
    again = with_names({MIRROR: equal}, *rules, memo=memo).policy.interfaces[0].egress
    assert [one is other for one, other in zip(again.rules, first.rules, strict=True)] == [True, True]
    changed = with_names({MIRROR: NO_ADDRESSES}, *rules, memo=memo).policy.interfaces[0].egress
    by_id = {one.rule_id: one for one in first.rules}
    assert {one.rule_id: one is by_id[one.rule_id] for one in changed.rules} == {
        "r-mirror": False,
        "r-other": True,
    }
    assert changed.rules[0].ports == PortSet.of((443, 443))
