"""Plans for single changes: what is sent, and in which order."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

import pytest

from sgagent.nft.diff import make_plan
from sgagent.nft.ruleset import (
    Chain,
    Counter,
    Drop,
    Element,
    Goto,
    Hook,
    KeyType,
    Rule,
    Ruleset,
    Symbol,
    VerdictMap,
)
from sgagent.nft.transactions import (
    AddChain,
    AddElements,
    AddRule,
    AddTable,
    AddVerdictMap,
    Delete,
    DeleteElements,
    DestroyTable,
    Flush,
    Operation,
    Plan,
    encode_operation,
    encode_plan,
)
from tests.contract import tables
from tests.contract.dataplane import bring
from tests.fakes.dataplane import FakeDataplane
from tests.fakes.table import carry_out

IPV4 = (KeyType.IPV4_ADDR,)


def _whole_but(other: Chain | VerdictMap | Counter) -> Ruleset:
    """Return the whole table with another object of a name, or one more."""
    field = {Chain: "chains", VerdictMap: "verdict_maps", Counter: "counters"}[type(other)]
    others = (one for one in getattr(tables.WHOLE, field) if one.name != other.name)
    return replace(tables.WHOLE, **{field: tuple(sorted((*others, other), key=attrgetter("name")))})


def test_nothing_to_do_is_an_empty_plan() -> None:
    """A second apply does nothing."""
    assert not make_plan(tables.WHOLE, tables.WHOLE)


def test_a_member_that_leaves_is_one_operation() -> None:
    """Only what changed is sent."""
    gone = DeleteElements("peers/eth0", IPV4, tuple(tables.MEMBERS.elements[:1]))
    back = AddElements("peers/eth0", IPV4, tuple(tables.MEMBERS.elements[:1]))
    assert make_plan(tables.ONE_MEMBER_LESS, tables.WHOLE).operations == (gone,)
    assert make_plan(tables.WHOLE, tables.ONE_MEMBER_LESS).operations == (back,)


def test_another_verdict_is_taken_away_before_it_is_put_in() -> None:
    """A key can't be there twice."""
    plan = make_plan(tables.ANOTHER_VERDICT, tables.WHOLE)
    assert [type(operation) for operation in plan.fill] == [AddVerdictMap] * 2 + [AddElements] * 2
    changes = [type(one) for one in plan.flip if not isinstance(one, (Flush, AddRule))]
    assert changes == [DeleteElements, AddElements]


def test_a_chain_whose_comment_changes_is_made_anew() -> None:
    """The kernel can't change a comment."""
    (new,) = (chain for chain in tables.NEXT_GENERATION.chains if chain.name == "generation")
    expected = (Delete("chain", "generation"), AddChain(new))
    assert make_plan(tables.NEXT_GENERATION, tables.WHOLE).operations == expected


def test_a_base_chain_whose_hook_changes_is_made_anew() -> None:
    """Nothing leads to it, so all else stays, and counters keep their values."""
    (new,) = (chain for chain in tables.OTHER_HOOK.chains if chain.name == "prerouting")
    rules = (AddRule("prerouting", rule) for rule in new.rules)
    declared = (Flush("chain", new.name), Delete("chain", new.name), AddChain(replace(new, rules=())))
    assert make_plan(tables.OTHER_HOOK, tables.WHOLE).operations == (*declared, *rules)


@pytest.mark.parametrize(
    "other",
    (
        replace(tables.ENTRY, comment="old"),
        replace(tables.BASE, hook=None),
        replace(tables.ENTRY, hook=Hook("prerouting", 0)),
        replace(tables.MEMBERS, is_interval=True),
        replace(tables.NETWORKS, elements=tables.NETWORKS.elements[1:]),
        replace(tables.MEMBERS, key_types=(KeyType.IPV6_ADDR,), elements=()),
        Counter("rule/eth0/ssh", comment="old"),
    ),
)
def test_what_cannot_change_in_place_is_replaced_with_the_table(other: Chain | VerdictMap | Counter) -> None:
    """The kernel changes no hook, comment or key, and may refuse ranges: one transaction makes all anew."""
    before = _whole_but(other)
    plan = make_plan(tables.WHOLE, before)
    assert plan.flip == (DestroyTable(), *make_plan(tables.WHOLE, None).operations)
    assert (plan.fill, plan.removal, plan.before) == ((), (), before)
    assert carry_out(plan, before) == tables.WHOLE


@pytest.mark.parametrize(
    "added",
    (
        Chain(name="evil", rules=(Rule((Goto("generation"),)),)),
        replace(tables.MEMBERS, name="evil", elements=(tables.member(1, "generation"),)),
    ),
)
def test_the_generation_changes_where_another_process_leads_to_its_chain(added: Chain | VerdictMap) -> None:
    """The kernel deletes no chain that something leads to."""
    dataplane = FakeDataplane()
    dataplane.ruleset = _whole_but(added)
    bring(dataplane, tables.NEXT_GENERATION)
    assert dataplane.ruleset == tables.NEXT_GENERATION


