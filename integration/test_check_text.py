"""A text is checked by the kernel without touching anything, by an ordinary user too."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from integration.namespaces import network_namespace
from sgagent.dataplane.libnftables import Accepted, NotPossible, Refused, check_text, text_features
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import render
from tests.contract import tables


@pytest.mark.parametrize("ruleset", tables.ALL)
def test_a_rendered_table_is_accepted(ruleset: Ruleset) -> None:
    """The kernel takes the text encoder's output."""
    known = text_features()
    assert check_text(render(ruleset, persist=known.persist, destroys=known.destroy)) == Accepted()


def test_a_wrong_table_is_refused_with_a_reason() -> None:
    """The reason is nft's own."""
    refused = check_text("table inet sgagent {\n\tchain a {\n\t\tgoto nowhere\n\t}\n}\n")
    assert isinstance(refused, Refused)
    assert "No such file or directory" in refused.reason


def test_what_takes_too_long_is_given_up() -> None:
    """No text can keep the caller waiting."""
    assert isinstance(check_text(render(tables.WHOLE, persist=False), seconds=0.001), NotPossible)


def test_nothing_of_the_host_is_touched() -> None:
    """The table does not appear where the caller is."""
    with network_namespace() as namespace, namespace.entered():
        assert check_text(render(tables.WHOLE, persist=False)) == Accepted()
        assert namespace.nft("list", "ruleset") == ""


@pytest.mark.parametrize("path", ("/usr/bin:/bin", "/usr/local/bin:/usr/bin:/usr/games"))
def test_the_search_path_does_not_matter(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Where nft is not on an ordinary user's search path, it is found and knows as much."""
    known = text_features()
    monkeypatch.setenv("PATH", path)
    assert text_features() == known
    assert check_text("table inet sgagent {\n}\n") == Accepted()


def test_what_nft_knows_is_known_where_the_kernel_cannot_be_asked() -> None:
    """Without private namespaces too, as a host may forbid them, the text is the same."""
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set -all --inh-caps -all "
    ask = "from sgagent.dataplane.libnftables import *; print(text_features(), check_text(''))"
    isolated = ("unshare", "--map-root-user", "--user", "sh", "-c", forbid + '"$@"', "-")
    command = (*isolated, sys.executable, "-c", ask)
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f"{text_features()} NotPossible")


def test_an_ordinary_user_may_ask() -> None:
    """Where the host allows private namespaces no privilege is needed."""
    child = os.fork()
    if child == 0:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os._exit(0 if isinstance(check_text("table inet sgagent {\n}\n"), (Accepted, NotPossible)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
