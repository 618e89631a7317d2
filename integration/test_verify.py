"""A text is checked by the kernel without touching anything, by an ordinary user too."""

from __future__ import annotations

import os

import pytest

from integration.namespaces import network_namespace
from sgagent.core.nfttext import render
from sgagent.core.ruleset import Ruleset
from sgagent.dataplane.verify import NotPossible, Refused, Verified, knows_persist, verify
from tests.contract import tables


@pytest.mark.parametrize("ruleset", tables.ALL)
def test_a_rendered_table_is_accepted(ruleset: Ruleset) -> None:
    """What the text encoder writes, the kernel takes."""
    assert verify(render(ruleset, persist=knows_persist())) == Verified()


def test_a_wrong_table_is_refused_with_a_reason() -> None:
    """The reason is nft's own."""
    refused = verify("table inet sgagent {\n\tchain a {\n\t\tgoto nowhere\n\t}\n}\n")
    assert isinstance(refused, Refused)
    assert "No such file or directory" in refused.reason


def test_what_takes_too_long_is_given_up() -> None:
    """No text can keep the caller waiting."""
    assert isinstance(verify(render(tables.WHOLE, persist=False), seconds=0.001), NotPossible)


def test_nothing_of_the_host_is_touched() -> None:
    """The table does not appear where the caller is."""
    with network_namespace() as namespace, namespace.entered():
        assert verify(render(tables.WHOLE, persist=False)) == Verified()
        assert namespace.nft("list", "ruleset") == ""


def test_an_ordinary_user_may_ask() -> None:
    """Where the host allows private namespaces no privilege is needed."""
    child = os.fork()
    if child == 0:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os._exit(0 if isinstance(verify("table inet sgagent {\n}\n"), (Verified, NotPossible)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
