"""The kernel's table through libnftables: the contract, random tables, ownership and foreign hands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from integration.namespaces import Namespace
from sgagent.compiler.compilation import compile_
from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.dataplane.dataplane import LibnftablesDataplane
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.ruleset import Chain, Element, Goto, KeyType, Ruleset, Symbol, VerdictMap
from sgagent.nft.text import render, write_additions
from sgagent.nft.transactions import AddChain, AddTable, DestroyTable, Flush, Plan
from sgagent.ports import Observed
from tests.contract import tables
from tests.contract.dataplane import DataplaneContract, bring
from tests.generators import Case
from tests.rulesets import rulesets
from tests.strategies import cases

_LAYOUT = MarkLayout(0xFFFF0000)
_RANDOM = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(params=[True, False], ids=["owned", "one-shot"])
def dataplane(
    namespace: Namespace,  # noqa: ARG001 - the thread is in it
    request: pytest.FixtureRequest,
) -> Iterator[LibnftablesDataplane]:
    """Open a data plane in a namespace of its own."""
    plane = LibnftablesDataplane(owned=request.param)
    yield plane
    plane.close()


@pytest.fixture
def one_shot(
    namespace: Namespace,  # noqa: ARG001 - the thread is in it
) -> Iterator[LibnftablesDataplane]:
    """Open a data plane that owns nothing."""
    plane = LibnftablesDataplane(owned=False)
    yield plane
    plane.close()


@pytest.fixture
def owner(
    namespace: Namespace,  # noqa: ARG001 - the thread is in it
) -> Iterator[LibnftablesDataplane]:
    """Open a data plane as the daemon does."""
    plane = LibnftablesDataplane(owned=True)
    yield plane
    plane.close()


def listed_anew() -> Observed:
    """Return the table from a new listing, by somebody who knows nothing."""
    onlooker = LibnftablesDataplane(owned=False)
    try:
        return onlooker.observe()
    finally:
        onlooker.close()


class TestLibnftablesDataplane(DataplaneContract):
    """The contract, on the kernel."""


@_RANDOM
@given(sequence=st.lists(rulesets(), min_size=1, max_size=3))
@pytest.mark.long
def test_random_tables_follow_one_another(owner: LibnftablesDataplane, sequence: list[Ruleset]) -> None:
    """Whatever stood, one plan brings the desired table, and both memory and kernel say so."""
    for desired in sequence:
        bring(owner, desired)
        assert owner.observe() == Observed(ruleset=desired)
        assert listed_anew() == Observed(ruleset=desired)
        assert not bring(owner, desired)


@pytest.mark.long
@settings(_RANDOM, max_examples=20)  # test_foreign_alterations goes from policy to policy as well
@given(sequence=st.lists(cases(most_rules=20), min_size=1, max_size=3))
def test_compiled_tables_follow_one_another(owner: LibnftablesDataplane, sequence: list[Case]) -> None:
    """The compiler's tables are canonical: the kernel lists each as it was sent, whatever stood before."""
    for case in sequence:
        state = first_state([interface.name for interface in case.policy.interfaces], _LAYOUT)
        desired = compile_(case.policy, _LAYOUT, state).ruleset
        bring(owner, desired)
        assert listed_anew() == Observed(ruleset=desired)


@_RANDOM
@given(desired=rulesets())
def test_text_and_json_mean_the_same(namespace: Namespace, desired: Ruleset) -> None:
    """The text for people, loaded by nft, is listed as the table that it was written from."""
    namespace.nft("-f", "-", stdin=render(desired, persist=True))
    assert listed_anew() == Observed(ruleset=desired)


@_RANDOM
@given(desired=rulesets())
@pytest.mark.long
def test_what_only_adds_is_equal_as_commands_and_json(owner: LibnftablesDataplane, desired: Ruleset) -> None:
    """A table that is made anew goes to the kernel as commands, and is listed as the one that was meant."""
    plan = Plan((DestroyTable(), *make_plan(desired, None).operations))
    assert write_additions(plan.operations)
    owner.apply(plan)
    assert listed_anew() == Observed(ruleset=desired)


