"""A plan that only adds, as commands."""

from __future__ import annotations

import pytest

from sgagent.nft.diff import make_plan
from sgagent.nft.ruleset import Chain, Counter, Hook, KeyType, VerdictMap
from sgagent.nft.text import write_additions
from sgagent.nft.transactions import (
    AddChain,
    AddCounter,
    AddTable,
    AddVerdictMap,
    DeclarationVerb,
    Delete,
    DeleteElements,
    DestroyTable,
    Flush,
    Operation,
    without_destroy,
)
from tests.contract import tables

EXPECTED = """\
add table inet sgagent
add counter inet sgagent rule/eth0/ssh
add counter inet sgagent rule/eth0/web
"""


def test_commands_are_in_the_order_of_the_plan() -> None:
    """Each operation is a line, and all names are whole."""
    operations = make_plan(tables.WHOLE, None).operations
    text = write_additions(operations)
    assert text is not None
    assert text.startswith(EXPECTED)
    assert len(text.splitlines()) == len(operations)
    assert "add element inet sgagent networks/eth0 { 10.0.0.0/8 : goto rule/eth0/web, " in text
    assert 'add rule inet sgagent rule/eth0/ssh counter name "rule/eth0/ssh"' in text


def test_what_stands_behind_a_name_is_in_braces() -> None:
    """Flags, hooks and comments are told with what they belong to."""
    chain = Chain(name="prerouting", hook=Hook(name="prerouting", hook_priority=-150), comment="first")
    plan = (DestroyTable(), AddTable(), AddCounter(Counter(name="a", comment="b")), AddChain(chain))
    assert write_additions(plan, ("owner", "persist")) == (
        "destroy table inet sgagent\n"
        "add table inet sgagent { flags owner, persist; }\n"
        'add counter inet sgagent a { comment "b"; }\n'
        "add chain inet sgagent prerouting"
        ' { type filter hook prerouting priority -150; policy accept; comment "first"; }\n'
    )


@pytest.mark.parametrize(
    "operation",
    (
        Delete("set", "evil }; flush ruleset; add table inet x { set"),
        Delete("chain", "drop"),
        Flush("map", "peers/eth0"),
        DeleteElements(tables.MEMBERS.name, tables.MEMBERS.key_types, tuple(tables.MEMBERS.elements)),
    ),
)
def test_what_somebody_else_may_have_named_is_not_written(operation: Operation) -> None:
    """Such a plan is told as JSON, in which a name is nothing but a name."""
    assert write_additions((AddTable(), operation)) is None


def test_a_counter_with_a_comment_can_not_be_created_by_text() -> None:
    """Nft's grammar has no such command; the plan goes to the kernel as JSON then."""
    commented: list[Operation] = [AddTable(), AddCounter(Counter(name="a", comment="b"))]
    assert write_additions(commented) is not None
    assert write_additions(commented, verb=DeclarationVerb.CREATE) is None
    assert write_additions([AddCounter(Counter(name="a"))], verb=DeclarationVerb.CREATE) == (
        "create counter inet sgagent a\n"
    )


def test_a_map_is_declared_by_an_expression() -> None:
    """Older nft crashes on what libnftables attaches to a map that is declared by its type."""
    types = tuple(
        one for one in KeyType if one not in (KeyType.CONTROL_GROUP, KeyType.BOOLEAN)
    )  # no map holds it
    declared = [AddVerdictMap(VerdictMap(name="m", key_types=types, is_interval=False, elements=()))]
    text = write_additions(declared)
    assert text is not None
    assert text.startswith(
        "add map inet sgagent m { typeof ip saddr . ip6 saddr . meta l4proto . th dport . iifname"
    )


def test_older_kernels_delete_what_they_add_first() -> None:
    """Linux before 6.3 has no command to destroy a table that need not be there."""
    counter = AddCounter(Counter(name="a"))
    assert write_additions(without_destroy((DestroyTable(), AddTable(), counter))) == (
        "add table inet sgagent\n"
        "delete table inet sgagent\n"
        "add table inet sgagent\n"
        "add counter inet sgagent a\n"
    )
