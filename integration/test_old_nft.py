"""An older nft works beside our table: one of a container, or of an upgrade that is half done.

It is that of Debian 12, unpacked. It crashed, whatever it was to list, beside a map that was declared by a
type.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.policies import invent
from bench.sizes import Size
from integration.namespaces import Namespace
from integration.test_units import asking_for
from sgagent.compiler.compilation import compile_
from sgagent.dataplane.dataplane import LibnftablesDataplane
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.ruleset import Ruleset
from tests.contract import tables
from tests.contract.dataplane import bring
from tests.corpus import examples

_PACKAGES = Path(__file__).parent.parent / ".cache" / "suites" / "bookworm"
_NFT = _PACKAGES / "nftables" / "usr" / "sbin" / "nft"

pytestmark = pytest.mark.skipif(
    not _NFT.exists(), reason="no nft of Debian 12 in .cache; script/setup --development fetches it, as root"
)

_OF_OTHERS = """
table inet other {
    set banned {
        type ipv4_addr
        elements = { 192.0.2.1 }
    }
    chain input {
        type filter hook input priority 0; policy accept;
        ip saddr @banned drop
    }
}
"""

_COMMANDS = (
    *(
        ("list", "tables"),
        ("list", "ruleset"),
        ("-j", "list", "ruleset"),
        ("list", "table", "inet", "sgagent"),
    ),
    *(("list", "table", "inet", "other"), ("list", "maps"), ("list", "counters"), ("list", "sets")),
    *(
        ("add", "element", "inet", "other", "banned", "{ 192.0.2.2 }"),
        ("flush", "set", "inet", "other", "banned"),
    ),
    *(("flush", "table", "inet", "other"), ("delete", "table", "inet", "other")),
)

_LAYOUT = MarkLayout(0xFFFF0000)


def _tables() -> Iterator[Ruleset]:
    yield from tables.ALL
    for example in examples():
        policy = example.policy()
        yield compile_(policy, _LAYOUT, first_state(policy.remembering, _LAYOUT), most_lines=0).ruleset
    yield asking_for("/")  # of all sockets' control groups, by a match that nft can't write


@pytest.fixture
def old_nft() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the older nft, with the libraries of its own suite."""
    places = (
        _PACKAGES / package / "usr" / "lib" / "x86_64-linux-gnu" for package in ("libnftables1", "libnftnl11")
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, places))}

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (str(_NFT), *arguments), input=stdin, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_the_older_nft_is_older(old_nft: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The program is the nft that crashed, with its own library."""
    assert old_nft("--version").stdout.startswith("nftables v1.0.6")


@pytest.mark.long
@pytest.mark.parametrize("owned", (True, False), ids=("owned", "one-shot"))
def test_an_older_nft_works_beside_every_table(
    namespace: Namespace, old_nft: Callable[..., subprocess.CompletedProcess[str]], *, owned: bool
) -> None:
    """It lists all tables, and loads, changes and deletes its own, whatever table of ours stands."""
    del namespace  # the thread is in it
    with contextlib.closing(LibnftablesDataplane(owned=owned)) as dataplane:
        for table in _tables():
            bring(dataplane, table)
            loaded = old_nft("-f", "-", stdin=_OF_OTHERS)
            assert loaded.returncode == 0, loaded.stderr
            for command in _COMMANDS:
                done = old_nft(*command)
                assert done.returncode == 0, (command, done.returncode, done.stderr)


@pytest.mark.long
def test_an_older_nft_works_beside_a_large_policy(
    namespace: Namespace, old_nft: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """200 commands beside 1,000 rules and 10,000 members, which change meanwhile: not one crashes."""
    del namespace  # the thread is in it
    policies = [invent(Size(1000, 10_000), seed).resolved for seed in (1, 2)]
    state = first_state(policies[0].remembering, _LAYOUT)
    tables = [compile_(policy, _LAYOUT, state).ruleset for policy in policies]
    with contextlib.closing(LibnftablesDataplane(owned=True)) as dataplane:
        crashed = []
        for number in range(_MANY):
            if number % 20 == 0:
                bring(dataplane, tables[number // 20 % 2])
            command = ("-f", "-") if number % len(_SMALL) == 0 else _SMALL[number % len(_SMALL)]
            done = old_nft(*command, stdin=_OF_OTHERS if command == ("-f", "-") else None)
            crashed += [(command, done.returncode, done.stderr)] if done.returncode else []
        assert crashed == []


_MANY = 200
_SMALL = (("-f", "-"), *_COMMANDS)
"""The commands, each after its own table is loaded."""


def test_a_map_that_is_declared_by_its_type_crashes_it(
    namespace: Namespace, old_nft: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The reason why ours is declared by an expression; where this fails, that is needed no more."""
    namespace.nft("-f", "-", stdin="table inet x {\n map m {\n type ipv4_addr : verdict\n }\n}\n")
    assert old_nft("list", "tables").returncode == -11