@pytest.mark.parametrize("desired", tables.ALL)
def test_a_listing_is_loaded(namespace: Namespace, one_shot: LibnftablesDataplane, desired: Ruleset) -> None:
    """Our table, as nft lists it, is loaded again to the same table."""
    bring(one_shot, desired)
    listing = namespace.nft("list", "table", "inet", "sgagent")
    namespace.remove_table("sgagent")
    namespace.nft("-f", "-", stdin=listing)
    assert listed_anew() == Observed(ruleset=desired)


def test_a_change_of_our_own_is_not_listed_again(one_shot: LibnftablesDataplane) -> None:
    """After an apply, the table is known without a listing."""
    bring(one_shot, tables.WHOLE)
    first = one_shot.observe()
    bring(one_shot, tables.ONE_MEMBER_LESS)
    second = one_shot.observe()
    assert second.ruleset == tables.ONE_MEMBER_LESS
    assert one_shot.observe() is second
    assert first.ruleset is not None
    assert second.ruleset is not None
    assert second.ruleset.chains[0] is first.ruleset.chains[0]


def test_a_refused_flip_leaves_alone_what_another_process_did(one_shot: LibnftablesDataplane) -> None:
    """A process that changed the table after it was observed keeps that change; the fill is removed later."""
    bring(one_shot, tables.WHOLE)
    stale = one_shot.observe().ruleset
    with contextlib.closing(LibnftablesDataplane(owned=False)) as other:
        bring(other, tables.WITHOUT_SSH)
    plan = Plan((Flush("chain", "nowhere"),), (AddChain(Chain(name="filled")),), before=stale)
    with pytest.raises(KernelRefusedError):
        one_shot.apply(plan)
    observed = listed_anew().ruleset
    assert observed is not None
    assert not make_plan(tables.WITHOUT_SSH, observed).flip
    bring(one_shot, tables.WITHOUT_SSH)
    assert listed_anew() == Observed(ruleset=tables.WITHOUT_SSH)


def test_a_foreign_change_is_seen(namespace: Namespace, one_shot: LibnftablesDataplane) -> None:
    """Somebody else's change is observed, and the next plan takes it back."""
    bring(one_shot, tables.WHOLE)
    namespace.nft("flush chain inet sgagent rule/eth0/web")
    assert one_shot.observe().ruleset != tables.WHOLE
    assert bring(one_shot, tables.WHOLE)
    assert listed_anew() == Observed(ruleset=tables.WHOLE)


def test_a_change_in_between_is_noticed(namespace: Namespace, one_shot: LibnftablesDataplane) -> None:
    """The memory of an apply is dropped where somebody else came in between."""
    bring(one_shot, tables.WHOLE)
    observed = one_shot.observe()
    namespace.nft("add chain inet sgagent evil")
    one_shot.apply(make_plan(tables.ONE_MEMBER_LESS, observed.ruleset, observed.foreign))
    assert "evil" in {chain.name for chain in (one_shot.observe().ruleset or Ruleset()).chains}


FOREIGN = (
    ("add chain inet sgagent evil { type nat hook prerouting priority -100 ; }", "chain evil"),
    ("add set inet sgagent evil { type ipv4_addr ; }", "set evil"),
    ("add map inet sgagent evil { type ipv4_addr : mark ; }", "map evil"),
    ("add quota inet sgagent evil 5 mbytes", "quota evil"),
    ('add ct helper inet sgagent evil { type "ftp" protocol tcp ; }', "ct helper evil"),
    ("add rule inet sgagent ingress/eth0 tcp window 5 drop", "rule ingress/eth0"),
    ('add rule inet sgagent ingress/eth0 iifname "eth\\\\*" drop', "rule ingress/eth0"),
    ('add rule inet sgagent ingress/eth0 drop comment "mine"', "rule ingress/eth0"),
    ("add rule inet sgagent ingress/eth0 ip saddr @evil2 drop", "rule ingress/eth0"),
    ("add chain inet sgagent prerouting { policy drop ; }", "policy prerouting"),
    ("add table inet sgagent { flags dormant, persist ; }", "table sgagent"),
    ("add map inet sgagent tmp { type ipv4_addr : verdict ; flags timeout ; }", "map tmp"),
)


@pytest.mark.parametrize(("command", "name"), FOREIGN)
def test_foreign_things_are_named_and_removed(
    namespace: Namespace, one_shot: LibnftablesDataplane, command: str, name: str
) -> None:
    """A foreign object is named, nothing crashes on it, and the next plan removes it."""
    bring(one_shot, tables.WHOLE)
    if "@evil2" in command:
        namespace.nft("add set inet sgagent evil2 { type ipv4_addr ; }")
    namespace.nft(command)
    assert name in one_shot.observe().foreign
    bring(one_shot, tables.WHOLE)
    assert listed_anew() == Observed(ruleset=tables.WHOLE)