FOREIGN: tuple[tuple[str, tuple[Operation, ...]], ...] = (
    ("table sgagent", (AddTable(),)),
    ("set evil one", (Delete("set", "evil one"),)),
    ("ct helper evil", (Delete("ct helper", "evil"),)),
    ("chain evil", (Flush("chain", "evil"), Delete("chain", "evil"))),
    ("policy prerouting", (AddChain(replace(tables.BASE, rules=())),)),
    (
        "rule prerouting",
        (Flush("chain", "prerouting"), *(AddRule("prerouting", rule) for rule in tables.BASE.rules)),
    ),
)


@pytest.mark.parametrize(("name", "operations"), FOREIGN)
def test_foreign_things_go_and_ours_stay(name: str, operations: tuple[Operation, ...]) -> None:
    """A foreign thing costs what it takes to remove it, and no more."""
    assert make_plan(tables.WHOLE, tables.WHOLE, (name,)).operations == operations


def test_a_set_with_a_bucket_of_others_is_emptied() -> None:
    """Where it stays; what was in it is none of the table's, and one that goes is deleted anyway."""
    (own,) = tables.LIMITED.meter_sets
    planted = replace(tables.LIMITED, meter_sets=(replace(own, strange_bucket="10.0.0.3 with no limit"),))
    plan = make_plan(tables.LIMITED, planted)
    assert plan.operations == (Flush("set", own.name),)
    assert carry_out(plan, planted) == tables.LIMITED
    without = make_plan(tables.WHOLE, planted)
    assert Flush("set", own.name) not in without.operations
    assert Delete("set", own.name) in without.removal


def test_a_destroyed_table_is_none() -> None:
    """Nothing is left, and it can be made again."""
    assert carry_out(Plan((DestroyTable(),)), tables.WHOLE) is None
    remade = Plan((DestroyTable(), *make_plan(tables.WITHOUT_SSH, None).operations))
    assert carry_out(remade, tables.WHOLE) == tables.WITHOUT_SSH


def test_table_flags_go_with_the_declaration() -> None:
    """How the table is protected is for whoever applies the plan to say."""
    plan = Plan((DestroyTable(), AddTable(), Delete("quota", "q"), Flush("map", "m")))
    here = {"family": "inet", "table": "sgagent"}
    assert encode_plan(plan, ("owner", "persist")) == {
        "nftables": [
            {"destroy": {"table": {"family": "inet", "name": "sgagent"}}},
            {"add": {"table": {"family": "inet", "name": "sgagent", "flags": ["owner", "persist"]}}},
            {"delete": {"quota": {**here, "name": "q"}}},
            {"flush": {"map": {**here, "name": "m"}}},
        ]
    }


@pytest.mark.parametrize(
    "foreign", ("map peers/eth0", "set peers/eth0", "chain generation", "counter rule/eth0/ssh")
)
def test_a_foreign_object_with_a_name_of_ours_is_replaced_with_the_table(foreign: str) -> None:
    """All in one transaction, whatever refers to it; without such a name the table stays."""
    plan = make_plan(tables.WHOLE, tables.WHOLE, (foreign,))
    assert isinstance(plan.flip[0], DestroyTable)
    assert (plan.fill, plan.removal) == ((), ())
    assert plan.flip[1:] == tuple(make_plan(tables.WHOLE, None).operations)
    other = make_plan(tables.WHOLE, tables.WHOLE, (f"{foreign}-of-others",))
    assert not any(isinstance(operation, DestroyTable) for operation in other.operations)


def test_a_table_that_can_not_be_listed_is_replaced() -> None:
    """It is no table whose objects could stay, but the kernel knows their names."""
    first = make_plan(tables.WHOLE, None)
    plan = make_plan(tables.WHOLE, None, ("table sgagent",))
    assert plan.is_anew
    assert plan == Plan((DestroyTable(), *first.operations))
    assert not first.is_anew


@pytest.mark.parametrize("kind", ("ct timeout", "ct expectation", "unheard-of"))
def test_an_object_that_can_not_be_deleted_alone_goes_with_the_table(kind: str) -> None:
    """Else the kernel, or the applier, would refuse the change and each one after it."""
    assert make_plan(tables.WHOLE, tables.WHOLE, (f"{kind} evil",)).is_anew
    assert not make_plan(tables.WHOLE, tables.WHOLE, ("ct helper evil",)).is_anew


@pytest.mark.parametrize("name", ("", "@links", "eth*", 'a"b', "a\\b", "a\nb"))
def test_a_link_that_nft_would_read_otherwise_is_refused(name: str) -> None:
    """As a key of a map."""
    element = Element((Symbol(name),), Drop())
    with pytest.raises(ValueError, match="not an interface name"):
        encode_operation(AddElements("links/ingress", (KeyType.IFNAME,), (element,)))
    assert encode_operation(
        AddElements("links/ingress", (KeyType.IFNAME,), (Element((Symbol("eth0"),), Drop()),))
    )
