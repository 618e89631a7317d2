"""A table that was altered in ways that no compiler knows is refuted, or named, and never proved."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from integration.test_verify_kernel import mismatches
from integration.verify_stage import Stage, stage
from sgagent.nft.diff import make_plan
from sgagent.nft.transactions import encode_plan
from sgagent.verify import Outcome
from sgagent.verify.expectation import stated_memory
from sgagent.verify.programs import read_table
from sgagent.verify.proof import Proof, prove
from sgagent.verify.verified_table import table_of
from tests.unit.verify.test_proof import POLICY, compiled

COMPILED = compiled(POLICY)
LINKS = ("eth0", "eth1", "eth9")
T = "inet sgagent"

REFUTED_RULES = """
ct mark set ct mark | 0x1
ct mark set 0x5
meta l4proto 51 drop
tcp flags & (syn|ack) == syn accept
tcp flags syn drop
limit rate 10/second drop
limit rate over 10/second burst 1 packets drop
iif lo drop
meta nfproto ipv6 accept
meta nfproto != ipv4 accept
@th,16,16 23 accept
ct original ip saddr 10.0.0.5 accept
ct reply ip daddr 10.0.0.5 accept
ct original protocol 6 accept
reject
return
ip6 hoplimit < 5 accept
tcp dport > 1023 accept
tcp dport >= 1024 accept
tcp dport != { 22, 80 } accept
tcp dport & 0xff00 == 0x100 accept
tcp dport & 0xff00 != 0x100 accept
ip saddr . tcp dport vmap { 10.0.0.0/8 . 80-90 : accept }
ip saddr . tcp dport . iifname vmap { 10.0.0.9 . 80 . "eth0" : drop }
tcp dport vmap { 22-80 : accept, 443 : drop }
ct state != new accept
ct state new,established accept
ct state { new, established } accept
ct state != { new, established } drop
ct state & new != 0 accept
ct state vmap { new : accept }
ct direction != original drop
icmp type echo-request accept
icmpv6 type 128 accept
ip protocol != 6 accept
iifname != { eth0, lo } drop
exthdr frag exists drop
exthdr frag missing drop
counter name "default/eth0/ingress"
"""
"""Each is put before the rules of the table, and changes something."""

NAMED_RULES = {
    "notrack": "notrack",
    "meta mark set 1": "set meta mark",
    "tcp dport set 80": "payload",
    "ct zone set 1": "set ct zone",
    "ct event set new": "set ct event",
    "ct mark set meta mark": "meta mark",
    "ct mark set ip saddr map { 10.0.0.1 : 5 }": "lookup",
    "reset tcp option sack-perm": "exthdr",
    "fib saddr type local drop": "fib",
    "socket transparent 1 drop": "socket",
    "meta protocol ip6 accept": "meta protocol",
    "meta random 5 drop": "meta random",
    "exthdr hbh exists drop": "exthdr 0",
    "frag nexthdr 6 drop": "exthdr",
    "ip option lsrr exists drop": "exthdr",
    "tcp option maxseg exists drop": "exthdr",
    "tcp window 5 accept": "@th,112,16",
    "ip saddr & 0.0.0.255 == 0.0.0.1 accept": "mask",
    "ct state == new,established accept": "ct state",
    "ct state != new,established accept": "ct state",
    "ct status assured accept": "mask",
    "ct count over 10 drop": "connlimit",
    "quota over 10 mbytes drop": "quota",
    "numgen random mod 2 vmap { 0 : drop, 1 : accept }": "numgen",
    "tcp dport vmap { 22 : accept, * : continue }": "map __map0",
    "ether saddr 00:00:5e:00:53:01 drop": "@ll,48,48",
    "@nh,64,8 6 drop": "@nh,64,8",
    "ip ttl 1 drop": "@nh,64,8",
    "ip saddr . tcp dport { 10.0.0.0/8 . 80-90 } accept": "set __set0",
    'counter name tcp dport map { 80 : "default/eth0/ingress" }': "an object that a map chooses",
}
"""Rules with what they are called, since nothing is said about what they do."""

EQUIVALENT_RULES = (
    "counter",
    "last",
    "tcp dport 80 continue",
    "log group 2",
    "limit rate 1/second counter",
    "oifname eth1 drop",
)
"""At the hook of the rule, no packet has a link that it goes out by yet."""

REFUTED, PROVED = "refuted", "proved"

_LOOK_UP = "ip saddr vmap @m"
SCRIPTS: tuple[tuple[str, str], ...] = (
    ("add chain T x { type filter hook prerouting priority -150; }; add rule T x tcp dport 23 drop", REFUTED),
    ("add chain T x { type filter hook prerouting priority -150; }; add rule T x accept", PROVED),
    ("add chain T x { type filter hook input priority 0; policy drop; }", REFUTED),
    (
        "add chain T x { type filter hook forward priority 0; }; add rule T x iifname eth0 oifname eth1 drop",
        REFUTED,
    ),
    ("add chain T x { type filter hook postrouting priority 0; }; add rule T x iifname eth1 drop", REFUTED),
    ("add chain T x { type filter hook ingress device lo priority 0; policy drop; }", "chain x"),
    ("add chain T x { type filter hook ingress device lo priority 0; }; add rule T x drop", "chain x"),
    (
        "add chain T x { type nat hook prerouting priority -100; }; add rule T x tcp dport 80 redirect",
        "chain x",
    ),
    ("add chain T x { type nat hook postrouting priority 100; }; add rule T x masquerade", "chain x"),
    ("add chain T x { type route hook output priority 0; }; add rule T x meta mark set 5", "chain x"),
    ("add chain T prerouting { policy drop; }", PROVED),  # no packet comes to its end
    ("add table T { flags dormant; }", REFUTED),
    ("flush table T", REFUTED),
    ("add chain T x; add rule T x tcp dport 23 accept; insert rule T prerouting jump x", REFUTED),
    ("add chain T x; insert rule T prerouting goto x", REFUTED),
    ("add chain T x; add rule T x meta length 100 drop", PROVED),
    (
        'add ct helper T h { type "ftp" protocol tcp; }; insert rule T prerouting ct helper set "h"',
        "ct helper",
    ),
    ("add quota T q { over 10 mbytes; }; insert rule T prerouting quota name q drop", "quota"),
    ("add limit T q { rate 1/second; }; insert rule T prerouting limit name q drop", REFUTED),
    *(
        (f"add set T s {{ {content} }}; insert rule T prerouting {rule}", expected)
        for content, rule, expected in (
            ("type ipv4_addr; size 5; elements = { 10.0.0.9 };", "ip saddr @s drop", REFUTED),
            (
                "type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/9, 10.128.0.0/9 };",
                "ip saddr != @s drop",
                REFUTED,
            ),
            ("type inet_service; elements = { 5 };", "tcp dport & 7 @s accept", REFUTED),
            ('type ipv4_addr; elements = { 10.0.0.9 comment "x" };', "ip saddr @s drop", REFUTED),
            ("type ipv4_addr;", "ip saddr @s drop", PROVED),
            ("type ipv4_addr;", "ip saddr != @s drop", REFUTED),
            ("type inet_service;", "tcp dport @s accept", PROVED),
            ("type inet_service; flags interval;", "tcp dport != @s accept", REFUTED),
            ("type ifname;", "iifname @s accept", PROVED),
            ("type ifname;", "iifname != @s accept", REFUTED),
            ("type ifname; elements = { eth0 };", "iifname @s accept", REFUTED),
            (
                "type ipv4_addr; flags timeout; elements = { 10.0.0.9 timeout 1h };",
                "ip saddr @s drop",
                "set s (timeout)",
            ),
            (
                "type ipv4_addr; flags dynamic; size 9;",
                "add @s { ip saddr limit rate 1/second } drop",
                "dynset",
            ),
            (
                "type ipv4_addr; counter; elements = { 10.0.0.9 };",
                "ip saddr @s drop",
                "set s (a statement of an element)",
            ),
            (
                "type ipv4_addr; elements = { 10.0.0.9, * };",
                "ip saddr @s drop",
                "set s (an element for all other keys)",
            ),
            (
                "type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90 };",
                "ip saddr . tcp dport @s drop",
                "set s",
            ),
        )
    ),
    *(
        (
            f"add map T m {{ type ipv4_addr : verdict; {content} }}; insert rule T prerouting {_LOOK_UP}",
            expected,
        )
        for content, expected in (
            ("elements = { 10.0.0.9 : drop };", REFUTED),
            ('elements = { 10.0.0.9 comment "x" : drop };', REFUTED),
            ("elements = { 10.0.0.9 : accept, * : drop };", "map m"),
            ("flags timeout; elements = { 10.0.0.9 timeout 1h : accept };", "map m"),
        )
    ),
)
"""Commands, and what the table then is, or the name of what is not understood in it."""


def altered(kernel: Stage, script: str) -> Proof:
    """Return the proof of the table after commands, which came to something that the kernel shows."""
    kernel.load(encode_plan(make_plan(COMPILED, None)))
    commands = script.replace(" T", f" {T}").replace("; add ", "\nadd ").replace("; insert ", "\ninsert ")
    kernel.lab.host.nft("-f", "-", stdin=f"{commands}\n")
    table = read_table(kernel.dump())
    proof = prove(table, POLICY, memory=stated_memory(table_of(COMPILED)))
    found = proof.counterexample
    if found is not None and "limit" not in script:
        assert mismatches(kernel, table, [found.packet])[0] == [], script
    return proof


@pytest.fixture(scope="module")
def kernel() -> Iterator[Stage]:
    """Build a host with links."""
    with stage(*LINKS) as made:
        yield made


@pytest.mark.sampled(13)
@pytest.mark.parametrize("rule", REFUTED_RULES.strip().splitlines())
def test_a_rule_that_changes_something(kernel: Stage, rule: str) -> None:
    """The packet behaves in the kernel as is said."""
    assert altered(kernel, f"insert rule T prerouting {rule}").outcome is Outcome.REFUTED


@pytest.mark.parametrize(("rule", "name"), NAMED_RULES.items())
def test_a_rule_that_is_not_understood(kernel: Stage, rule: str, name: str) -> None:
    """It is named, whatever it does."""
    proof = altered(kernel, f"insert rule T prerouting {rule}")
    assert proof.outcome is Outcome.UNKNOWN
    named = [
        re.sub(r"(?<=__set)\d+", "0", one.removesuffix(" in chain prerouting")) for one in proof.unsupported
    ]
    assert named == [name]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("rule", EQUIVALENT_RULES)
def test_a_rule_that_changes_nothing(kernel: Stage, rule: str) -> None:
    """It may stand there."""
    assert altered(kernel, f"insert rule T prerouting {rule}").outcome is Outcome.PROVED


@pytest.mark.sampled(13)
@pytest.mark.parametrize(("script", "expected"), SCRIPTS)
def test_other_objects(kernel: Stage, script: str, expected: str) -> None:
    """Base chains, sets, maps and stateful objects, too."""
    proof = altered(kernel, script)
    if expected in (REFUTED, PROVED):
        assert proof.outcome.value == expected
    else:
        assert proof.outcome is Outcome.UNKNOWN
        assert proof.unsupported[0].split(" in chain ")[0] == expected