@pytest.mark.parametrize(
    "commands",
    (
        ('add element inet sgagent {map} {{ 192.0.2.99 comment "x" : accept }}',),
        ("flush chain inet sgagent {chain}", "add rule inet sgagent {chain} ip ttl 3 accept"),
        (
            "flush chain inet sgagent {chain}",
            "add chain inet sgagent other",
            'add element inet sgagent {map} {{ 192.0.2.98 comment "y" : goto other }}',
        ),
    ),
)
def test_an_object_of_ours_that_another_made_unreadable_is_restored(
    namespace: Namespace, one_shot: LibnftablesDataplane, commands: tuple[str, ...]
) -> None:
    """A comment at an element is enough; references to the object stand in the way of replacing it."""
    desired = tables.WHOLE
    bring(one_shot, desired)
    hosts = next(m for m in desired.verdict_maps if m.key_types == (KeyType.IPV4_ADDR,) and not m.is_interval)
    chain = next(c for c in desired.chains if c.hook is None and c.rules)
    for command in commands:
        namespace.nft(command.format(map=hosts.name, chain=chain.name))
    bring(one_shot, desired)
    assert listed_anew() == Observed(ruleset=desired)
    assert not bring(one_shot, desired)


_WITHOUT_RANGES = "flush map {t} networks/eth0 ; flush map {t} ports/eth0 ; flush map {t} peers/eth0 ; "


@pytest.mark.parametrize(
    "commands",
    (
        _WITHOUT_RANGES + "add rule {t} rule/eth0/web jump ingress/eth0",
        _WITHOUT_RANGES
        + "".join(f"add chain {{t}} c{n} ; " for n in range(14))
        + "".join(f"add rule {{t}} c{n} jump c{n + 1} ; " for n in range(13))
        + "add rule {t} rule/eth0/web jump c0",
        _WITHOUT_RANGES
        + """flush chain {t} prerouting
        add rule {t} rule/eth0/web fib daddr . iif type local
        add chain {t} other {{ type filter hook postrouting priority 0 ; }}
        add rule {t} other ip saddr vmap @networks/eth0""",
        "add ct expectation {t} found {{ protocol tcp ; dport 9 ; timeout 2m ; size 9 ; l3proto ip ; }}",
        "add ct timeout {t} found {{ protocol tcp ; l3proto ip ; policy = {{ established : 120 }} ; }}",
        'add ct helper {t} found {{ type "ftp" protocol tcp ; }}',
        "add synproxy {t} found {{ mss 1460 ; wscale 7 ; timestamp sack-perm ; }}",
        "add quota {t} found {{ 5 mbytes ; }}",
    ),
    ids=("loop", "too deep", "wrong hook", "expectation", "timeout", "helper", "synproxy", "quota"),
)
def test_what_another_process_put_is_removed(
    namespace: Namespace, one_shot: LibnftablesDataplane, commands: str
) -> None:
    """The kernel refuses ranges before such rules; for an expectation libnftables 1.1.3 deletes the table."""
    bring(one_shot, tables.WHOLE)
    namespace.nft(commands.format(t="inet sgagent"))
    bring(one_shot, tables.WHOLE)
    assert listed_anew() == Observed(ruleset=tables.WHOLE)


def test_a_foreign_map_to_our_chains_is_removed(namespace: Namespace, one_shot: LibnftablesDataplane) -> None:
    """A chain can go although a foreign map led to it."""
    bring(one_shot, tables.WHOLE)
    namespace.nft(
        "add map inet sgagent evil { type ipv4_addr : verdict ; flags timeout ; "
        "elements = { 192.0.2.7 timeout 1h : goto rule/eth0/ssh } }"
    )
    bring(one_shot, tables.WITHOUT_SSH)
    assert listed_anew() == Observed(ruleset=tables.WITHOUT_SSH)


@pytest.mark.parametrize(
    "commands",
    (
        (
            "add map {t} evil {{ type ipv4_addr : verdict ; flags timeout ; }}",
            "add rule {t} gone ip saddr vmap @evil",
        ),
        ("add set {t} links {{ type ifname ; }}", "add rule {t} gone iifname @links accept"),
        ("add chain {t} other", "add rule {t} other ip ttl 3 accept", "add rule {t} gone jump other"),
        (
            "add chain {t} other",
            "add map {t} peers {{ type ipv4_addr : verdict ; elements = {{ 192.0.2.7 : goto other }} ; }}",
        ),
        ("add rule {t} gone goto generation",),
        (
            "add limit {t} slow {{ rate 5/second ; }}",
            'add map {t} rates {{ type ipv4_addr : limit ; elements = {{ 192.0.2.7 : "slow" }} ; }}',
        ),
    ),
    ids=("unreadable map", "set", "readable chain", "elements", "state", "map of objects"),
)
def test_what_is_removed_may_lead_to_what_others_added(
    namespace: Namespace, one_shot: LibnftablesDataplane, commands: tuple[str, ...]
) -> None:
    """References to an object go first: else the kernel refuses the repair, and each change after it."""
    bring(one_shot, tables.WHOLE)
    for command in ("add chain {t} gone", *commands):
        namespace.nft(command.format(t="inet sgagent"))
    bring(one_shot, tables.WITHOUT_SSH)
    assert listed_anew() == Observed(ruleset=tables.WITHOUT_SSH)


def test_an_element_never_written_is_removed(namespace: Namespace, one_shot: LibnftablesDataplane) -> None:
    """Names of links that nft may read as something else are never written, not even to delete them."""
    eth0 = Element((Symbol("eth0"),), Goto("ingress/eth0"))
    links = VerdictMap(name="links", key_types=(KeyType.IFNAME,), elements=(eth0,))
    desired = replace(tables.WHOLE, verdict_maps=(links, *tables.WHOLE.verdict_maps))
    bring(one_shot, desired)
    namespace.nft('add element inet sgagent links { "back\\slash" : drop }')
    bring(one_shot, desired)
    assert listed_anew() == Observed(ruleset=desired)


@pytest.mark.parametrize("name", ("evil", "rule/eth0/ssh"))
def test_two_chains_of_a_name_go(namespace: Namespace, one_shot: LibnftablesDataplane, name: str) -> None:
    """The kernel takes a second chain in the transaction that renames the first; a name means one of them."""
    desired = tables.WITHOUT_SSH if name == "evil" else tables.WHOLE
    bring(one_shot, tables.WITHOUT_SSH)
    namespace.nft(
        "add chain inet sgagent first ; add rule inet sgagent first accept ; add chain inet sgagent gone ; "
        "add rule inet sgagent gone jump first"
    )
    namespace.nft(f"rename chain inet sgagent first {name} ; add chain inet sgagent {name}")
    for _ in range(2):
        bring(one_shot, desired)
    assert listed_anew() == Observed(ruleset=desired)
    assert namespace.nft("list table inet sgagent").count(f"chain {name} {{") == (name != "evil")


def test_it_is_known_until_another_changes_it(namespace: Namespace, one_shot: LibnftablesDataplane) -> None:
    """A one-shot plans again unless nobody came in between its look at the table and its change."""
    known = [one_shot.is_known]
    bring(one_shot, tables.WHOLE)
    known.append(one_shot.is_known)
    plan = make_plan(tables.WITHOUT_SSH, one_shot.observe().ruleset)
    namespace.nft("add chain inet sgagent other")
    one_shot.apply(plan)
    one_shot.remove(plan)
    known.append(one_shot.is_known)
    assert one_shot.observe() != Observed(ruleset=tables.WITHOUT_SSH)
    known.append(one_shot.is_known)
    assert known == [False, True, False, True]


def test_an_owned_table_is_safe_from_others(namespace: Namespace, owner: LibnftablesDataplane) -> None:
    """A foreign flush passes the daemon's table by, and a foreign apply is told who owns it."""
    bring(owner, tables.WHOLE)
    assert "flags owner" in namespace.nft("list table inet sgagent")
    namespace.nft("flush", "ruleset")
    assert owner.observe() == Observed(ruleset=tables.WHOLE)
    other = LibnftablesDataplane(owned=False)
    with pytest.raises(NotPermittedError, match=f"is owned by process {os.getpid()} "):
        bring(other, tables.EMPTY)
    other.close()


def test_a_second_owner_is_told_who_is_the_first(owner: LibnftablesDataplane) -> None:
    """A second daemon can look, but not touch."""
    bring(owner, tables.WHOLE)
    second = LibnftablesDataplane(owned=True)
    assert second.observe() == Observed(ruleset=tables.WHOLE)
    with pytest.raises(NotPermittedError, match="is owned by"):
        bring(second, tables.EMPTY)
    second.close()


@pytest.mark.parametrize("first_owned", (True, False))
def test_a_table_that_was_left_is_taken_up(namespace: Namespace, *, first_owned: bool) -> None:
    """The table of an earlier daemon or a one-shot belongs to the next daemon as soon as it looks."""
    first = LibnftablesDataplane(owned=first_owned)
    bring(first, tables.WHOLE)
    first.close()
    second = LibnftablesDataplane(owned=True)
    assert second.observe() == Observed(ruleset=tables.WHOLE)
    assert "flags owner" in namespace.nft("list table inet sgagent")
    namespace.nft("flush", "ruleset")
    assert listed_anew() == Observed(ruleset=tables.WHOLE)
    second.close()


def test_a_table_that_cannot_be_owned_is_kept(namespace: Namespace, owner: LibnftablesDataplane) -> None:
    """A table that stands without ``persist`` can't be adopted; it is changed as it is."""
    namespace.nft("add table inet sgagent")
    bring(owner, tables.WHOLE)
    assert "flags owner" not in namespace.nft("list table inet sgagent")
    assert not bring(owner, tables.WHOLE)
    bring(owner, tables.WITHOUT_SSH)
    assert listed_anew() == Observed(ruleset=tables.WITHOUT_SSH)


def test_a_deleted_table_is_made_and_owned_again(namespace: Namespace, owner: LibnftablesDataplane) -> None:
    """Where ownership was not to be had at first, it is after the table was made anew."""
    namespace.nft("add table inet sgagent")
    bring(owner, tables.WHOLE)
    namespace.nft("delete table inet sgagent")
    assert owner.observe() == Observed(ruleset=None)
    bring(owner, tables.WHOLE)
    assert "flags owner" in namespace.nft("list table inet sgagent")


def test_counters_keep_values_over_applies(namespace: Namespace, one_shot: LibnftablesDataplane) -> None:
    """Whatever else changes, a counter that stays is not touched."""
    bring(one_shot, tables.WHOLE)
    plain = render(tables.WHOLE, persist=False)
    counted = plain.replace("counter rule/eth0/web { }", "counter rule/eth0/web { packets 7 bytes 420 }")
    assert counted != plain
    namespace.nft("-f", "-", stdin=counted)
    for desired in (tables.ANOTHER_VERDICT, tables.NEXT_GENERATION, tables.WITHOUT_SSH, tables.OTHER_HOOK):
        bring(one_shot, desired)
        assert one_shot.read_counters()["rule/eth0/web"].packets == 7
        assert one_shot.read_counters()["rule/eth0/web"].bytes == 420


@pytest.mark.usefixtures("namespace")
def test_without_the_privilege_it_is_said_which_is_missing() -> None:
    """An ordinary user is told of CAP_NET_ADMIN, for reading and for writing."""
    child = os.fork()
    if child == 0:
        os._exit(_unprivileged())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _unprivileged() -> int:
    """Return 0 if observing and applying both name the privilege."""
    os.setresuid(65534, 65534, 65534)
    plane = LibnftablesDataplane(owned=False)
    try:
        plane.observe()
    except NotPermittedError as error:
        if "CAP_NET_ADMIN" not in str(error):
            return 1
    try:
        plane.apply(Plan((AddTable(), AddChain(Chain(name="a")), Flush("chain", "a"))))
    except NotPermittedError as error:
        return 0 if "CAP_NET_ADMIN" in str(error) else 2
    return 3


def test_values_are_compared_not_their_notation(namespace: Namespace, one_shot: LibnftablesDataplane) -> None:
    """A table that somebody wrote in another notation is the same table."""
    bring(one_shot, tables.WHOLE)
    text = render(tables.WHOLE, persist=False)
    other = text.replace("10.0.0.0/8", "10.0.0.0-10.255.255.255").replace("tcp . 443", "6 . 443-443")
    assert other != text
    namespace.nft("-f", "-", stdin=other)
    assert not make_plan(tables.WHOLE, listed_anew().ruleset)
